-- Recording and the reverse pass: what gets a gradient, when the graph goes, what is refused.

local helper = require "spec.helper"
local tide = require "tide"

local function leaf(values) return tide.tensor(values, "float64"):requires_grad() end

describe("backward", function()
  it("adds gradients to the leaves", function()
    local x, w = leaf {1, 2}, leaf {3, 4}
    local loss = (x * x * w):sum()
    loss:backward()
    assert.close(x.grad, {6, 16}, 0)
    assert.close(w.grad, {1, 4}, 0)
    ;(x * 2):sum():backward()
    assert.close(x.grad, {8, 18}, 0)
    assert.is_nil(loss.grad)
  end)

  it("follows a tensor used several times, and every result of an operation", function()
    local x = leaf {3, 1, 2}
    local y = x * x + x:sum() * x
    local sorted = x:sort()
    local top, at = x:max()
    assert.is_false(at.needs_grad)
    ;(y:sum() + (sorted * tide.tensor({1, 10, 100}, "float64")):sum() + top * 1000):backward()
    assert.close(x.grad, {6 + 12 + 100 + 1000, 2 + 12 + 1, 4 + 12 + 10}, 0)
  end)

  it("takes a cotangent for a tensor of several elements", function()
    local x = leaf {1, 2, 3}
    local y = x * x
    assert.fails_here(function() y:backward() end, "backward", "(3)", "one element")
    assert.fails_here(function() y:backward(tide.ones(2)) end, "backward", "(2)", "(3)")
    y:backward(tide.tensor({1, 0, 10}))
    assert.close(x.grad, {2, 0, 60}, 0)
    assert.are.equal("float64", x.grad.dtype)
  end)

  it("gives each leaf a gradient of its own shape and type", function()
    local x, w = tide.ones(2, 3):requires_grad(), leaf {1, 2, 3}
    local b = tide.ones({}):requires_grad()
    ;((x + w) * b):sum():backward()
    assert.are.same({"float32", "float64", "float32"}, {x.grad.dtype, w.grad.dtype, b.grad.dtype})
    assert.close(x.grad, tide.ones(2, 3), 0)
    assert.close(w.grad, {2, 2, 2}, 0)
    assert.are.equal(0, b.grad.ndim)
    assert.are.equal(18, b.grad:item())
  end)

  it("leaves alone a gradient that somebody holds", function()
    local x = leaf {1, 2}
    x:sum():backward()
    local held = x.grad
    x:sum():backward()
    assert.close(held, {1, 1}, 0)
    assert.close(x.grad, {2, 2}, 0)
    local cotangent = tide.ones(2, "float64")
    x.grad = nil
    local y = x + 0
    y:backward(cotangent)
    y = x + 0
    y:backward(cotangent)
    assert.close(cotangent, {1, 1}, 0)
    assert.close(x.grad, {2, 2}, 0)
  end)

  it("needs something that requires a gradient", function()
    assert.fails_here(function() tide.ones(1):sum():backward() end, "backward", "no gradient flows")
    assert.fails_here(function() tide.no_grad(function() return leaf {1} * 2 end):sum():backward() end,
      "no_grad")
    assert.fails_here(function() tide.ones(2, "int64"):requires_grad() end, "requires_grad", "int64",
      "float32")
    local y = leaf {1} * 2
    assert.fails_here(function() y:requires_grad(false) end, "requires_grad", "mul", "detach")
    assert.fails_here(function() y:backward({retain = true}) end, "backward", "retain", "retain_graph")
  end)

  it("frees the graph, and a second one says so", function()
    local x = leaf {2}
    local y = x:exp():sum()
    y:backward()
    assert.fails_here(function() y:backward() end, "backward", "freed by an earlier backward", "retain_graph")
    y = x:exp():sum()
    y:backward({retain_graph = true})
    y:backward({retain_graph = true})
    y:backward()
    assert.close(x.grad, {4 * math.exp(2)}, 1e-14)
    assert.fails_here(function() y:backward() end, "freed")
  end)

  it("through part of a freed graph says so", function()
    local x = leaf {2}
    local shared = x:exp()
    shared:sum():backward()
    local other = (shared * 3):sum()
    assert.fails_here(function() other:backward() end, "freed")
  end)

  it("notices an operand that was written over", function()
    local x, w = leaf {1, 2}, tide.tensor({3, 4}, "float64")
    local y = (x * w):sum()
    w:add_(1)
    assert.fails_here(function() y:backward() end, "backward", "operand 2 of mul", "in place")
    local view = tide.ones(2, 2, "float64")
    y = (x * view[1]):sum()
    view:fill_(5)
    assert.fails_here(function() y:backward() end, "in place")
    y = (x + w):sum()  -- add does not need its operands' values
    w:add_(1)
    y:backward()
    local z = x:exp()
    local loss = z:sum()
    tide.no_grad(function() x:mul_(2) end)  -- exp keeps its result, not its operand
    loss:backward()
    assert.is_truthy(x.grad)
  end)

  it("notices a result that was written over", function()
    local x = leaf {1, 2}
    local y = x:exp()
    local alias = y:detach()
    alias:fill_(0)
    assert.fails_here(function() y:sum():backward() end, "backward", "result", "exp", "in place")
  end)

  it("refuses writing in place to what takes part in a gradient", function()
    local x = leaf {1, 2}
    local y = x * 2
    for _, f in ipairs {function() x:add_(1) end, function() y:mul_(2) end, function() y:fill_(0) end,
      function() y:copy_(x) end, function() tide.ones(2):add_(x) end, function() tide.ones(2):copy_(x) end} do
      assert.fails_here(f, "gradient")
    end
    assert.close(y:detach(), {2, 4}, 0)
  end)

  it("goes through a chain of 100,000 operations, and lets go of it", function()
    local before = helper.live()
    local x = leaf {1}
    local y = x
    for _ = 1, 100000 do y = y + 1e-5 end
    y:backward()
    assert.close(x.grad, {1}, 0)
    y = x
    for _ = 1, 100000 do y = y * 1 end
    y = nil  -- luacheck: ignore
    x = nil  -- luacheck: ignore
    assert.are.equal(before, helper.live())
  end)

  it("leaves nothing behind", function()
    local before = helper.live()
    local function work()
      local x, w = leaf {1, 2}, leaf {{1, 2}, {3, 4}}
      for _ = 1, 10 do x:reshape(1, 2):matmul(w):tanh():sum():backward() end
      pcall(function() (x * w):matmul(x) end)
      local y = (x * x):sum()
      y:backward({create_graph = true})
      x.grad = nil  -- it holds the graph, and the graph holds x
    end
    work()
    assert.are.equal(before, helper.live())
  end)
end)

describe("the gradient of moving operations", function()
  it("of expand sums, of narrow and select goes back to its place", function()
    local x = leaf {{1, 2}, {3, 4}}
    local y = x:unsqueeze(1):expand(3, 2, 2):sum() + x:narrow(2, 2, 1):sum() * 10 + x:select(1,
      -1):sum() * 100
    y:backward()
    assert.close(x.grad, {{3, 13}, {103, 113}}, 0)
  end)

  it("of cat, stack, split, gather, permute and where reaches each operand", function()
    local a, b = leaf {1, 2}, leaf {3}
    local weights = tide.tensor({1, 10, 100}, "float64")
    ;(tide.cat({a, b}) * weights):sum():backward()
    assert.close(a.grad, {1, 10}, 0)
    assert.close(b.grad, {100}, 0)
    a.grad, b.grad = nil, nil
    local parts = a:split({1, 1})
    ;(tide.stack({parts[2], b, parts[2]}):reshape(3) * weights):sum():backward()
    assert.close(a.grad, {0, 101}, 0)
    assert.close(b.grad, {10}, 0)
    a.grad = nil
    local mask = tide.tensor({1, 0}, "uint8")
    ;(tide.where(mask, a, 0) + a:masked_fill(mask, 5) * 3):sum():backward()
    assert.close(a.grad, {1, 3}, 0)
  end)
end)

describe("recording", function()
  it("is off inside no_grad, on inside enable_grad, and as before afterwards", function()
    local x = leaf {1}
    local a, b, inner = tide.no_grad(function(y)
      local in_grad = tide.enable_grad(function() return y * 2 end)
      return y * 2, tide.is_grad_enabled(), in_grad
    end, x)
    assert.are.same({false, false, true, true}, {a.needs_grad, b, inner.needs_grad, tide.is_grad_enabled()})
  end)

  it("is as before when the function raises, and the error is untouched", function()
    local thrown = {}
    local ok, e = pcall(tide.no_grad, function() error(thrown) end)
    assert.is_true(not ok and e == thrown and tide.is_grad_enabled())
    assert.fails_here(function() tide.no_grad(function() error("mine") end) end, "mine")
    assert.fails_here(function() tide.no_grad(3) end, "no_grad", "function")
  end)

  it("ends at detach", function()
    local x = leaf {2}
    local y = x * x:detach()
    y:backward()
    assert.close(x.grad, {2}, 0)
    assert.is_false(x:detach().needs_grad)
    assert.is_true(x:detach():shares_storage(x))
  end)
end)

describe("gradients", function()
  it("of outputs for inputs come as a table, false where unused", function()
    local a, b, c = leaf {1, 2}, leaf {3, 4}, leaf {5}
    local g = tide.gradients((a * b):sum(), {a, b, c})
    assert.close(g[1], {3, 4}, 0)
    assert.close(g[2], {1, 2}, 0)
    assert.is_false(g[3])
    assert.is_nil(a.grad)
    g = tide.gradients((a * b):sum(), {c, a}, {unused = "zeros"})
    assert.close(g[1], {0}, 0)
    assert.close(g[2], {3, 4}, 0)
    assert.fails_here(function() tide.gradients(a:sum(), {a}, {unused = "none"}) end, "gradients", "none",
      "zeros")
    assert.fails_here(function() tide.gradients(a:sum(), {3}) end, "expected tensors", "3")
    assert.fails_here(function() tide.gradients(a:sum(), {a}, {create = true}) end, "create", "create_graph")
  end)

  it("reach tensors inside the graph", function()
    local x = leaf {1, 2}
    local h = x * 3
    local y = (h * h):sum()
    local g = tide.gradients(y, {h, x})
    assert.close(g[1], {6, 12}, 0)
    assert.close(g[2], {18, 36}, 0)
  end)

  it("of an output older than the inputs are unused", function()
    local x = leaf {1}
    local y = x * 2
    local later = leaf {1}
    assert.is_false(tide.gradients(y, {later})[1])
    assert.is_false(tide.gradients({y, later * 2}, {later}, {cotangents = {tide.ones(1),
      tide.ones(1)}})[1] == false)
  end)

  it("of several outputs are summed with their cotangents", function()
    local x = leaf {1, 2}
    local g = tide.gradients({x * 2, (x * x):sum()}, x, {cotangents = {tide.tensor({1, 10}),
      tide.tensor(100)}})
    assert.close(g[1], {202, 420}, 0)
    assert.fails_here(function() tide.gradients({x * 2, x * 3}, x, {cotangents = {tide.ones(2)}}) end,
      "1 cotangents for 2 outputs")
  end)

  it("with create_graph can be differentiated again", function()
    local x = leaf {2}
    local y = (x ^ 4):sum()
    local g = tide.gradients(y, x, {create_graph = true})[1]
    local h = tide.gradients(g, x, {create_graph = true})[1]
    local t = tide.gradients(h, x)[1]
    assert.close(g, {32}, 1e-14)
    assert.close(h, {48}, 1e-14)
    assert.close(t, {48}, 1e-14)
  end)

  it("hold no more memory than they need on the way", function()
    local n = 100000
    local function peak(f)
      collectgarbage()
      local x = tide.ones(n):requires_grad()
      local y = x
      for _ = 1, 20 do y = y + x end
      y = y:sum()
      collectgarbage()
      tide.memory("reset")
      local live = tide.memory().live
      f(y, x)
      return tide.memory().peak - live
    end
    assert.is_true(peak(function(y, x) return tide.gradients(y, x) end) < 6 * 4 * n)
    assert.is_true(peak(function(y) y:backward() end) < 6 * 4 * n)
  end)
end)

describe("a hook", function()
  it("sees the gradient, and may replace it", function()
    local x = leaf {1, 2}
    local h = x * 3
    local seen
    h:register_hook(function(g) seen = g end)
    assert.are.equal(x, x:register_hook(function(g) return g * 10 end))
    ;(h * h):sum():backward()
    assert.close(seen, {6, 12}, 0)
    assert.close(x.grad, {180, 360}, 0)
  end)

  it("that raises ends the pass with its own error", function()
    local x = leaf {1}
    x:register_hook(function() error("hook's own") end)
    assert.fails_here(function() (x * 2):backward() end, "hook's own")
    assert.is_true(tide.is_grad_enabled())
    local y = leaf {1}
    y:register_hook(function() return tide.ones(7) end)
    assert.fails_here(function() (y * 2):backward() end, "hook", "(7)", "(1)")
    assert.fails_here(function() y:register_hook("f") end, "register_hook", "\"f\"", "function")
    assert.fails_here(function() tide.ones(1):register_hook(print) end, "register_hook", "no gradient")
  end)
end)

describe("checkpoint", function()
  local function network(w)
    return function(x)
      for _ = 1, 3 do x = x:matmul(w):tanh() end
      return x
    end
  end

  it("is refused when what it uses was written in place before backward", function()
    local w, x = tide.tensor({2, 3}):requires_grad(), tide.tensor({1, 1}):requires_grad()
    for _, t in ipairs {w, x} do
      local y = tide.checkpoint(function(u) return u * w end, x):sum()
      tide.no_grad(function() t:mul_(2) end)
      assert.fails_here(function() y:backward() end, "that the function uses was written in place before backward")
    end
  end)

  it("gives the same values and gradients, also of what the function closes over", function()
    local function run(wrap)
      local g = tide.generator(3)
      local x, w = g:randn(4, 5, "float64"):requires_grad(), g:randn(5, 5, "float64"):requires_grad()
      local y = wrap(network(w), x)
      y:square():sum():backward()
      return y:detach(), x.grad, w.grad
    end
    local y, gx, gw = run(function(f, x) return f(x) end)
    local cy, cgx, cgw = run(tide.checkpoint)
    assert.close(cy, y, 0)
    assert.close(cgx, gx, 1e-14)
    assert.close(cgw, gw, 1e-14)
  end)

  it("can be differentiated twice", function()
    local w = leaf {0.3}
    assert.is_true(tide.gradcheck(function(x)
      return tide.checkpoint(function(u) return (u * w:detach()):sin() * u end, x)
    end, {leaf {0.5, -1}:detach()}))
  end)

  it("takes and gives several tensors, numbers and nothing", function()
    local a, b = leaf {2}, leaf {3}
    local s, p = tide.checkpoint(function(x, k, y) return x * k + y, x * y end, a, 10, b)
    ;(s + p * 100):backward()
    assert.close(a.grad, {310}, 0)
    assert.close(b.grad, {201}, 0)
    local n = 0
    local y = tide.checkpoint(function(x) n = n + 1 return x * 2 end, tide.ones(2))
    assert.is_true(not y.needs_grad and n == 1)
  end)

  it("keeps less", function()
    local function live_with(wrap)
      local x = tide.ones(200, 100):requires_grad()
      local w = tide.eye(100):requires_grad()
      local y = x
      for _ = 1, 5 do y = wrap(network(w), y) end
      return helper.live(), y
    end
    local plain = live_with(function(f, x) return f(x) end)
    local less = live_with(tide.checkpoint)
    assert.is_true(plain - less > 5 * 2 * 4 * 200 * 100, plain - less)
  end)

  it("passes on an error of the second run", function()
    local n = 0
    local x = leaf {1}
    local y = tide.checkpoint(function(u)
      n = n + 1
      if n == 2 then error("second run") end
      return u * 2
    end, x)
    assert.fails_here(function() y:backward() end, "second run")
    assert.is_true(tide.is_grad_enabled())
  end)
end)
