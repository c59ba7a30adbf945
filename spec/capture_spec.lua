-- Captured functions: the same numbers as without, gradients of every order, what is noticed, what is refused, and what
-- the planner makes of a function.

local helper = require "spec.helper"
local draw = require "spec.support.draw"
local examples = require "spec.support.examples"
local tide = require "tide"
local core = require "tide.core"

local function tensor(...) return tide.generator(7):randn({...}, "float64") end

local function close(expected, got, tol)
  local why = helper.difference(got, expected, tol or 1e-13)
  if why then error(why, 2) end
end

local function is_real(x) return tide.is_tensor(x) and (x.dtype == "float32" or x.dtype == "float64") end

-- The steps of the only program of a captured function, as text.
local function text_of(captured, which)
  local lines = {}
  for i, line in ipairs(captured:programs()[1][which or "forward"]:lines()) do lines[i] = line.text end
  return table.concat(lines, "\n"), #lines
end

describe("every operation", function()
  local names = {}
  for name in pairs(tide.operations()) do names[#names + 1] = name end
  table.sort(names)

  -- Operands as they come, and as results of a step, so that they are temporaries of the program.
  local function captured_call(name, args)
    return tide.capture(function(...)
      local given = {...}
      for i, x in ipairs(given) do
        if is_real(x) then given[i] = x + 0 end
      end
      return tide[name](unpack(given, 1, #args))
    end)
  end

  for _, name in ipairs(names) do
    it(name .. " gives the same captured", function()
      for number, e in ipairs(examples[name] or {}) do
        local args = e.args(draw(number, "float64"))
        local expected, f = {tide[name](unpack(args))}, captured_call(name, args)
        for _ = 1, 2 do
          local got = {f(unpack(args))}
          assert.are.equal(#expected, #got)
          for i, y in ipairs(expected) do
            local why = helper.difference(got[i], y, 1e-13)
            if why then error(("%s, example %d, result %d: %s"):format(name, number, i, why), 0) end
          end
        end
      end
    end)
  end
end)

describe("a captured function", function()
  local w, b = tensor(3, 4):requires_grad(), tensor(4):requires_grad()
  local function f(x) return (tide.matmul(x, w) + b):tanh():square():sum() end

  before_each(function() w.grad, b.grad = nil, nil end)

  it("gives what the function gives", function()
    local x, g = tensor(5, 3), tide.capture(f)
    close(f(x), g(x))
    close(f(x * 2), g(x * 2))
    close(tide.no_grad(f, x), tide.no_grad(g, x))
  end)

  it("takes and gives nested tables and plain values", function()
    local g = tide.capture(function(s, k) return {sum = s.a + s.list[1] * k, k}, s.a end)
    local a, c = tensor(2), tensor(2)
    local out, again = g({a = a, list = {c}}, 3)
    close(a + c * 3, out.sum)
    close(a, again)
    assert.are.equal(3, out[1])
    close(a + c * 4, g({a = a, list = {c}}, 4).sum)
  end)

  it("has gradients for its arguments and what it closes over", function()
    local x, g = tensor(5, 3):requires_grad(), tide.capture(f)
    local expected = tide.gradients(f(x), {x, w, b})
    local got = tide.gradients(g(x), {x, w, b})
    for i = 1, 3 do close(expected[i], got[i]) end
    g(x):backward()
    close(expected[2], w.grad)
  end)

  it("has gradients of several results, of which some are not used", function()
    local g = tide.capture(function(x) return x * w:sum(), x:square(), x:exp():sum() end)
    local x = tensor(3):requires_grad()
    local a, _, c = g(x)
    local grads = tide.gradients((a:sum() + c), {x, w})
    close(tide.gradients((x * w:sum()):sum() + x:exp():sum(), {x, w})[1], grads[1])
  end)

  it("has gradients of more results than an operation may have", function()
    local x = tensor(2):requires_grad()
    local function many(v)
      local list = {}
      for i = 1, 6 do list[i] = v * i end
      return unpack(list)
    end
    local function total(...)
      local sum = 0
      for i, y in ipairs {...} do sum = sum + (y * i):square():sum() end
      return sum
    end
    close(tide.gradients(total(many(x)), x)[1], tide.gradients(total(tide.capture(many)(x)), x)[1])
  end)

  it("has second derivatives", function()
    local g = tide.capture(function(x) return (x ^ 3 * w[1][1]):sum() end)
    assert.is_true(tide.gradcheck(g, {tensor(3)}))
  end)

  it("keeps no more than asked, and computes again instead", function()
    local x = tensor(40, 3):requires_grad()
    local function deep(v) return (v:matmul(w) + b):exp():tanh():square():sum() end
    local expected = tide.gradients(deep(x), {x, w, b})
    for _, keep in ipairs {0, 1e9} do
      local g = tide.capture(deep, {keep = keep})
      local got = tide.gradients(g(x), {x, w, b})
      for i = 1, 3 do close(expected[i], got[i]) end
      local forward = text_of(g)
      assert.are.equal(keep > 0, forward:find("y2") ~= nil)
    end
  end)

  it("refuses a gradient whose input was written over", function()
    local x, g = tensor(5, 3), tide.capture(f)
    local y = g(x)
    x:fill_(1)
    assert.has_error(function() y:backward() end)
  end)

  it("sees parameters move", function()
    local p = tensor(2)
    local g = tide.capture(function(x) return x + p end)
    local x = tensor(2)
    g(x)
    p:add_(1)
    close(x + p, g(x))
  end)

  it("captures anew for other shapes, types and values", function()
    local g = tide.capture(function(x, k) return x * k end)
    g(tensor(2), 1)
    g(tensor(2), 1)
    close(tensor(3) * 2, g(tensor(3), 2))
    assert.are.equal("float32", g(tensor(2):float(), 1).dtype)
    assert.are.equal(3, #g:programs())
  end)

  it("notices when a value that it closes over is assigned anew", function()
    local k, p = 2, tensor(2)
    local g = tide.capture(function(x) return x * k + p end)
    local x = tensor(2)
    close(x * 2 + p, g(x))
    k = 3
    close(x * 3 + p, g(x))
    p = tensor(2) * 5
    close(x * 3 + p, g(x))
  end)

  it("notices train() and eval() of modules", function()
    local net = tide.nn.Dropout(0.5)
    local g = tide.capture(function(x) return net(x) end)
    local x = tide.ones(64)
    assert.is_true(g(x):eq(0):any():item() == 1)
    net:eval()
    close(x, g(x))
  end)

  it("draws anew at every run, as without", function()
    local g = tide.capture(function(x) return x + tide.randn(4) + tide.rand(4) end)
    tide.manual_seed(3)
    local first, second = g(tide.zeros(4)), g(tide.zeros(4))
    tide.manual_seed(3)
    close(tide.randn(4) + tide.rand(4), first)
    close(tide.randn(4) + tide.rand(4), second)
  end)

  it("writes in place, into its own tensors and into those that it closes over", function()
    local seen = tide.zeros(2, "float64")
    local g = tide.capture(function(x)
      local out = tide.zeros(3, "float64")
      out[1] = x[2] * 2
      out[{{2, 3}}] = x[{{1, 2}}]
      seen:add_(x[{{1, 2}}])
      local y = x:clone()
      y:mul_(3):add_(out)
      return out, y
    end)
    local x = tensor(3)
    for i = 1, 3 do
      local out, y = g(x)
      close(tide.stack({x[2] * 2, x[1], x[2]}), out)
      close(x * 3 + out, y)
      close(x[{{1, 2}}] * i, seen)
    end
  end)

  it("may be called inside another", function()
    local inner = tide.capture(function(x) return x:exp() end)
    local outer = tide.capture(function(x) return inner(x) + 1 end)
    close(tensor(3):exp() + 1, outer(tensor(3)))
  end)

  it("gives results of their own at every call", function()
    local g = tide.capture(function(x) return x * 2 end)
    local a = g(tide.ones(2))
    g(tide.zeros(2))
    close(tide.ones(2) * 2, a)
  end)

  it("may return an argument, a constant, a view and the same tensor twice", function()
    local g = tide.capture(function(x)
      local y = x * 2
      return x, tide.arange(3), y:transpose(1, 2), y, y
    end)
    local x = tensor(2, 3)
    local a, c, t, y, again = g(x)
    close(x, a)
    close(tide.arange(3), c)
    close((x * 2):transpose(1, 2), t)
    close(y, again)
    assert.is_false(y:shares_storage(again))
  end)
end)

describe("what cannot be captured", function()
  local x = tensor(2)

  it("is refused at the line that reads a value", function()
    local g = tide.capture(function(v)
      if v[1]:item() > 0 then return v end
      return -v
    end)
    local ok, err = pcall(g, x)
    assert.is_false(ok)
    assert.is_truthy(err:find("capture_spec.lua:%d+: item: the values"), err)
    assert.is_false(core.capturing())
  end)

  it("runs as it is when asked to, and says why", function()
    local g = tide.capture(function(v) return v * v:sum():item() end, {fallback = "eager"})
    close(x * x:sum(), g(x))
    assert.is_truthy(g:reason():find("item"))
  end)

  it("is also what reads by printing, converting, masks or comparing with numbers", function()
    for _, f in ipairs {tostring, function(v) return v:totable() end, function(v) return v[v:gt(0)] end,
      function(v) return v:tobytes() end, function(v) return tide.statistics(v) end,
      function() return x:item() end} do
      assert.has_error(function() tide.capture(f)(tensor(3)) end)
      assert.is_false(core.capturing())
    end
  end)

  it("is an error of its own, passed on", function()
    local g = tide.capture(function() error("mine", 0) end)
    local _, err = pcall(g, x)
    assert.are.equal("mine", err)
    assert.is_false(core.capturing())
  end)

  it("is a reverse pass into leaves", function()
    local p = tensor(2):requires_grad()
    assert.has_error(function() tide.capture(function(v) (v * p):sum():backward() return v end)(x) end)
  end)

  it("leaves tensors without values behind, which say so", function()
    local room = {inner = {}}  -- deeper than changes are looked for
    local g = tide.capture(function(v)
      room.inner.kept = v * 2
      return room.inner.kept
    end)
    g(x)
    local kept = room.inner.kept
    for _, use in ipairs {function() return kept + 1 end, function() return kept:item() end,
      function() return tostring(kept) end} do
      local ok, err = pcall(use)
      assert.is_false(ok)
      assert.is_truthy(err:find("made while a function was captured"), err)
    end
  end)

  it("is no function", function()
    assert.has_error(function() tide.capture(3) end)
    assert.has_error(function() tide.capture(print, {fallbak = "eager"}) end)
    assert.has_error(function() tide.capture(function() return 1 end)(x) end)
  end)
end)

describe("a plan", function()
  local x = tensor(64, 32)

  it("runs an element-wise chain as one step", function()
    local g = tide.capture(function(v) return ((v * 2 + 1):tanh() - v:exp()):relu() end)
    close(((x * 2 + 1):tanh() - x:exp()):relu(), g(x))
    assert.are.equal(1, (select(2, text_of(g))))
  end)

  it("computes common parts once and nothing that nobody reads", function()
    local g = tide.capture(function(v)
      local unused = v:matmul(v:transpose(1, 2))
      return v:exp():sum(1) + v:exp():sum(1), unused.ndim
    end)
    g(x)
    local text = text_of(g)
    assert.is_nil(text:find("mm"))
    assert.are.equal(1, select(2, text:gsub("exp", "")))
  end)

  it("folds constants", function()
    local g = tide.capture(function(v) return v + (tide.arange(32):double() * 2):cos() end)
    g(x)
    assert.is_nil(text_of(g):find("cos"))
  end)

  it("uses memory again", function()
    local g = tide.capture(function(v)
      for _ = 1, 10 do v = v:cumsum(1) end
      return v
    end)
    g(x)
    assert.is_true(g:programs()[1].forward:memory() <= 2 * 64 * 32 * 8)
  end)

  it("keeps nothing for the reverse pass that it does not read", function()
    local g = tide.capture(function(v) return (v:cumsum(1) + 1):sum() end)
    local v = tensor(8, 8):requires_grad()
    close(tide.gradients((v:cumsum(1) + 1):sum(), v)[1], tide.gradients(g(v), v)[1])
    assert.is_nil(text_of(g):find("y2"))
  end)

  it("is found again by an equal function with other tensors", function()
    local function make(p) return tide.capture(function(v) return v * p end) end
    local one, two = tensor(32), tensor(32) * 3
    local a, c = make(one), make(two)
    close(x * one, a(x))
    close(x * two, c(x))
    close(x * one, a(x))
  end)

  it("prints itself and its measurements", function()
    local g = tide.capture(function(v) return v:matmul(v:transpose(1, 2)):sum() end, {name = "a gram sum"})
    assert.is_truthy(tostring(g):find("not called yet"))
    g(x)
    local text = tostring(g)
    for _, word in ipairs {"a gram sum", "mm", "sum", "FLOP", "own memory"} do
      assert.is_truthy(text:find(word, 1, true), word)
    end
    local profile = g:profile(x)
    assert.is_true(profile.seconds > 0 and profile.peak > 0)
    assert.is_truthy(tostring(profile):find("GFLOP/s", 1, true))
    assert.are.equal(#profile, #g:profile())
  end)

  it("adds to a gradient that is a constant, in programs of few numbers too", function()
    for _, dtype in ipairs {"float64", "float32"} do
      for _, n in ipairs {2, 50} do
        local p, y = tide.tensor({1.1}, dtype), tide.randn({n, 2}, dtype)
        local function f(v)
          local leaf = v:detach():requires_grad()
          local a = leaf:narrow(2, 2, 1)
          return tide.gradients(tide.cat({a * p, a * 0.3}, 2), {leaf}, {cotangents = tide.ones({n, 2}, dtype) * 2})[1]
        end
        close(f(y), tide.capture(f)(y))
      end
    end
  end)

  it("says what arguments its programs are for", function()
    local g = tide.capture(function(a, o) return a:sum() * o.scale + o.parts[1]:sum() end)
    g(tide.ones(2, 3), {scale = 2, parts = {tide.tensor(1)}})
    assert.is_truthy(tostring(g):find("for (float32 2×3, {parts = {float32 0-d}, scale = 2})\n", 1, true))
  end)
end)

describe("a training step", function()
  local function model(seed)
    tide.manual_seed(seed)
    return tide.nn.Sequential(tide.nn.Linear(6, 16), tide.nn.LayerNorm(16), tide.nn.GELU(), tide.nn.Dropout(0.2),
      tide.nn.Linear(16, 3))
  end
  local x, labels = tide.generator(1):randn(12, 6), tide.generator(2):randint(1, 3, 12)
  local function loss_of(net) return function(input, target) return tide.nn.cross_entropy(net(input), target) end end

  it("trains as the loop does", function()
    local a, b = model(1), model(1)
    local one, two = tide.optim.Adam(a:parameters(), {lr = 1e-2}), tide.optim.Adam(b:parameters(), {lr = 1e-2})
    local step, expected, got = tide.train_step(loss_of(a), one), {}, {}
    tide.manual_seed(9)
    for i = 1, 5 do got[i] = step(x, labels) end
    tide.manual_seed(9)
    for i = 1, 5 do
      two:zero_grad()
      local loss = loss_of(b)(x, labels)
      loss:backward()
      two:step()
      expected[i] = loss:item()
    end
    close(tide.tensor(expected), tide.tensor(got), 1e-6)
    assert.is_nil(step:reason())
    for name, p in pairs(a:state_dict()) do close(b:state_dict()[name], p, 1e-5) end
  end)

  it("allocates nothing once it runs", function()
    local net = model(2)
    local step = tide.train_step(loss_of(net), tide.optim.SGD(net:parameters(), {lr = 1e-2}))
    for _ = 1, 3 do step(x, labels) end
    collectgarbage()
    local before = tide.memory()
    for _ = 1, 50 do step(x, labels) end
    local after = tide.memory()
    if not os.getenv "TIDE_SANITIZED" then assert.are.equal(before.system, after.system) end  -- else nothing is cached
    assert.is_true(after.calls - before.calls <= 150, after.calls - before.calls)  -- positions that gather checks
  end)

  it("returns further results, and calls before_step", function()
    local net, seen = model(3), 0
    local step = tide.train_step(function(input)
      local y = net(input)
      return y:square():mean(), y, y:max()
    end, tide.optim.SGD(net:parameters(), {lr = 0}), {before_step = function() seen = seen + 1 end})
    local loss, y, top = step(x)
    assert.are.equal("number", type(loss))
    assert.are.equal("number", type(top))
    assert.are.same({12, 3}, y.shape)
    assert.are.equal(1, seen)
  end)

  it("runs as it is when the loss cannot be captured", function()
    local net = model(4)
    local step = tide.train_step(function(input)
      local y = net(input):square():mean()
      return y * (y:item() > 0 and 1 or 2)
    end, tide.optim.SGD(net:parameters(), {lr = 1e-2}))
    assert.is_true(step(x) > step(x) * 0.2)
    assert.is_truthy(step:reason())
  end)

  it("refuses what is no loss", function()
    local net = model(5)
    local opt = tide.optim.SGD(net:parameters(), {lr = 1e-2})
    for _, f in ipairs {function(input) return net(input) end, function(input) return input:sum() end,
      function() return 1 end} do
      assert.has_error(function() tide.train_step(f, opt)(x) end)
      assert.has_error(function() tide.train_step(f, opt, {fallback = "error"})(x) end)
    end
    assert.has_error(function() tide.train_step(function() end, {}) end)
  end)
end)

describe("a solve", function()
  it("allocates nothing in a step", function()
    local net = tide.nn.Sequential(tide.nn.Linear(2, 8), tide.nn.Tanh(), tide.nn.Linear(8, 2))
    local start = tide.generator(3):randn(5, 2)
    local function calls(steps)
      collectgarbage()
      local before = tide.memory().calls
      tide.no_grad(tide.ode.solve, function(_, y) return net(y) end, start, {0, 1},
        {method = "rk4", step_size = 1 / steps})
      return tide.memory().calls - before
    end
    calls(100)
    assert.is_true(calls(1000) - calls(100) < 10)  -- the list of steps grows
  end)

  it("allocates nothing in a stiff step, Jacobians and all, without a gradient too", function()
    local function f(_, y)
      local a, b = y:narrow(-1, 1, 1), y:narrow(-1, 2, 1)
      return tide.cat({b, (1 - a * a) * b * 20 - a}, -1)
    end
    for _, method in ipairs {"rodas5p", "rosenbrock23", "kvaerno5", "radau5", "bdf"} do
      for _, start in ipairs {tide.tensor({2, 0}, "float64"), tide.tensor({2, 0}, "float64"):requires_grad()} do
        local function calls(tol)
          collectgarbage()
          local before = tide.memory().calls
          local sol = tide.ode.solve(f, start, {0, 5}, {method = method, rtol = tol, atol = tol})
          return tide.memory().calls - before, sol.stats.steps
        end
        calls(1e-8)
        local few, steps = calls(1e-3)
        local many, more = calls(1e-8)
        local history = method == "bdf" and start.needs_grad and more - steps or 0  -- kept for the reverse pass
        assert.is_true(more > steps + 10 and many - few - history < 25, ("%s: %d, %d"):format(method, few, many))
      end
    end
  end)

  local p = tide.tensor({1.1, 0.7}, "float64"):requires_grad()
  local y0 = tide.tensor({0.5, -0.3}, "float64")
  local function f(t, y) return (y * p):sin() * t:cos() end

  it("gives the same captured: values, counts and gradients", function()
    for _, grad in ipairs {"discrete", "backsolve"} do
      local grads = {}
      for i, capture in ipairs {true, false} do
        local times = tide.tensor({0, 1, 2}, "float64"):requires_grad()
        local start = y0:detach():requires_grad()
        local sol = tide.ode.solve(f, start, times, {capture = capture, grad = grad})
        local list = tide.gradients((sol.ys * sol.ys):sum(), {start, p, times})
        grads[i] = {sol.ys, list[1], list[2], list[3], sol.stats.nfe, sol.stats.nfe_b}
      end
      for k = 1, 4 do close(grads[2][k], grads[1][k], 1e-12) end
      for k = 5, 6 do assert.are.equal(grads[2][k], grads[1][k]) end
    end
  end)

  it("keeps no more of an evaluation than asked", function()
    local grads = {}
    for i, keep in ipairs {0, 1e9} do
      local sol = tide.ode.solve(f, y0, {0, 1, 2}, {capture = true, keep = keep})
      grads[i] = tide.gradients((sol.ys * sol.ys):sum(), p)[1]
    end
    close(grads[1], grads[2], 1e-12)
  end)

  it("has second derivatives captured", function()
    local function g(v)
      return tide.ode.solve(f, v, {0, 1}, {step_size = 0.5, method = "rk4", capture = true}).last:sum()
    end
    assert.is_true(tide.gradcheck(g, {y0}))
  end)

  it("runs as it is when f reads values or changes what it closes over, and says so", function()
    local calls = 0
    for _, g in ipairs {
      function(t, y) return y * (t:item() < 1 and 1 or 2) end,
      function(_, y) calls = calls + 1 return -y end,
    } do
      local sol = tide.ode.solve(g, y0, {0, 1})
      assert.is_false(sol.captured)
      assert.is_truthy(sol.not_captured)
      assert.has_error(function() tide.ode.solve(g, y0, {0, 1}, {capture = true}) end)
    end
  end)

  it("holds its masks", function()
    local net = tide.nn.Sequential(tide.nn.Linear(2, 8), tide.nn.Dropout(0.5), tide.nn.Linear(8, 2)):double()
    local results = {}
    for i, capture in ipairs {true, false} do
      tide.manual_seed(4)
      results[i] = tide.no_grad(tide.ode.solve, function(_, y) return net(y) end, y0:reshape(1, 2), {0, 1},
        {capture = capture}).last
    end
    close(results[2], results[1], 1e-12)
  end)

  it("may solve inside its right-hand side", function()
    local function inner(v)
      return tide.ode.solve(function(_, z) return -z * v end, y0, {0, 0.5}, {rtol = 1e-10}).last
    end
    local sol = tide.ode.solve(function(_, y) return inner(y) end, y0, {0, 1})
    assert.are.equal("ok", sol.status)
    assert.is_false(sol.captured)
  end)
end)

describe("a long program", function()
  -- Each padding clears its result; enough of them for the list of steps to grow several times.
  it("with many paddings gives what it gives eagerly", function()
    local w = tensor(6, 6) / 3
    local function f(x)
      for _ = 1, 40 do x = tide.pad(x:matmul(w):narrow(2, 2, 4), {{0, 0}, {1, 1}}) end
      return x
    end
    local x = tensor(3, 6)
    local captured = tide.capture(f)
    for _ = 1, 3 do close(f(x), captured(x)) end
  end)
end)

describe("a plan of images", function()
  local nn = tide.nn
  local function images(...) return tide.generator(5):randn {...} end

  -- The number of steps of f's program, after comparing its values with f's own.
  local function steps_of(f, ...)
    local g = tide.capture(f)
    close(f(...), g(...), 2e-6)
    local text, n = text_of(g)
    return n, text
  end

  it("does sums and activations inside the convolution and the normalisation before them", function()
    local conv, norm = nn.Conv2d(8, 8, 3, {padding = 1}), nn.GroupNorm(4, 8)
    local x, r, t = images(2, 5, 6, 8), images(2, 5, 6, 8), images(2, 1, 1, 8)
    tide.no_grad(function()
      assert.are.equal(1, (steps_of(function(v) return conv(v):relu() end, x)))
      assert.are.equal(1, (steps_of(function(v) return conv(v) + r end, x)))
      assert.are.equal(1, (steps_of(function(v) return (conv(v) + t + r):silu() end, x)))
      assert.are.equal(1, (steps_of(function(v) return norm(v):silu() end, x)))
      assert.are.equal(1, (steps_of(function(v) return norm(v):relu() + r end, x)))
      assert.are.equal(1, (steps_of(function(v) return norm(v) + r end, x)))
      assert.are.equal(3, (steps_of(function(v) return conv(norm(v):silu()) + conv(v) end, x)))
      assert.are.equal(2, (steps_of(function(v)  -- both are wanted
        local y = conv(v)
        return tide.cat({y, y:relu()}, 1)
      end, x)) - 1)
    end)
  end)

  it("does them inside a layer norm and a batch norm", function()
    local layer, batch = nn.LayerNorm(8), nn.BatchNorm2d(8)
    local x = images(3, 4, 4, 8)
    tide.no_grad(function()
      assert.are.equal(1, (steps_of(function(v) return layer(v):gelu() end, x)))
      local _, text = steps_of(function(v) return batch(v):relu() end, x)
      assert.is_truthy(text:find("channel_norm_act"))
    end)
  end)

  it("derives through an activation inside the normalisation's derivative", function()
    for _, act in ipairs {"relu", "silu", "gelu"} do
      local conv, norm = nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8)
      local opt = tide.optim.SGD(norm:parameters(), {lr = 0})
      local x = images(3, 6, 6, 4)
      local function loss(v)
        local y = norm(conv(v))
        return y[act](y):square():mean()
      end
      local step = tide.train_step(loss, opt)
      local expected = tide.gradients(loss(x), norm:parameters())
      step(x)
      for i, p in ipairs(norm:parameters()) do close(expected[i], p.grad, 1e-5) end
      local text = {}
      for i, line in ipairs(step:programs()[1].forward:lines()) do text[i] = line.text end
      assert.is_truthy(table.concat(text, "\n"):find("group_norm_act_grad", 1, true), act)
    end
  end)

  it("goes through a batch tile by tile, with the same numbers for any number of threads", function()
    local conv, norm, other = nn.Conv2d(32, 32, 3, {padding = 1}), nn.GroupNorm(4, 32), nn.Conv2d(32, 32, 1)
    local scale = images(1, 1, 1, 32)
    local x = images(24, 32, 32, 32)
    local function f(v)
      local y = norm(conv(v)):relu() * scale
      return (other(y) + v):sin() * y, y:mean {dims = {2, 3}}
    end
    tide.no_grad(function()
      local g, threads = tide.capture(f), tide.threads()
      local expected, mean = f(x)
      for _, n in ipairs {1, 2, 3, 1} do
        tide.threads(n)
        local got, m = g(x)
        close(expected, got, 2e-6)
        close(mean, m, 2e-6)
      end
      tide.threads(threads)
      assert.is_truthy(text_of(g):find("tiles"))
      assert.is_true(g:programs()[1].forward:memory() < 24 * 32 * 32 * 32 * 4 * 2)
      local profile, sum = g:profile(x), 0
      for _, line in ipairs(profile) do
        assert.is_true(line.seconds > 0, line.text)
        sum = sum + line.seconds
      end
      assert.is_true(math.abs(sum - profile.seconds) < 1e-9)
    end)
  end)

  it("does not take a weight for a batch of the same size", function()
    local w, b = images(16, 16), images(16)
    local x = images(16, 64, 64, 16)
    local g = tide.capture(function(v) return ((v:matmul(w) + b):tanh() * b):matmul(w:transpose(1, 2)) end)
    close(((x:matmul(w) + b):tanh() * b):matmul(w:transpose(1, 2)), tide.no_grad(g, x), 1e-5)
  end)
end)

describe("a program's convolutions, whose weights are prepared once", function()
  local nn = tide.nn
  local function images(...) return tide.generator(5):randn {...} end
  local function same(a, b) assert.is_true(a:contiguous():tobytes() == b:contiguous():tobytes()) end

  -- Winograd's way, a stride, kernels of 1×1 on small images, groups
  local function network()
    return nn.Sequential(nn.Conv2d(16, 32, 3, {padding = 1}), nn.ReLU(), nn.Conv2d(32, 32, 3, {padding = 1}),
      nn.Conv2d(32, 40, 3, {padding = 1, stride = 2}), nn.Conv2d(40, 64, 1), nn.Conv2d(64, 16, 3, {groups = 4}))
  end

  it("give a sample the same bits in any batch, at every call", function()
    local net, x = network(), images(5, 8, 8, 16)
    tide.no_grad(function()
      local f = tide.capture(function(v) return net(v) end)
      local first = f(x)
      for _ = 1, 3 do
        same(first, f(x))
        for i = 1, 5 do same(first:narrow(1, i, 1), f(x:narrow(1, i, 1))) end
      end
    end)
  end)

  it("see an optimiser's steps, another state and another precision", function()
    local net, x, state = network(), images(2, 8, 8, 16), {}
    local opt = tide.optim.SGD(net:parameters(), {lr = 0.1})
    for name, p in pairs(net:state_dict()) do state[name] = p:detach():clone() end
    local f = tide.capture(function(v) return net(v) end)
    local changes = {
      function()
        net(x):square():mean():backward()
        opt:step():zero_grad()
      end,
      function() net:load_state_dict(state) end,
      function() tide.precision "strict" end,
      function() tide.precision "bfloat16" end,
      function() tide.precision "fast" end,
    }
    for i, change in ipairs(changes) do
      local before
      tide.no_grad(function() for _ = 1, 3 do before = f(x) end end)
      change()
      local fresh = network()  -- weights that nobody has asked for
      fresh:load_state_dict(net:state_dict())
      tide.no_grad(function()
        for _ = 1, 3 do close(fresh(x), f(x), 2e-6) end
        assert.is_false(before:tobytes() == f(x):tobytes(), i)
      end)
    end
  end)

  it("see them in gradients too", function()
    local net, x = network(), images(2, 8, 8, 16):requires_grad()
    local f = tide.capture(function(v) return net(v):square():sum() end)
    for _ = 1, 3 do
      local fresh = network()
      fresh:load_state_dict(net:state_dict())
      local expected = tide.gradients(fresh(x):square():sum(), {x})[1]
      for _ = 1, 3 do close(expected, tide.gradients(f(x), {x})[1], 1e-5) end
      for _, p in ipairs(net:parameters()) do p:detach():mul_(0.9) end
    end
  end)
end)

describe("a diffusion model that is a module", function()
  local diffusion = tide.diffusion
  tide.manual_seed(6)
  local net = diffusion.UNet2DModel {sample_size = 8, in_channels = 1, out_channels = 1, layers_per_block = 1,
    block_out_channels = {8, 16}, norm_num_groups = 4, down_block_types = {"DownBlock2D", "AttnDownBlock2D"},
    up_block_types = {"AttnUpBlock2D", "UpBlock2D"}}
  local noise = tide.randn(2, 8, 8, 1)

  local function run(model, opts)
    local x = noise:detach():requires_grad()
    local out = diffusion.sample(model, x, opts)
    return out.x0, tide.gradients(out.x0:square():sum(), {x, net:parameters()[1]})
  end

  it("is captured by the sampler, with the same samples and gradients as a function that is not", function()
    for _, grad in ipairs {"discrete", "full"} do
      local opts = {schedule = "linear", sampler = "ddim", steps = 4, grad = grad}
      local a, da = run(net, opts)
      local b, db = run(function(...) return net(...) end, opts)
      close(b, a, 1e-4)
      for i = 1, 2 do close(db[i], da[i], 1e-3) end
    end
  end)

  it("computes no gradients of weights when those of the inputs alone are wanted", function()
    local g = tide.capture(net)
    local x = noise:detach():requires_grad()
    local y = g(x, tide.tensor {3, 4})
    local got = tide.gradients(y:sum(), x)[1]
    close(tide.gradients(net(x, tide.tensor {3, 4}):sum(), x)[1], got, 1e-4)
    local entry = g:programs()[1]
    assert.is_true(#entry.backward_inputs:lines() < #entry.backward:lines())
  end)

  it("runs as it is while its dropout holds masks", function()
    local net2 = tide.nn.Module {drop = tide.nn.Dropout(0.5), forward = function(self, v) return self.drop(v) end}
    local out = diffusion.sample(net2, noise, {schedule = "linear", sampler = "ddim", steps = 3})
    assert.is_true(out.x0:isfinite():all():item() == 1)
    assert.is_false(core.capturing())
  end)
end)

describe("nn.GroupNorm", function()
  it("does an activation and a sum in its own pass", function()
    local x, a = tensor(2, 3, 3, 8):float(), tensor(2, 3, 3, 8):float() * 2
    for _, affine in ipairs {true, false} do
      local norm = tide.nn.GroupNorm(4, 8, {affine = affine})
      close(norm(x):silu() + a, norm(x, "silu", a), 1e-6)
      close(norm(x):relu(), norm(x, "relu"), 1e-6)
      close(norm(x) + a, norm(x, nil, a), 1e-6)
    end
    assert.has_error(function() tide.nn.GroupNorm(4, 8)(x, "rel") end)
  end)
end)

describe("a tiny program", function()
  local p = tide.tensor({1.5, 1, 3, 1}, "float64"):requires_grad()
  local function field(y)
    return tide.stack({p[1] * y[1] - p[2] * y[1] * y[2], (p[4] * y[1] * y[2] - p[3] * y[2]):tanh() + y:sum() ^ 3})
  end

  it("runs number by number, forward and backward, with the same results", function()
    local y = tensor(2):requires_grad()
    local g = tide.capture(field)
    close(field(y), g(y), 1e-14)
    local expected, got = tide.gradients(field(y):sum(), {y, p}), tide.gradients(g(y):sum(), {y, p})
    for i = 1, 2 do close(expected[i], got[i], 1e-13) end
    assert.is_true(g:programs()[1].forward:numbers() > 5)
    p:detach():mul_(2)
    close(field(y), g(y), 1e-14)
  end)

  it("carries NaN and infinities", function()
    local g = tide.capture(function(v) return tide.stack({v[1]:relu() * 2, v[2] / v[3], v[1]:maximum(0)}) end)
    local v = tide.tensor({0 / 0, 1, 0}, "float64")
    close(tide.stack({v[1]:relu() * 2, v[2] / v[3], v[1]:maximum(0)}), g(v))
  end)

  it("moves, joins, sums and multiplies matrices as the kernels do", function()
    local m, v = tensor(3, 3), tensor(3, 3)
    local function f(x)
      local y = x:matmul(m):transpose(1, 2)
      return tide.cat({y[{{1, 2}}] - x[{{2, 3}}], y:sum(1):reshape(1, 3)}, 1):where(x:gt(0), x * 2), y:sum(2)
    end
    local g = tide.capture(f)
    local a, c = f(v)
    local b, d = g(v)
    close(a, b, 1e-14)
    close(c, d, 1e-14)
  end)

  it("is left to the kernels when it is float32, larger, or made of slow functions", function()
    local function twice(x) return x * 2 end
    for _, case in ipairs {{tensor(2):float(), twice}, {tensor(65), twice},
      {tensor(30), function(x) return x:exp() end}} do
      local g = tide.capture(case[2])
      close(case[2](case[1]), g(case[1]), 1e-6)
      assert.are.equal(0, g:programs()[1].forward:numbers())
    end
  end)
end)
