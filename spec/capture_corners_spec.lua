-- Corners of captured functions: equal expressions of which one is written over, tensors written after a call, draws in
-- recorded reverse passes, results of several types, arguments that look alike.

local tide = require "tide"
require "spec.helper"

local function vector(...) return tide.tensor({...}, "float64") end

describe("a captured function", function()
  it("keeps equal expressions apart when one of them is written over", function()
    for _, f in ipairs {function(x) return x:clone() end, function(x) return x * 2 end,
      function(x) return x:exp() - 1 end} do
      local g = tide.capture(function(x)
        local a = f(x)
        a[1] = 0
        return a, f(x)
      end)
      local x = vector(1, 2, 3)
      local a, b = g(x)
      assert.close(b, f(x), 1e-15)
      assert.are.equal(0, a[1]:item())
    end
  end)

  it("reads of a tensor of its own what it held then, when that is written over later", function()
    local functions = {
      function(x)
        local z = tide.ones(2, 5)
        local y = x + z
        z:fill_(3)
        return y, x * z
      end,
      function(x)
        local z = tide.ones(2, 5)
        local y = x * z
        z:add_(x)
        return y, x * z
      end,
      function(x)
        local z = tide.ones(1)
        local y = x + z:expand(2, 5)
        z:mul_(x[1][2])
        return y, x * z
      end,
      function(x)
        local z = tide.ones(10)
        local y = x + z:reshape(5, 2):t()
        z[{{2, 4}}] = 7
        return y, x[1] * z:narrow(1, 1, 5)
      end,
      function(x)
        local mask, y = tide.zeros(5), 0
        for i = 1, 5 do
          mask:zero_()
          mask[i] = i
          y = y + x * mask
        end
        return y, mask
      end,
      function(x)
        local z = tide.ones(2, 5)
        local slope = tide.grad(function(u) return (u * z):sum() end)(x)
        z:zero_()
        return slope, x * z
      end,
    }
    local x = tide.arange(1, 10):float():reshape(2, 5)
    for _, f in ipairs(functions) do
      local expected, got = {f(x)}, {tide.capture(f)(x)}
      for i, y in ipairs(expected) do assert.close(got[i], y, 1e-6) end
    end
  end)

  it("gives more than four results in their own types, with gradients for those that have one", function()
    local function f(x, k)
      return x * 2, x:gt(1), x:argmax(), x:float():exp(), k + 1, x:sum()
    end
    local k = tide.tensor({2 ^ 60}, "int64")
    for _, order in ipairs {1, 2} do
      local results = {}
      for i, g in ipairs {f, tide.capture(f)} do
        local x = vector(1, 2, 3):requires_grad()
        local list = {g(x, k)}
        local loss = (list[1] * x):sum() + list[4]:double():square():sum() + list[6]
        local slope = tide.gradients(loss, {x}, {create_graph = order == 2})[1]
        if order == 2 then slope = tide.gradients(slope:square():sum(), {x})[1] end
        results[i] = {list, slope:detach()}
      end
      for i, y in ipairs(results[1][1]) do
        local z = results[2][1][i]
        assert.are.equal(y.dtype, z.dtype)
        assert.are.equal(y.needs_grad, z.needs_grad)
        assert.are.same(y:reshape(-1):totable(), z:reshape(-1):totable())
      end
      assert.close(results[2][2], results[1][2], 1e-6)
    end
  end)

  it("refuses a gradient when a tensor that it closes over was written after the call", function()
    local w, scale = vector(2):requires_grad(), vector(3)
    local g = tide.capture(function(x) return (x * w * scale):sum() end)
    local y = g(vector(5))
    scale:fill_(100)
    assert.fails_here(function() y:backward() end, "closes over", "written in place")
    y = g(vector(5))
    tide.no_grad(function() w:fill_(7) end)
    y:backward()  -- for w's gradient alone its value does not matter
    assert.close(w.grad, {500}, 0)
  end)

  it("draws what it drew when a recorded reverse pass runs it again, and leaves the generator alone", function()
    local g = tide.generator(5)
    local function f(x) return (x ^ 3 * g:rand(3, "float64")):sum() end
    local captured = tide.capture(f)
    local results, after = {}, {}
    for i, h in ipairs {f, captured} do
      g:seed(5)
      local x = vector(1, 2, 3):requires_grad()
      local slope = tide.gradients(h(x), {x}, {create_graph = true})[1]
      results[i], after[i] = tide.gradients(slope:sum(), {x})[1], {g:state()}
    end
    assert.close(results[2], results[1], 1e-14)
    assert.are.same(after[1], after[2])
  end)

  it("writes once, whatever the reverse pass does", function()
    local seen, w = vector(0), vector(2):requires_grad()
    for _, keep in ipairs {0, math.huge} do
      local g = tide.capture(function(x)
        seen:add_(x)
        return (x:exp() * w):tanh():sum()
      end, {keep = keep})
      seen:zero_()
      tide.gradients(g(vector(1)), {w})
      assert.close(seen, {1}, 0)
      local slope = tide.gradients(g(vector(1)), {w}, {create_graph = true})[1]
      assert.close(seen, {2}, 0)
      assert.is_true(slope.needs_grad)
    end
  end)

  it("writes into its arguments, also into those that are not contiguous", function()
    local g = tide.capture(function(x)
      x:mul_(2)
      return x:sum()
    end)
    local x = tide.ones(2, 3):t()
    local version = x.version
    assert.close(g(x), 12, 0)
    assert.close(x, tide.full({3, 2}, 2), 0)
    assert.is_true(x.version > version)
  end)

  it("has a profile when it was called, with its arguments or without", function()
    local g = tide.capture(function(x) return x:exp() end)
    assert.fails_here(function() g:profile() end, "profile", "nothing is captured yet")
    g(vector(1))
    assert.is_truthy(tostring(g:profile()):find "exp")
    local h = tide.capture(function(x) return x * x:item() end, {fallback = "eager"})
    h(vector(1))
    assert.fails_here(function() h:profile() end, "profile", "not captured", "item")
  end)

  it("tells arguments apart that print alike", function()
    local g = tide.capture(function(x, k) return type(k) == "string" and x * 0 or x * k end)
    local x = vector(1)
    assert.are.equal(0.3, g(x, 0.3):item())
    assert.are.equal(0.1 + 0.2, g(x, 0.1 + 0.2):item())
    assert.are.equal(2, g(x, 2):item())
    assert.are.equal(0, g(x, "2"):item())
  end)

  it("tells modules apart that are built alike, and takes tables with keys of any type", function()
    local x = tide.ones(1, 3)
    local g = tide.capture(function(net, u) return net(u) end)
    for _ = 1, 2 do
      local net = tide.nn.Linear(3, 2)
      assert.close(g(net, x), net(x), 1e-6)
    end
    local h = tide.capture(function(t) return t[true] + t[1] * 10 + t.a * 100, {[false] = t[true]} end)
    local sum, rest = h {[true] = vector(1), vector(2), a = vector(3)}
    assert.close(sum, {321}, 0)
    assert.close(rest[false], {1}, 0)
    local ring = {vector(1)}
    ring.again = ring
    assert.fails_here(function() h(ring) end, "contains itself")
  end)

  it("keeps a bounded number of programs, those used last", function()
    local g = tide.capture(function(u, k) return u * k end)
    for k = 1, 200 do
      assert.are.equal(3, g(vector(1), 3):item())
      assert.are.equal(k, g(vector(1), k):item())
    end
    local programs = g:programs()
    assert.are.equal(64, #programs)
    local third = false
    for _, p in ipairs(programs) do third = third or p.key:find(" 2 3 }", 1, true) ~= nil end
    assert.is_true(third)
  end)

  it("does not take masks that are held from call to call", function()
    local net = tide.nn.VariationalDropout(0.5, {dims = {}})
    local g = tide.capture(function(u) return net(u) end)
    local x = tide.ones(1, 100)
    assert.fails_here(function() g(x) end, "VariationalDropout", "held", "nn.Dropout")
    local mask = net(x)
    assert.close(net(x), mask, 0)
    assert.fails_here(function() g(x) end, "VariationalDropout")
    net:eval()
    assert.close(g(x), x, 0)
  end)
end)

describe("what changes outside of a captured function is noticed:", function()
  local x = vector(1, 2)

  it("a tensor that becomes a parameter, or none", function()
    local v, w = vector(1, 1):requires_grad(), vector(3, 4)
    local g = tide.capture(function(u) return (u * v * w):sum() end)
    g(x):backward()
    assert.is_nil(w.grad)
    w:requires_grad()
    g(x):backward()
    assert.close(w.grad, {1, 2}, 0)
    v:requires_grad(false)
    w:requires_grad(false)
    assert.is_false(g(x).needs_grad)
  end)

  it("a global, in the environment of its function", function()
    local env = setmetatable({tide = tide}, {__index = _G})
    setfenv(assert(loadstring [[
      factor = 2
      local function scaled(u) return function() return u * factor * (bias or 1) end end
      function f(u) return scaled(u)() end
    ]]), env)()
    local g = tide.capture(env.f)
    assert.close(g(x), {2, 4}, 0)
    env.factor = 3
    assert.close(g(x), {3, 6}, 0)
    env.bias = 10
    assert.close(g(x), {30, 60}, 0)
  end)

  it("what a module's own forward closes over", function()
    local factor = 2
    local net = tide.nn.Module {forward = function(_, u) return u * factor end}
    local g = tide.capture(net)
    assert.close(g(x), {2, 4}, 0)
    factor = 3
    assert.close(g(x), {3, 6}, 0)
  end)

  it("what a function closes over that lies in a folder of the name tide", function()
    local chunk = assert(loadstring([[
      local x, factor = ..., 2
      local function helper(u) return u * factor end
      return function(u) return helper(u) end, function(k) factor = k end
    ]], "@experiments/tide/script.lua"))
    local f, set = chunk()
    local g = tide.capture(f)
    assert.close(g(x), {2, 4}, 0)
    set(3)
    assert.close(g(x), {3, 6}, 0)
  end)
end)

describe("a captured function that changes what it closes over", function()
  it("is refused, with what it changes; a training step runs as it is", function()
    local list, calls, env = {}, 0, setmetatable({tide = tide}, {__index = _G})
    setfenv(assert(loadstring "function f(u) last = u * 2 return last end"), env)()
    local functions = {
      [function(u)
        list[#list + 1] = u
        return u * #list
      end] = "'list', at [1]",
      [function(u)
        calls = calls + 1
        return u * 2
      end] = "'calls'",
      [env.f] = "the global 'last'",
      [tide.nn.Module {seen = 0, forward = function(self, u)
        self.seen = self.seen + 1
        return u * 2
      end}] = "its own fields, at [seen]",
    }
    for f, what in pairs(functions) do
      local ok, err = pcall(tide.capture(f), vector(1))
      assert.is_false(ok)
      for _, part in ipairs {what, "once only", "eager"} do
        assert.is_truthy(err:find(part, 1, true), err)
      end
      local eager = tide.capture(f, {fallback = "eager"})
      for _ = 1, 3 do eager(vector(1)) end
      assert.is_truthy(eager:reason():find(what, 1, true))
    end
    assert.are.same({3, 3}, {#list, calls})  -- as if nobody had tried to capture
    assert.close(list[1], {1}, 0)
    local w, losses = vector(1):requires_grad(), {}
    local step = tide.train_step(function()
      local loss = (w * w):sum()
      losses[#losses + 1] = loss:detach()
      return loss
    end, tide.optim.SGD({w}, {lr = 0.1}))
    for _ = 1, 3 do step() end
    assert.is_truthy(step:reason():find("'losses', at [", 1, true))
    assert.are.equal(3, #losses)
    assert.close(losses[3], 0.64 ^ 2, 1e-12)
    local seen = vector(0)
    local writes = tide.capture(function(u)
      seen:add_(u)
      return u * 2
    end)
    for _ = 1, 3 do writes(vector(1)) end
    assert.close(seen, {3}, 0)
  end)
end)

describe("train() and eval() of modules", function()
  it("capture anew when they change something, and else not", function()
    local net = tide.nn.Sequential(tide.nn.Linear(3, 3), tide.nn.Dropout(0.5))
    local g, x = tide.capture(function(u) return net(u) end), tide.ones(1, 3)
    local function program()
      g(x)
      return g:programs()[1]
    end
    local first = program()
    net:train()
    assert.are.equal(first, program())
    net[2]:eval()
    local second = program()
    assert.are_not.equal(first, second)
    assert.close(g(x), net[1](x), 1e-6)
    net:train()
    assert.are_not.equal(second, program())
  end)
end)

describe("a recorded gradient of a call", function()
  it("is refused when the function would be another by then, any other gradient is that of the call", function()
    local k, net = 2, tide.nn.Sequential(tide.nn.Dropout(0.5))
    local g = tide.capture(function(u) return (net(u) ^ 3 * k):sum() end)
    net:eval()
    local x = vector(1):requires_grad()
    for _, change in ipairs {function() k = k + 1 end, function() net:train() end} do
      net:eval()
      local before, plain, recorded = k, g(x), g(x)
      change()
      assert.close(tide.gradients(plain, {x})[1], {3 * before}, 0)
      assert.fails_here(function() tide.gradients(recorded, {x}, {create_graph = true}) end, "after the call")
    end
  end)
end)

describe("a solver's field", function()
  it("that counts its calls in a global, or in itself when it is a module, runs as it is", function()
    local env = setmetatable({}, {__index = _G})
    setfenv(assert(loadstring "calls = 0; function f(t, y) calls = calls + 1 return -y end"), env)()
    local net = tide.nn.Module {calls = 0, forward = function(self, _, y)
      self.calls = self.calls + 1
      return -y
    end}
    local halves = {calls = 0, explicit = function(_, y) return -y end}
    function halves.implicit(_, y)
      halves.calls = halves.calls + 1
      return y * 0
    end
    for _ = 1, 2 do
      for f, counted in pairs {[env.f] = env, [net] = net, [halves] = halves} do
        counted.calls = 0
        local method = f == halves and "kencarp3" or "rk4"
        local sol = tide.ode.solve(f, vector(1), {0, 1}, {method = method, step_size = 0.1})
        assert.is_false(sol.captured)
        assert.is_truthy(sol.not_captured:find("changes what it closes over", 1, true))
        assert.is_true(counted.calls >= 40)
      end
    end
  end)

  it("says what it changes, where it is, and in words what that means", function()
    local list, env = {0}, setmetatable({}, {__index = _G})
    local fields = {
      ["'list', at [2]"] = function(t, y)
        list[2] = t
        return -y * #list / #list
      end,
      ["the global 'last'"] = setfenv(function(_, y)
        last = y  -- luacheck: ignore
        return -y
      end, env),
    }
    for what, f in pairs(fields) do
      for _, batch in ipairs {false, true} do
        list[2] = nil
        local sol = tide.ode.solve(f, tide.ones(2, 1), {0, 1}, {batch = batch})
        assert.is_false(sol.captured)
        for _, part in ipairs {what, "capture_corners_spec.lua:" .. debug.getinfo(f, "S").linedefined, "Take it out"} do
          assert.is_truthy(sol.not_captured:find(part, 1, true), sol.not_captured)
          assert.is_truthy(sol:explain():find(part, 1, true))
        end
      end
    end
    local sol = tide.ode.solve(function(_, y) return -y end, tide.ones(2, 1), {0, 1}, {batch = true})
    assert.is_true(sol.captured)
    assert.is_nil(sol.not_captured)
    assert.is_nil(sol:explain():find "captured")
  end)
end)

describe("a solve inside a captured function", function()
  it("is refused, and a training step around it runs as it is", function()
    local function f(x, o) return tide.ode.solve(function(_, y) return y * x end, tide.ones(1, 2), {0, 1}, o).last end
    for _, o in ipairs {{}, {batch = true}, {method = "rk4", step_size = 0.5}} do
      assert.fails_here(function()
        local y = tide.capture(f)(tide.ones(2), o)
        return y
      end, "ode.solve", "while a function is captured", "eager")
    end
    local numbers = tide.capture(function(x) return x * tide.ode.solve(function(_, y) return y end, 1, {0, 1}).last end)
    assert.close(numbers(tide.ones(1)), {math.exp(1)}, 1e-4)
    local w = tide.zeros(2):requires_grad()
    local step = tide.train_step(function() return (f(w) - 2):square():sum() end, tide.optim.SGD({w}, {lr = 0.1}))
    for _ = 1, 30 do step() end
    assert.is_truthy(step:reason():find "ode.solve")
    assert.close(w, {math.log(2), math.log(2)}, 1e-2)
  end)
end)

describe("Lua's own random numbers", function()
  it("are no constants of a captured function: it is refused at the line, a training step runs as it is", function()
    local function f(x)
      if math.random() < 0.5 then return (x * 2):sum() end
      return x:sum()
    end
    local random = math.random
    assert.fails_here(function()
      local y = tide.capture(f)(vector(1))
      return y
    end, "math.random", "constant", "tide.rand")
    assert.are.equal(random, math.random)
    local yields = tide.capture(function(x)
      coroutine.yield()
      return x
    end)
    local left = coroutine.wrap(function(x) yields(x) end)
    left(vector(1))
    left, yields = nil, nil  -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_true(math.random() < 1)
    math.random = random  -- luacheck: ignore
    local w = vector(1):requires_grad()
    local step, seen = tide.train_step(function() return f(w) end, tide.optim.SGD({w}, {lr = 0})), {}
    for _ = 1, 50 do seen[step()] = true end
    assert.is_truthy(step:reason():find "math.random")
    assert.are.same({true, [2] = true}, seen)
  end)
end)

describe("a training step", function()
  it("leaves parameters alone that this loss does not reach, whatever another step's did", function()
    for _, name in ipairs {"SGD", "Adam"} do
      local results = {}
      for i, train in ipairs {tide.train_step, function(f, opt)
        return function(...)
          opt:zero_grad()
          f(...):backward()
          opt:step()
        end
      end} do
        local a, b = vector(1, 1):requires_grad(), vector(1, 1):requires_grad()
        local step = train(function(x, which) return ((which == "a" and a or b) * x):sum() end,
          tide.optim[name]({a, b}, {lr = 0.1}))
        for _, which in ipairs {"a", "b", "b"} do step(vector(1, 2), which) end
        results[i] = tide.cat({a:detach(), b:detach()}, 1)
      end
      assert.close(results[1], results[2], 1e-14)
    end
  end)
end)

describe("a training step that runs as it is", function()
  it("gives gradients to the optimiser's parameters alone, as a captured one does", function()
    for _, reads in ipairs {false, true} do
      local a, b, frozen = vector(2):requires_grad(), vector(3):requires_grad(), vector(1):requires_grad()
      local opt = tide.optim.SGD({a, frozen}, {lr = 0.1})
      frozen:requires_grad(false)
      local step = tide.train_step(function()
        return (a * b * frozen * (reads and a:item() / a:item() or 1)):sum()
      end, opt)
      for _ = 1, 2 do step() end
      assert.are.equal(reads, step:reason() ~= nil)
      assert.close(a, {2 - 0.6}, 1e-12)
      assert.close(a.grad, {3}, 1e-12)
      assert.is_nil(b.grad)
    end
  end)
end)

describe("derivative rules that look at values", function()
  it("take what holds for all when they are captured: det of any matrix", function()
    for _, m in ipairs {{{1, 2}, {3, 4}}, {{1, 2}, {2, 4}}, {{0, 0}, {0, 0}}} do
      local a = tide.tensor(m, "float64"):requires_grad()
      local expected = tide.gradients(a:det(), {a})[1]
      assert.close(tide.gradients(tide.capture(tide.det)(a), {a})[1], expected, 1e-14)
      assert.close(tide.capture(tide.grad(tide.det))(a:detach()), expected, 1e-14)
    end
  end)

  it("read lincomb's coefficients when the program runs, and refuse those that require a gradient", function()
    local x, c = tide.ones(2):requires_grad(), vector(2, 3)
    local g = tide.capture(function(k, u) return tide.lincomb({k, u, u * u}):sum() end)
    assert.close(tide.gradients(g(c, x), {x})[1], {8, 8}, 0)
    assert.close(tide.gradients(g(c * 2, x), {x})[1], {16, 16}, 0)
    assert.fails_here(function() tide.lincomb({vector(1):requires_grad(), x}) end, "lincomb", "coefficients",
      "constants")
  end)
end)
