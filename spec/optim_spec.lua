local tide = require "tide"
local core = require "tide.core"
local nn, optim = tide.nn, tide.optim
require "spec.helper"

local function same(expected, got, tolerance) assert.close(got, expected, tolerance) end

local function parameter(x, dtype) return tide.tensor(x, dtype or "float64"):requires_grad() end

-- Sets gradients without a graph.
local function give(p, g) p.grad = tide.tensor(g, p.dtype) end

before_each(function() tide.manual_seed(5) end)

-- ---- References in plain Lua: each makes a function (x, g) → x over one number, with its own state ----

local function reference_sgd(o)
  local v
  return function(x, g)
    g = g + (o.weight_decay or 0) * x
    local m = o.momentum or 0
    if m ~= 0 then
      v = v and m * v + (1 - (o.dampening or 0)) * g or g
      g = o.nesterov and g + m * v or v
    end
    return x - o.lr * g
  end
end

local function reference_adam(o)
  local m, v, t = 0, 0, 0
  local b1, b2, decay = o.betas and o.betas[1] or 0.9, o.betas and o.betas[2] or 0.999, o.weight_decay or 0
  return function(x, g)
    t = t + 1
    if o.decoupled then x = x - o.lr * decay * x else g = g + decay * x end
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    return x - o.lr * (m / (1 - b1 ^ t)) / (math.sqrt(v / (1 - b2 ^ t)) + (o.eps or 1e-8))
  end
end

-- Ten steps of an optimiser against its reference, on random gradients.
local function compare(make, reference, o, dtype)
  local n = 37
  local p = parameter(tide.randn(n):totable(), dtype)
  local x, steps = p:totable(), {}
  for i = 1, n do steps[i] = reference(o) end
  local options = {}
  for key, value in pairs(o) do
    if key ~= "decoupled" then options[key] = value end
  end
  local opt = make({p}, options)
  for _ = 1, 10 do
    local g = tide.randn({n}, dtype or "float64")
    p.grad = g
    opt:step()
    local list = g:totable()
    for i = 1, n do x[i] = steps[i](x[i], list[i]) end
  end
  same(x, p)
end

describe("SGD", function()
  it("takes the step x − lr·g", function()
    local p = parameter {1, 2}
    give(p, {10, -1})
    local opt = optim.SGD({p}, {lr = 0.1})
    assert.is_true(rawequal(opt, opt:step()))
    same({0, 2.1}, p)
  end)

  it("agrees with its reference for every option", function()
    compare(optim.SGD, reference_sgd, {lr = 0.1})
    compare(optim.SGD, reference_sgd, {lr = 0.1, weight_decay = 0.3})
    compare(optim.SGD, reference_sgd, {lr = 0.1, momentum = 0.9})
    compare(optim.SGD, reference_sgd, {lr = 0.1, momentum = 0.9, dampening = 0.4, weight_decay = 0.1})
    compare(optim.SGD, reference_sgd, {lr = 0.1, momentum = 0.9, nesterov = true})
    compare(optim.SGD, reference_sgd, {lr = 0.1, momentum = 0.9}, "float32")
  end)

  it("follows the closed form on a quadratic", function()
    local p = parameter {3}
    local opt = optim.SGD({p}, {lr = 0.1})
    for _ = 1, 20 do
      opt:zero_grad()
      tide.sum(p * p * 2.5):backward()
      opt:step()
    end
    same({3 * 0.5 ^ 20}, p)
  end)

  it("refuses nesterov without momentum, and bad rates", function()
    local p = parameter {1}
    assert.fails_here(function() optim.SGD({p}, {nesterov = true}) end,
      "SGD: nesterov needs a momentum above 0")
    assert.fails_here(function() optim.SGD({p}, {lr = -1}) end, "SGD: lr is -1, expected a number from 0")
    assert.fails_here(function() optim.SGD({p}, {lr = "fast"}) end, "SGD: lr is fast")
    assert.fails_here(function() optim.SGD({p}, {momemtum = 1}) end, 'did you mean "momentum"?')
  end)
end)

describe("Adam and AdamW", function()
  it("agree with their references for every option", function()
    compare(optim.Adam, reference_adam, {lr = 1e-2})
    compare(optim.Adam, reference_adam, {lr = 1e-2, betas = {0.5, 0.9}, eps = 1e-3, weight_decay = 0.2})
    compare(optim.AdamW, reference_adam, {lr = 1e-2, weight_decay = 0.3, decoupled = true})
    compare(optim.AdamW, reference_adam, {lr = 1e-2, weight_decay = 0.01, decoupled = true}, "float32")
  end)

  it("differ in their default decay", function()
    local a, b = parameter {1}, parameter {1}
    give(a, {0})
    give(b, {0})
    optim.Adam({a}, {lr = 0.1}):step()
    optim.AdamW({b}, {lr = 0.1}):step()
    same({1}, a)
    same({1 - 0.1 * 0.01}, b)
  end)

  it("move by the rate in the first step, whatever the gradient's size", function()
    local p = parameter {0, 0, 0}
    give(p, {1e-3, -7, 1e5})
    optim.Adam({p}, {lr = 0.5}):step()
    same({-0.5, 0.5, -0.5}, p, 1e-4)
  end)

  it("count steps for each parameter that has a gradient", function()
    local p, q = parameter {1}, parameter {1}
    local opt = optim.Adam({p, q}, {lr = 0.1})
    give(p, {1})
    opt:step()
    same({1}, q)
    assert.is_nil(opt.state[q].m)
    give(q, {1})
    opt:step()
    same({0.9}, q, 1e-7)
    assert.equal(2, opt.state[p].step)
    assert.equal(1, opt.state[q].step)
  end)

  it("take gradients that are views", function()
    local p, q = parameter {{1, 2}, {3, 4}}, parameter {{1, 2}, {3, 4}}
    p.grad = tide.tensor({{1, 2}, {3, 4}}, "float64"):t()
    give(q, {{1, 3}, {2, 4}})
    optim.SGD({p}, {lr = 1}):step()
    optim.SGD({q}, {lr = 1}):step()
    same(q, p)
  end)

  it("refuse bad betas", function()
    assert.fails_here(function() optim.Adam({parameter {1}}, {betas = {0.9, 1}}) end, "Adam: beta 2 is 1")
    assert.fails_here(function() optim.Adam({parameter {1}}, {betas = 0.9}) end,
      "Adam: betas are 0.9, expected two numbers")
  end)

  it("spoil a graph that was recorded before the step, and say so", function()
    local p = parameter {2}
    local y = (p * p):sum()
    give(p, {1})
    optim.Adam({p}):step()
    assert.fails_here(function() y:backward() end, "was written in place")
  end)
end)

describe("an optimiser", function()
  it("takes groups with options of their own, the rest from the second argument", function()
    local a, b = parameter {1}, parameter {1}
    local opt = optim.SGD({{params = {a}}, {params = {b}, lr = 0.5}}, {lr = 0.1})
    give(a, {1})
    give(b, {1})
    opt:step()
    same({0.9}, a)
    same({0.5}, b)
    opt.groups[1].lr = 1
    opt:step()
    same({-0.1}, a)
    opt:set_lr(0)
    opt:step()
    same({-0.1}, a)
    same({0}, b)
  end)

  it("drops gradients, and passes over parameters without one", function()
    local p = parameter {1}
    local opt = optim.SGD({p}, {lr = 1, momentum = 0.9})
    give(p, {1})
    opt:zero_grad()
    assert.is_nil(p.grad)
    opt:step()
    same({1}, p)
    give(p, {1})
    opt:step()
    same({0}, p)
  end)

  it("passes over a frozen parameter", function()
    local m = nn.Linear(1, 1)
    local opt = optim.SGD(m:parameters(), {lr = 1})
    m:freeze()
    opt:zero_grad():step()
    assert.equal(0, #m:parameters())
  end)

  it("calls the closure and keeps its loss", function()
    local p = parameter {3}
    local opt = optim.SGD({p}, {lr = 0.5})
    opt:step(function()
      local loss = (p * p):sum()
      loss:backward()
      return loss
    end)
    same(9, opt.loss)
    same({0}, p)
  end)

  it("refuses what is no parameter", function()
    assert.fails_here(function() optim.Adam(nn.Linear(1, 1)) end,
      "Adam: no parameters; for a module pass module:parameters()")
    assert.fails_here(function() optim.Adam({}) end, "Adam: no parameters")
    assert.fails_here(function() optim.Adam(3) end, "Adam: the parameters are a number")
    assert.fails_here(function() optim.Adam({tide.ones(2, 3)}) end,
      "shape (2×3) is no parameter: call requires_grad()")
    assert.fails_here(function() optim.Adam({parameter {1} * 2}) end,
      "is no parameter: it was made by an operation")
    local p = parameter {1}
    assert.fails_here(function() optim.Adam({p, p}) end, "a parameter of shape (1) is given twice")
    assert.fails_here(function() optim.Adam({{params = {p}, rl = 1}}) end,
      'unknown option "rl", did you mean "lr"?')
    assert.fails_here(function() optim.Adam({{params = {p}}, {lr = 1}}) end, "Adam: group 2 is a table")
  end)

  it("tells what it is", function()
    assert.equal("SGD: 2 tensors of 5 elements, dampening 0, lr 0.5, momentum 0, weight_decay 0",
      tostring(optim.SGD({parameter {1, 2}, parameter {1, 2, 3}}, {lr = 0.5})))
  end)

  for _, name in ipairs {"SGD", "Adam", "LBFGS"} do
    it("goes on from its state dict as if nothing had happened: " .. name, function()
      local o = name == "SGD" and {momentum = 0.9} or name == "LBFGS" and {iterations = 3} or {}
      local target = tide.randn({6}, "float64")
      local scale = tide.linspace(1, 20, 6, "float64")
      local function run(opt, p, steps)
        for _ = 1, steps do
          opt:zero_grad()
          opt:step(function()
            local loss = ((p - target):square():square() * scale):sum()
            loss:backward()
            return loss
          end)
        end
      end
      local p = parameter {1, 1, 1, 1, 1, 1}
      local first = optim[name]({p}, o)
      first.groups[1].lr = 0.07
      run(first, p, 3)
      local q = p:detach():clone():requires_grad()
      local second = optim[name]({q}, o)
      second:load_state_dict(first:state_dict())
      assert.is_true(math.abs(second.groups[1].lr - 0.07) < 1e-15)
      run(first, p, 3)
      run(second, q, 3)
      same(p, q, 0)
    end)
  end

  it("goes through a file with its network", function()
    local function make()
      local net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm2d(3), nn.Linear(3, 1))
      return net, optim.AdamW(net:parameters(), {lr = 0.1})
    end
    local function train(net, opt, x)
      net(x):square():sum():backward()
      opt:step():zero_grad()
    end
    local x, name = tide.randn(5, 2), os.tmpname()
    local net, opt = make()
    train(net, opt, x)
    local again, opt_again = make()
    for _, pair in ipairs {{net, again}, {opt, opt_again}} do
      assert(tide.io.save_safetensors(name, pair[1]:state_dict()))
      pair[2]:load_state_dict((assert(tide.io.load_safetensors(name))))
    end
    os.remove(name)
    train(net, opt, x)
    train(again, opt_again, x)
    local state = again:state_dict()
    for key, value in pairs(net:state_dict()) do assert.is_true(tide.equal(value, state[key])) end
  end)

  it("refuses a state that is another's", function()
    local a, b = parameter {1, 2}, parameter {1, 2, 3}
    give(a, {1, 1})
    local opt = optim.Adam({a}):step()
    assert.fails_here(function() optim.Adam({b}):load_state_dict(opt:state_dict()) end,
      "has shape (2), expected (3)")
    assert.fails_here(function() optim.Adam({b}):load_state_dict {["state.2.m"] = tide.ones(1)} end,
      'the state has an entry "state.2.m"')
    assert.fails_here(function() optim.Adam({b}):load_state_dict(3) end, "the state is a number")
  end)
end)

describe("the fused steps", function()
  local function step(p, m, v) return core.optim.adam_step(p, m, v, 0.1, 0.9, 0.999, 1e-8, 0, false, 1) end

  it("refuse other shapes and types", function()
    local p, m = parameter({1, 2}, "float32"), tide.zeros(2)
    give(p, {1, 1})
    assert.fails_here(function() step(p, tide.zeros(3), m) end,
      "m is float32 of shape (3), expected float32 of shape (2)")
    assert.fails_here(function() step(p, m, tide.zeros(2, "float64")) end, "v is float64")
    assert.fails_here(function() step(p, m, nil) end, "v is nothing, expected a tensor")
    assert.fails_here(function() step(tide.ones(2, "int64"), m, m) end, "the parameter is int64")
    assert.fails_here(function() step(tide.ones(2, 2):t(), m, m) end, "is a strided view")
    assert.fails_here(function() p.grad = tide.ones(2, "float64") end, "grad: float64, expected float32")
    assert.fails_here(function() core.optim.sgd_step(p, nil, 0.1, 0.9, 0, 0, false, false) end,
      "the velocity is nothing")
    assert.fails_here(function() core.optim.adam_step(p, m, m, 0.1, 0.9, 0.999, 1e-8, 0, false, 0) end,
      "step 0, expected 1")
  end)

  it("say whether there was a gradient", function()
    local p, m = parameter({1, 2}, "float32"), tide.zeros(2)
    assert.is_false(step(p, m, tide.zeros(2)))
    give(p, {1, 1})
    assert.is_true(step(p, m, tide.zeros(2)))
  end)
end)

describe("LBFGS", function()
  local function rosenbrock(p)
    local total
    for i = 1, p.numel - 1 do
      local term = (1 - p[i]) ^ 2 + (p[i + 1] - p[i] ^ 2) ^ 2 * 100
      total = total and total + term or term
    end
    return total
  end
  local function closure_of(f)
    return function()
      local loss = f()
      loss:backward()
      return loss
    end
  end

  it("reaches 1e-8 on Rosenbrock's function with either line search", function()
    for _, search in ipairs {"strong_wolfe", "backtracking"} do
      local p = parameter {-1.2, 1, -1.2, 1}
      local opt = optim.LBFGS({p}, {iterations = 200, line_search = search, tolerance_grad = 1e-10})
      opt:step(closure_of(function() return rosenbrock(p) end))
      assert.is_true(opt.loss < 1e-16)
      same({1, 1, 1, 1}, p, 1e-8)
      assert.is_true(opt.evaluations < 65)
    end
  end)

  it("minimises a quadratic over several parameters, in float32 too", function()
    for _, dtype in ipairs {"float32", "float64"} do
      local a, b = parameter({5, -3}, dtype), parameter({{2}, {7}}, dtype)
      local opt = optim.LBFGS({a, b}, {iterations = 50})
      opt:step(closure_of(function()
        return ((a - 1):square() * tide.tensor({1, 30}, dtype)):sum() + (b * a:reshape(2,
          1) - 2):square():sum()
      end))
      same({1, 1}, a, dtype == "float32" and 1e-3 or 1e-6)
      same({{2}, {2}}, b, dtype == "float32" and 1e-3 or 1e-6)
    end
  end)

  it("never raises the loss, and leaves the parameters where it found the loss", function()
    local p = parameter {-1.2, 1}
    local opt, before = optim.LBFGS({p}, {iterations = 1, lr = 3}), math.huge
    for _ = 1, 30 do
      opt:step(closure_of(function() return rosenbrock(p) end))
      assert.equal(opt.loss, rosenbrock(p):item())
      assert.is_true(opt.loss <= before)
      before = opt.loss
    end
    assert.is_true(before < 1e-3)
  end)

  it("steps back from where the loss is not a number", function()
    local p = parameter {3}
    local opt = optim.LBFGS({p}, {iterations = 60, lr = 50})
    opt:step(closure_of(function() return p:sum() - p:log():sum() end))
    same({1}, p, 1e-6)
  end)

  it("goes back to where it was when a search finds nothing better", function()
    local p = parameter {3}
    local opt = optim.LBFGS({p}, {line_search = "backtracking", evaluations = 1, lr = 1e3})
    opt:step(closure_of(function() return (p * p):sum() end))
    same({3}, p, 0)
    assert.equal(9, opt.loss)
    assert.equal(0, opt.steps)
  end)

  it("stops at once where the gradient is 0, leaving the parameters as they are", function()
    local p = parameter {1, 1}
    local opt = optim.LBFGS({p})
    opt:step(closure_of(function() return rosenbrock(p) end))
    assert.equal(1, opt.evaluations)
    assert.equal(0, opt.steps)
    same({1, 1}, p, 0)
  end)

  it("needs a closure that gives the loss, and one group", function()
    local p, q = parameter {1}, parameter {1}
    local opt = optim.LBFGS({p})
    assert.fails_here(function() opt:step() end, "LBFGS: step needs a closure")
    assert.fails_here(function() opt:step(function() end) end,
      "LBFGS: the closure gave a nil, expected the loss")
    assert.fails_here(function()
      optim.LBFGS({{params = {p}}, {params = {q}}}):step(function() end)
    end, "LBFGS: 2 groups, expected one")
    assert.fails_here(function() optim.LBFGS({p}, {line_search = "wolf"}) end, 'line_search is "wolf"')
    assert.is_true(tide.is_grad_enabled())
  end)
end)

describe("a schedule", function()
  -- The rates of steps 0, 1, …, n.
  local function rates(shape, n, lr)
    local opt = optim.SGD({parameter {1}}, {lr = lr or 1})
    local sched, list = optim.Schedule(opt, shape), {}
    for k = 0, n do
      list[k + 1] = opt.groups[1].lr
      if k < n then sched:step() end
    end
    return list
  end
  local function near(expected, got)
    assert.equal(#expected, #got)
    for i, v in ipairs(expected) do
      assert.is_true(math.abs(v - got[i]) < 1e-12,
        ("step %d: %.15g, expected %.15g"):format(i - 1, got[i], v))
    end
  end

  it("falls by steps", function()
    near({1, 1, 1, 0.5, 0.5, 0.5, 0.25}, rates(optim.step_decay {every = 3, factor = 0.5}, 6))
    near({2, 2, 0.2, 0.2, 0.02}, rates(optim.multistep {at = {2, 4}}, 4, 2))
    near({1, 0.9, 0.81}, rates(optim.exponential {factor = 0.9}, 2))
    near({3, 3}, rates(optim.constant(), 1, 3))
  end)

  it("falls along half a cosine to its minimum and stays", function()
    local expected = {}
    for k = 0, 4 do expected[k + 1] = 0.1 + 0.9 * (1 + math.cos(math.pi * k / 4)) / 2 end
    expected[6] = 0.1
    near(expected, rates(optim.cosine {steps = 4, minimum = 0.1}, 5))
  end)

  it("warms up in a line to the start of another shape", function()
    near({0.25, 0.5, 0.75, 1, 1}, rates(optim.warmup(3), 4))
    local after = rates(optim.cosine {steps = 4}, 4)
    near({0.5, after[1], after[2], after[3], after[4], after[5]},
      rates(optim.warmup(1, optim.cosine {steps = 4}), 5))
  end)

  it("rises and falls in one cycle", function()
    local r = rates(optim.one_cycle {steps = 10, rise = 0.3}, 9, 2)
    local start, finish = 2 / 25, 2 / 25 / 1e4
    near({start, (start + 2) / 2, 2}, {r[1], r[2], r[3]})
    assert.is_true(math.abs(r[10] - finish) < 1e-12)
    near({finish + (2 - finish) * (1 + math.cos(math.pi * 3 / 7)) / 2}, {r[6]})
  end)

  it("scales every group from its own rate, and takes any function", function()
    local a, b = parameter {1}, parameter {1}
    local opt = optim.SGD({{params = {a}}, {params = {b}, lr = 10}}, {lr = 1})
    local sched = optim.Schedule(opt, function(k, lr) return lr / (1 + k) end)
    assert.is_true(rawequal(sched, sched:step()))
    assert.same({0.5, 5}, sched:rates())
  end)

  it("goes on from its state dict", function()
    local function make()
      local opt = optim.SGD({parameter {1}}, {lr = 1})
      return optim.Schedule(opt, optim.cosine {steps = 10})
    end
    local a, b = make(), make()
    for _ = 1, 4 do a:step() end
    b:load_state_dict(a:state_dict())
    assert.same(a:rates(), b:rates())
    assert.same(a:step():rates(), b:step():rates())
    assert.fails_here(function() b:load_state_dict {} end, "expected the state of a schedule over 1 groups")
  end)

  it("refuses what makes no schedule", function()
    local opt = optim.SGD({parameter {1}})
    assert.fails_here(function() optim.Schedule({}, optim.constant()) end,
      "expected an optimiser, got a table")
    assert.fails_here(function() optim.Schedule(opt, "cosine") end, "the shape is a string")
    assert.fails_here(function() optim.cosine {minimum = 1} end,
      "cosine: steps is nil, expected a positive number")
    assert.fails_here(function() optim.cosine {steps = 3, min = 1} end,
      'unknown option "min", did you mean "minimum"?')
    assert.fails_here(function() optim.step_decay {} end, "step_decay: every is nil")
    assert.fails_here(function() optim.multistep {} end, "multistep: at is a nil")
    assert.fails_here(function() optim.one_cycle {steps = 3, rise = 2} end, "one_cycle: rise is 2")
    assert.fails_here(function() optim.warmup(-1) end, "warmup: -1 steps")
  end)
end)

describe("clipping", function()
  it("scales all gradients to a common norm, and gives the norm before", function()
    local a, b, c = parameter {0, 0}, parameter({0}, "float32"), parameter {1}
    give(a, {3, 0})
    give(b, {4})
    same(5, tide.tensor(optim.clip_grad_norm({a, b, c}, 1), "float64"))
    same({0.6, 0}, a.grad)
    same({0.8}, b.grad)
    assert.is_nil(c.grad)
    assert.is_true(math.abs(optim.clip_grad_norm({a, b}, 2) - 1) < 1e-6)
    same({0.6, 0}, a.grad)
    optim.clip_grad_norm({a, b}, 0.25)
    same({0.15, 0}, a.grad, 1e-8)  -- the norm holds a float32
  end)

  it("does not write into a gradient that others look at", function()
    local p, g = parameter {0, 0}, tide.tensor({3, 4}, "float64")
    p.grad = g
    optim.clip_grad_norm({p}, 1)
    same({3, 4}, g)
    same({0.6, 0.8}, p.grad)
    p.grad = g:reshape(2)
    optim.clip_grad_value({p}, 1)
    same({3, 4}, g)
    same({1, 1}, p.grad)
  end)

  it("leaves gradients that are not finite as they are", function()
    local p = parameter {0, 0}
    give(p, {math.huge, 1})
    assert.equal(math.huge, optim.clip_grad_norm({p}, 1))
    same({math.huge, 1}, p.grad)
    give(p, {0 / 0, 1})
    local norm = optim.clip_grad_norm({p}, 1)
    assert.is_true(norm ~= norm)
  end)

  it("clamps every element", function()
    local p = parameter {0, 0, 0}
    give(p, {-5, 0.5, 2})
    optim.clip_grad_value({p}, 1)
    same({-1, 0.5, 1}, p.grad)
    assert.fails_here(function() optim.clip_grad_value({p}, -1) end,
      "clip_grad_value: -1, expected a positive number")
    assert.fails_here(function() optim.clip_grad_norm(3, 1) end,
      "clip_grad_norm: the parameters are a number")
  end)
end)

describe("EMA", function()
  it("averages with weights that fall by the decay", function()
    local p = parameter {1}
    local ema = optim.EMA({p}, 0.9)
    local expected = 1
    for k = 1, 5 do
      tide.no_grad(function() p:fill_(k) end)
      ema:update()
      expected = 0.9 * expected + 0.1 * k
    end
    same({expected}, ema.averages[1])
    same({5}, p)
  end)

  it("lends its averages to the parameters and takes them back", function()
    local m = nn.Linear(2, 2)
    local ema = optim.EMA(m:parameters(), 0.5)
    local before, weight = m.weight:detach():clone(), m.weight
    tide.no_grad(function() m.weight:add_(1) end)
    ema:apply()
    same(before, m.weight)
    ema:restore()
    same(before + 1, m.weight)
    assert.is_true(rawequal(weight, m.weight) and weight.is_leaf)
    ema:with(function() same(before, m.weight) end)
    assert.is_false(pcall(ema.with, ema, function() error("x") end))
    same(before + 1, m.weight)
  end)

  it("goes on from its state dict", function()
    local p, q = parameter {1, 2}, parameter {5, 5}
    local a, b = optim.EMA({p}), optim.EMA({q})
    b:load_state_dict(a:state_dict())
    same({1, 2}, b.averages[1])
    assert.fails_here(function() b:load_state_dict {} end, "EMA: average 1 is missing, expected shape (2)")
    assert.fails_here(function() b:load_state_dict {["1"] = tide.ones(3)} end,
      "EMA: average 1 is of shape (3)")
  end)

  it("refuses the wrong order and the wrong arguments", function()
    local ema = optim.EMA({parameter {1}})
    assert.fails_here(function() ema:restore() end, "EMA: restore() without apply()")
    ema:apply()
    assert.fails_here(function() ema:update() end, "EMA: update between apply() and restore()")
    assert.fails_here(function() ema:apply() end, "EMA: apply() twice")
    assert.fails_here(function() optim.EMA({}) end, "EMA: no parameters")
    assert.fails_here(function() optim.EMA({parameter {1}}, 2) end, "EMA: decay is 2, expected 0 to 1")
  end)
end)

describe("training", function()
  it("gives the losses of an independent implementation in float64, from the same start", function()
    tide.manual_seed(0)
    local x = tide.linspace(-1, 1, 64):reshape(64, 1)
    local y = (x * 3):sin()
    local net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    local opt = optim.Adam(net:parameters(), {lr = 2e-2})
    local sched = optim.Schedule(opt, optim.warmup(10, optim.cosine {steps = 300}))
    local losses = {}
    for k = 1, 300 do
      local loss = nn.mse_loss(net(x), y)
      loss:backward()
      optim.clip_grad_norm(net:parameters(), 1)
      opt:step():zero_grad()
      sched:step()
      if k % 50 == 0 then losses[#losses + 1] = loss:item() end
    end
    same({0.138990331, 0.0467217743, 0.00419384028, 0.00320212703, 0.00273727443, 0.00262270884}, losses,
      5e-6)
  end)
end)
