local tide = require "tide"
local nn = tide.nn
require "spec.helper"
local ref = require "spec.nn_reference"

local function same(expected, got, tolerance) assert.close(got, expected, tolerance) end

local double = {dtype = "float64"}

local function options_with(more)
  local o = {dtype = "float64"}
  for key, value in pairs(more or {}) do o[key] = value end
  return o
end

-- First and second derivatives of the module with respect to its inputs and to every parameter.
local function gradcheck(m, ...)
  local inputs, keys = {...}, {}
  local n = #inputs
  for name, p in m:named_parameters() do
    keys[#keys + 1] = name
    inputs[#inputs + 1] = p:detach()
  end
  return tide.gradcheck(function(...)
    local args = {...}
    for i, key in ipairs(keys) do m[key] = args[n + i] end
    return m(unpack(args, 1, n))
  end, inputs)
end

before_each(function() tide.manual_seed(7) end)

describe("a module", function()
  local Block

  before_each(function()
    Block = nn.Module "Block"
    function Block:init(c)
      self.b, self.a = nn.Linear(c, c), nn.Linear(c, c, {bias = false})
      self.scale = nn.Parameter(tide.ones(c))
      self.steps = tide.zeros(1)
      self.layers = {nn.Linear(c, 1), nn.Tanh()}
      self._secret = tide.ones(9):requires_grad()
    end
    function Block:forward(x, y) return self.a(self.b(x)) * self.scale + (y or 0) end
  end)

  it("is called with the arguments of its forward", function()
    local m, x = Block(3), tide.randn(2, 3)
    same(m:forward(x, 2), m(x, 2))
    same((x:matmul(m.b.weight) + m.b.bias):matmul(m.a.weight) + 2, m(x, 2), 1e-6)
  end)

  it("lists its parameters in the order of sorted names, numbers first", function()
    local names = {}
    for name in Block(3):named_parameters() do names[#names + 1] = name end
    assert.same({"a.weight", "b.bias", "b.weight", "layers.1.bias", "layers.1.weight", "scale"}, names)
    local s = nn.Sequential()
    for _ = 1, 11 do s:append(nn.Linear(1, 1, {bias = false})) end
    names = {}
    for name in s:named_parameters() do names[#names + 1] = name end
    assert.equal("2.weight", names[2])
    assert.equal("11.weight", names[11])
  end)

  it("counts tensors that need no gradient as buffers, and leaves out what is private", function()
    local m = Block(3)
    assert.equal(9 + 3 + 9 + 1 + 3 + 3, m:count())
    assert.equal(1, #m:buffers())
    for name, b in m:named_buffers() do
      assert.equal("steps", name)
      assert.is_true(b:shares_storage(m.steps))
    end
  end)

  it("passes over results of operations and tables of other kinds", function()
    local m = Block(2)
    m.cached = m.scale * 2
    m.opt = setmetatable({p = tide.ones(1):requires_grad()}, {})
    assert.equal(6, #m:parameters())
    assert.is_nil(m:state_dict()["cached"])
  end)

  it("gives a shared parameter once, and survives cycles", function()
    local m = Block(2)
    m.c = m.a
    m.d = {weight = m.b.weight, up = m}
    assert.equal(6, #m:parameters())
  end)

  it("can be a plain table of modules for every function of nn", function()
    local pair = {encoder = nn.Linear(2, 3), decoder = nn.Linear(3, 2)}
    assert.equal(4, #nn.parameters(pair))
    assert.equal(17, nn.count(pair))
    nn.eval(pair)
    assert.is_false(pair.encoder.training)
  end)

  it("can be made of one table with a forward function", function()
    local m = nn.Module {lin = nn.Linear(2, 2), forward = function(self, x) return self.lin(x) end}
    local x = tide.randn(3, 2)
    same(m.lin(x), m(x))
    assert.equal(2, #m:parameters())
  end)

  it("inherits from a class", function()
    local Louder = nn.Module("Louder", Block)
    function Louder:forward(x) return Block.forward(self, x) * 2 end
    local m, x = Louder(3), tide.randn(2, 3)
    same(Block.forward(m, x) * 2, m(x))
    assert.equal("Louder", m.class_name)
  end)

  it("without a forward function says so", function()
    local Empty = nn.Module "Empty"
    assert.fails_here(function() Empty()(1) end, "Empty: this module has no forward function")
    assert.fails_here(function() nn.Module(3) end, "Module: expected a name or a table, got number")
    assert.fails_here(function() nn.Module("X", {}) end, "Module: the parent is a table, expected a class")
  end)

  it("switches every module inside between training and evaluation", function()
    local m = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.BatchNorm2d(2)))
    assert.is_true(m[2][1].training)
    assert.equal(m, m:eval())
    assert.is_false(m[1].training)
    assert.is_false(m[2][1].training)
    m:train()
    assert.is_true(m[2][1].training)
  end)

  it("drops its gradients with zero_grad", function()
    local m = nn.Linear(2, 2)
    m(tide.ones(1, 2)):sum():backward()
    assert.is_truthy(m.weight.grad)
    m:zero_grad()
    assert.is_nil(m.weight.grad)
    assert.is_nil(m.bias.grad)
  end)

  it("applies a function to children before itself", function()
    local order = {}
    local m = nn.Sequential(nn.Identity(), nn.Sequential(nn.Tanh()))
    m:apply(function(each) order[#order + 1] = each.class_name end)
    assert.same({"Identity", "Tanh", "Sequential", "Sequential"}, order)
  end)

  it("freezes its parameters and unfreezes the same ones", function()
    local m = Block(2)
    m:freeze()
    assert.equal(0, #m:parameters())
    assert.is_false(m(tide.ones(1, 2)).needs_grad)
    m:unfreeze()
    assert.equal(6, #m:parameters())
    assert.is_false(m.steps.needs_grad)
  end)

  it("changes type, keeping what is shared shared and integers as they are", function()
    local m = Block(2)
    m.tied = {m.scale}
    m.table = tide.ones(2, "int64")
    m:to("float64")
    assert.equal("float64", m.a.weight.dtype)
    assert.is_true(m.a.weight.is_leaf)
    assert.equal("float64", m.steps.dtype)
    assert.is_false(m.steps.needs_grad)
    assert.equal("int64", m.table.dtype)
    assert.is_true(rawequal(m.tied[1], m.scale))
    assert.equal("float32", m:float().b.bias.dtype)
    assert.fails_here(function() m:to("int64") end, "to: dtype is int64")
  end)

  it("clones deeply, keeping what is shared inside", function()
    local m = Block(2)
    m.tied = m.scale
    local c = m:clone()
    same(m.a.weight, c.a.weight)
    assert.is_false(c.a.weight:shares_storage(m.a.weight))
    assert.is_true(rawequal(c.tied, c.scale))
    assert.is_true(c.scale.is_leaf)
    assert.equal(#m:parameters(), #c:parameters())
    tide.no_grad(function() c.a.weight:zero_() end)
    assert.is_true(m.a.weight:abs():sum():item() > 0)
  end)

  it("prints its parts", function()
    local text = tostring(nn.Sequential(nn.Conv2d(3, 8, 3, {stride = 2, padding = 1}), nn.GroupNorm(4, 8),
      nn.ReLU(),
      nn.Linear(1000, 1000, {bias = false})))
    assert.equal([[
Sequential()  1,000,240 parameters
  1: Conv2d(3 → 8, 3×3, stride 2, padding 1)
  2: GroupNorm(4 groups of 8 channels)
  3: ReLU()
  4: Linear(1000 → 1000, no bias)]], text)
    assert.matches("scale: parameter %(3%)", tostring(Block(3)))
  end)
end)

describe("a state dict", function()
  it("restores a module of the same make exactly", function()
    local function make() return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
      nn.Conv2d(4, 1, 1)) end
    local a, b, x = make(), make(), tide.randn(2, 5, 5, 2)
    a(x)
    b:load_state_dict(a:state_dict())
    a:eval()
    b:eval()
    assert.is_true(tide.equal(a(x), b(x)))
  end)

  it("shares memory unless copied", function()
    local m = nn.Linear(1, 1)
    local live, copy = m:state_dict(), m:state_dict {copy = true}
    local before = m.weight:item()
    tide.no_grad(function() m.weight:fill_(5) end)
    assert.equal(5, live.weight:item())
    assert.equal(before, copy.weight:item())
    assert.is_false(live.weight.needs_grad)
  end)

  it("names what is missing, unexpected and misshaped, and then copies nothing", function()
    local m = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    local state = m:state_dict {copy = true}
    state["1.bias"], state["extra"], state["2.weight"] = nil, tide.ones(1), tide.ones(1, 3)
    state["2.bias"] = tide.full({1}, 9)
    assert.fails_here(function() m:load_state_dict(state) end,
      "load_state_dict: missing 1.bias; unexpected extra; misfit: 2.weight has shape (1×3), expected (3×1)")
    assert.not_equal(9, m[2].bias:item())
    assert.fails_here(function() m:load_state_dict(state, {strict = false}) end, "2.weight has shape")
    state["2.weight"] = nil
    local _, missing, unexpected = m:load_state_dict(state, {strict = false})
    assert.same({"1.bias", "2.weight"}, missing)
    assert.same({"extra"}, unexpected)
    assert.equal(9, m[2].bias:item())
    assert.fails_here(function() m:load_state_dict("weights") end, "the state is a string, expected a table")
  end)

  it("converts types and takes effect under a recording", function()
    local m = nn.Linear(1, 1)
    m:load_state_dict {weight = tide.full({1, 1}, 2, "float64"), bias = tide.full({1}, 3, "float64")}
    assert.equal("float32", m.weight.dtype)
    assert.equal(5, m(tide.ones(1, 1)):item())
    assert.is_true(m.weight.is_leaf)
  end)
end)

describe("Linear", function()
  it("is x·weight + bias over the last dim", function()
    local m, x = nn.Linear(3, 2, double), tide.randn({5, 3}, "float64")
    same(ref.linear(x:totable(), m.weight:totable(), m.bias:totable()), m(x))
    same(m(x), m(x:reshape(1, 5, 3)):reshape(5, 2))
    same(m(x)[1], m(x[1]))
    assert.is_true(gradcheck(m, x))
    assert.is_true(gradcheck(nn.Linear(3, 2, options_with {bias = false}), x))
  end)

  it("starts uniform in ±1/√inputs", function()
    local m = nn.Linear(100, 300)
    local s = m.weight:abs():max()
    assert.is_true(s:item() <= 0.1 and s:item() > 0.099)
    assert.is_true(math.abs(m.weight:std():item() - 0.1 / math.sqrt(3)) < 1e-3)
    assert.is_true(m.bias:abs():max():item() <= 0.1)
  end)

  it("repeats itself by manual_seed, and by a generator of its own", function()
    tide.manual_seed(3)
    local a = nn.Linear(4, 4)
    tide.manual_seed(3)
    assert.is_true(tide.equal(a.weight, nn.Linear(4, 4).weight))
    local b = nn.Linear(4, 4, {generator = tide.generator(5)})
    assert.is_true(tide.equal(b.weight, nn.Linear(4, 4, {generator = tide.generator(5)}).weight))
    assert.is_false(tide.equal(a.weight, b.weight))
  end)

  it("refuses wrong sizes and options at the user's line", function()
    assert.fails_here(function() nn.Linear(0, 2) end, "Linear: inputs is 0, expected a whole number")
    assert.fails_here(function() nn.Linear(2, 2.5) end, "Linear: outputs is 2.5")
    assert.fails_here(function() nn.Linear(2, 2, {biass = false}) end,
      'Linear: unknown option "biass", did you mean "bias"?')
    assert.fails_here(function() nn.Linear(2, 2)(tide.ones(1, 3)) end,
      "matmul: inner sizes differ: (1×3)·(2×2)")
  end)
end)

describe("Conv2d", function()
  local cases = {
    plain = {2, 3, 3, {}},
    strided = {1, 2, {3, 2}, {stride = {2, 1}, padding = {1, 0}}},
    dilated = {2, 2, {2, 3}, {dilation = {2, 1}, padding = {1, 2}, bias = false}},
    grouped = {4, 6, 2, {groups = 2, stride = 2, padding = 1}},
    depthwise = {3, 3, 3, {groups = 3, padding = 1}},
    ["same-sized"] = {2, 1, {3, 5}, {padding = "same", dilation = {2, 1}}},
  }
  for name, case in pairs(cases) do
    it("agrees with the sum over windows when " .. name, function()
      local m = nn.Conv2d(case[1], case[2], case[3], options_with(case[4]))
      local x = tide.randn({2, 5, 6, case[1]}, "float64")
      same(ref.conv2d(x:totable(), m.weight:totable(), m.bias and m.bias:totable(), m.stride, m.padding,
        m.dilation,
        m.groups), m(x))
      if name == "same-sized" then assert.same({2, 5, 6, 1}, m(x).shape) end
      assert.is_true(gradcheck(m, x[{{}, {1, 4}, {1, 4}}]))
    end)
  end

  it("starts uniform in ±1/√(window·inputs/groups)", function()
    local m = nn.Conv2d(16, 32, 5, {groups = 2})
    local bound = 1 / math.sqrt(25 * 8)
    local top = m.weight:abs():max():item()
    assert.is_true(top <= bound and top > 0.99 * bound)
  end)

  it("refuses what does not fit", function()
    assert.fails_here(function() nn.Conv2d(3, 4, 3, {groups = 2}) end,
      "2 groups do not divide 3 inputs and 4 outputs")
    assert.fails_here(function() nn.Conv2d(3, 4, {1, 2, 3}) end, "kernel has 3 numbers, expected one or two")
    assert.fails_here(function() nn.Conv2d(3, 4, 2, {padding = "same"}) end, "needs odd kernels and stride 1")
    assert.fails_here(function() nn.Conv2d(3, 4, 3, {pading = 1}) end,
      'Conv2d: unknown option "pading", did you mean "padding"?')
    assert.fails_here(function() nn.Conv2d(3, 4, 3)(tide.ones(1, 8, 8, 2)) end, "conv2d: weight")
  end)
end)

describe("ConvTranspose2d", function()
  local cases = {
    plain = {2, 3, 3, {}},
    ["strided with output padding"] = {2, 1, {3, 2}, {stride = 2, padding = {1, 0}, output_padding = 1}},
    dilated = {1, 2, 2, {dilation = {2, 3}, bias = false}},
    grouped = {4, 2, 3, {groups = 2, stride = 2, padding = 1}},
  }
  for name, case in pairs(cases) do
    it("agrees with the spreading of every pixel when " .. name, function()
      local m = nn.ConvTranspose2d(case[1], case[2], case[3], options_with(case[4]))
      local x = tide.randn({2, 3, 4, case[1]}, "float64")
      same(ref.conv_transpose2d(x:totable(), m.weight:totable(), m.bias and m.bias:totable(), m.stride,
        m.padding,
        m.dilation, m.groups, m.output_padding), m(x))
      assert.is_true(gradcheck(m, x[{{}, {1, 2}, {1, 3}}]))
    end)
  end

  it("is the transpose of the convolution with its weight", function()
    local o = options_with {stride = 2, padding = 1, bias = false}
    local up, down = nn.ConvTranspose2d(2, 3, 3, o), nn.Conv2d(3, 2, 3, o)
    down.weight = up.weight
    local x, y = tide.randn({1, 4, 4, 2}, "float64"), tide.randn({1, 7, 7, 3}, "float64")
    assert.is_true(math.abs((up(x) * y):sum():item() - (x * down(y)):sum():item()) < 1e-12)
  end)

  it("refuses what does not fit", function()
    assert.fails_here(function() nn.ConvTranspose2d(1, 1, 3, {output_padding = 1}) end,
      "output_padding 1, expected less than the stride or the dilation")
    assert.fails_here(function() nn.ConvTranspose2d(1, 1, 3, {padding = 3})(tide.ones(1, 2, 2, 1)) end,
      "an input of shape (1×2×2×1) gives an image of size -2")
  end)
end)

describe("GroupNorm", function()
  it("agrees with the statistics of every group", function()
    local m, x = nn.GroupNorm(2, 6, options_with {eps = 1e-3}), tide.randn({2, 3, 2, 6}, "float64") * 3 + 1
    m.weight, m.bias = tide.randn({6}, "float64"):requires_grad(), tide.randn({6}, "float64"):requires_grad()
    same(ref.group_norm(x:totable(), 2, m.weight:totable(), m.bias:totable(), 1e-3), m(x))
    assert.is_true(gradcheck(m, x))
  end)

  it("works without weights, and refuses other channels", function()
    local m, x = nn.GroupNorm(2, 4, options_with {affine = false}), tide.randn({2, 3, 4}, "float64")
    assert.equal(0, #m:parameters())
    local y = m(x):reshape(2, 3, 2, 2)
    same({{0, 0}, {0, 0}}, y:mean({2, 4}), 1e-12)
    assert.fails_here(function() m(tide.ones(1, 1, 1, 8)) end,
      "GroupNorm: the input has shape (1×1×1×8), expected 4 channels")
    assert.fails_here(function() nn.GroupNorm(3, 4) end, "3 groups do not divide 4 channels")
  end)
end)

describe("LayerNorm", function()
  it("agrees with the statistics of every position", function()
    local m, x = nn.LayerNorm(5, double), tide.randn({2, 3, 5}, "float64")
    m.weight, m.bias = tide.randn({5}, "float64"):requires_grad(), tide.randn({5}, "float64"):requires_grad()
    local t, w, b = x:totable(), m.weight:totable(), m.bias:totable()
    same(ref.build(function(n, i, c)
      local mean, var = ref.mean_and_variance(t[n][i])
      return (t[n][i][c] - mean) / math.sqrt(var + 1e-5) * w[c] + b[c]
    end, 2, 3, 5), m(x))
    assert.is_true(gradcheck(m, x))
  end)
end)

describe("BatchNorm2d", function()
  local function batch() return tide.randn({3, 2, 2, 2}, "float64") * 2 + 1 end

  it("uses the batch's statistics while training, and moves the running ones", function()
    local m, x = nn.BatchNorm2d(2, options_with {momentum = 0.2}), batch()
    m.weight, m.bias = tide.tensor({2, -1}, "float64"):requires_grad(),
      tide.tensor({1, 3}, "float64"):requires_grad()
    local t = x:totable()
    local mean, var = {}, {}
    for c = 1, 2 do mean[c], var[c] = ref.mean_and_variance(ref.channel(t, c)) end
    same(ref.build(function(n, i, j, c)
      return (t[n][i][j][c] - mean[c]) / math.sqrt(var[c] + 1e-5) * (c == 1 and 2 or -1) + (c == 1 and 1 or 3)
    end, 3, 2, 2, 2), m(x))
    same({0.2 * mean[1], 0.2 * mean[2]}, m.running_mean)
    same({0.8 + 0.2 * var[1] * 12 / 11, 0.8 + 0.2 * var[2] * 12 / 11}, m.running_var)
    assert.is_false(m.running_mean.needs_grad)
    assert.is_true(gradcheck(m, x))
  end)

  it("uses the running statistics in evaluation and leaves them alone", function()
    local m, x = nn.BatchNorm2d(2, double), batch()
    for _ = 1, 3 do m(batch()) end
    m:eval()
    local mean, var, t = m.running_mean:totable(), m.running_var:totable(), x:totable()
    same(ref.build(function(n, i, j, c) return (t[n][i][j][c] - mean[c]) / math.sqrt(var[c] + 1e-5) end, 3, 2,
      2, 2), m(x))
    same(mean, m.running_mean, 0)
    assert.is_true(gradcheck(m, x))
    assert.is_nil(m:state_dict()["running_count"])
    assert.is_truthy(m:state_dict()["running_var"])
  end)

  it("refuses a single position while training", function()
    assert.fails_here(function() nn.BatchNorm2d(2)(tide.ones(1, 1, 1, 2)) end, "has no variance; use eval()")
  end)

  it("does an activation and a sum in its own pass", function()
    for _, opts in ipairs {double, options_with {affine = false}} do
      local m, x, r = nn.BatchNorm2d(2, opts), batch(), batch():flip(1)
      for _, act in ipairs {"relu", "silu", "gelu", "tanh", "sigmoid", "none"} do
        for _, training in ipairs {true, false} do
          m:train(training)
          local function apart(v, w)
            local y = m(v)
            return (act == "none" and y or y[act](y)) + w
          end
          assert.close(m(x, act, r), apart(x, r), 1e-12)
          local u, v = x:clone():requires_grad(), x:clone():requires_grad()
          local weights = tide.generator(3):randn(x.shape, "float64")
          local g = tide.gradients((m(u, act, r) * weights):sum(), {u})[1]
          assert.close(g, tide.gradients((apart(v, r) * weights):sum(), {v})[1], 1e-10)
        end
      end
    end
    assert.fails_here(function() nn.BatchNorm2d(2)(tide.ones(2, 1, 1, 2), "swish") end, "unknown activation \"swish\"")
  end)
end)

describe("Dropout", function()
  it("drops with its probability and keeps the mean", function()
    local m = nn.Dropout(0.25)
    local y = m(tide.ones(200, 200))
    local zeros = tide.eq(y, 0):sum():item() / 40000
    assert.is_true(math.abs(zeros - 0.25) < 0.01)
    assert.is_true(tide.allclose(y:max(), tide.tensor(4 / 3)))
    assert.is_true(math.abs(y:mean():item() - 1) < 0.02)
  end)

  it("draws anew at every call, repeats by seed, and has the gradient of its mask", function()
    local m, x = nn.Dropout(0.5), tide.ones(8, 8):requires_grad()
    tide.manual_seed(1)
    local y = m(x)
    assert.is_false(tide.equal(y, m(x)))
    tide.manual_seed(1)
    assert.is_true(tide.equal(y, m(x)))
    y:sum():backward()
    same(y:detach(), x.grad)
  end)

  it("does nothing in evaluation and at probability 0, and everything at 1", function()
    local x = tide.randn(3, 3)
    assert.is_true(rawequal(x, nn.Dropout(0.5):eval()(x)))
    assert.is_true(rawequal(x, nn.Dropout(0)(x)))
    assert.equal(0, nn.Dropout(1)(x):abs():sum():item())
  end)

  it("shares one draw along the dims named", function()
    local y = nn.Dropout2d(0.5)(tide.ones(4, 5, 3, 16))
    for n = 1, 4 do
      for c = 1, 16 do
        local plane = y[{n, {}, {}, c}]
        assert.equal(plane:max():item(), plane:min():item())
      end
    end
    assert.is_true(y[1]:max():item() > y[1]:min():item())
    assert.is_false(tide.equal(y[1], y[2]))
    local rows = nn.Dropout(0.5, {dims = {1, -1}})(tide.ones(4, 32, 3))
    same(rows[1], rows[4])
    same(rows[{1, {}, 1}], rows[{1, {}, 3}])
  end)

  it("refuses what is no probability or no dims", function()
    assert.fails_here(function() nn.Dropout(1.5) end, "Dropout: probability 1.5, expected 0 to 1")
    assert.fails_here(function() nn.Dropout(0.5, {dims = 2}) end,
      'dims is 2, expected a table of dims or "inner"')
    assert.fails_here(function() nn.Dropout(0.5, {dims = {3}})(tide.ones(2, 2)) end, "dim 3 is out of range")
  end)
end)

describe("a held function", function()
  local x

  before_each(function() x = tide.ones(4, 3, 3, 8) end)

  it("sees one mask for each dropout layer, however often it is called", function()
    local net = nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.5))
    local f = nn.hold(net)
    local y = f(x)
    net(x)
    assert.is_true(tide.equal(y, f(x)))
    assert.is_false(tide.equal(y, net(x)))
    assert.is_false(tide.equal(y, nn.hold(net)(x)))
  end)

  it("keeps its masks while another pass is under way", function()
    local net = nn.Dropout2d(0.5)
    local first, second = nn.hold(net), nn.hold(net)
    local a, b = first(x), second(x)
    assert.is_false(tide.equal(a, b))
    assert.is_true(tide.equal(a, first(x)))
    assert.is_true(tide.equal(b, second(x)))
  end)

  it("gives a checkpointed field the mask of its forward pass", function()
    local net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8))
    local f = nn.hold(net)
    local u = tide.randn(5, 8):requires_grad()
    f(u):square():sum():backward()
    local direct = u.grad
    u.grad = nil
    local y = tide.checkpoint(f, u)
    nn.hold(net)(u)
    y:square():sum():backward()
    same(direct, u.grad, 1e-6)
  end)

  it("joins the pass it is made in", function()
    local net = nn.Dropout(0.5)
    local a, b
    nn.hold(function()
      a = net(x)
      b = nn.hold(net)(x)
    end)()
    assert.is_true(tide.equal(a, b))
  end)

  it("ends its pass when it raises, with the error as it was", function()
    local broken = nn.hold(function() error({code = 5}) end)
    local ok, e = pcall(broken)
    assert.is_false(ok)
    assert.equal(5, e.code)
    assert.is_nil(require("tide.nn.pass").current())
  end)

  it("has a mask for each size of input", function()
    local f = nn.hold(nn.Dropout(0.5))
    local a, b = f(tide.ones(6, 6)), f(tide.ones(2, 6))
    assert.is_true(tide.equal(a, f(tide.ones(6, 6))))
    assert.is_true(tide.equal(b, f(tide.ones(2, 6))))
    assert.equal("float64", f(tide.ones({6, 6}, "float64")).dtype)
  end)
end)

describe("VariationalDropout", function()
  local x
  before_each(function() x = tide.ones(4, 3, 3, 16) end)

  it("drops whole channels with a mask held until resample", function()
    local m = nn.VariationalDropout(0.5)
    local y = m(x)
    same(y[{{}, 1, 1}], y[{{}, 3, 2}])
    assert.is_true(tide.equal(y, m(x)))
    m:resample()
    assert.is_false(tide.equal(y, m(x)))
  end)

  it("is resampled through the modules around it", function()
    local net = nn.Sequential(nn.Linear(16, 16), nn.Sequential(nn.VariationalDropout(0.5)))
    local y = net(x)
    assert.is_true(tide.equal(y, net(x)))
    assert.equal(net, net:resample())
    assert.is_false(tide.equal(y, net(x)))
  end)

  it("follows the pass inside a held function", function()
    local m = nn.VariationalDropout(0.5)
    local outside = m(x)
    local f = nn.hold(m)
    local y = f(x)
    assert.is_false(tide.equal(outside, y))
    assert.is_true(tide.equal(y, f(x)))
    assert.is_true(tide.equal(outside, m(x)))
  end)

  it("serves later passes too with a mask drawn by resample(x)", function()
    local m = nn.VariationalDropout(0.5)
    m:resample(x)
    local y = m(x)
    assert.is_true(tide.equal(y, nn.hold(m)(x)))
    m:resample {4, 3, 3, 16}
    assert.is_false(tide.equal(y, m(x)))
    y = m(x)
    assert.is_true(tide.equal(y, nn.hold(m)(x)))
    m:resample()
    assert.is_false(tide.equal(y, m(x)))
  end)

  it("draws again for another size, and is not part of the state", function()
    local m = nn.VariationalDropout(0.5)
    m(x)
    assert.same({2, 3, 3, 16}, m(x[{{1, 2}}]).shape)
    assert.is_nil(next(m:state_dict()))
    assert.is_true(rawequal(x, m:eval()(x)))
  end)
end)

describe("Embedding", function()
  it("gives the rows of its weight, from 1", function()
    local m = nn.Embedding(5, 3, double)
    local w, at = m.weight:totable(), tide.tensor({{1, 5}, {3, 3}}, "int64")
    same({{w[1], w[5]}, {w[3], w[3]}}, m(at))
    m(at):sum():backward()
    same({{1, 1, 1}, {0, 0, 0}, {2, 2, 2}, {0, 0, 0}, {1, 1, 1}}, m.weight.grad)
    assert.is_true(gradcheck(m, at))
    assert.fails_here(function() m(tide.tensor({6}, "int64")) end, "index 6 at position 1 is outside 1..5")
  end)
end)

describe("pooling and resizing", function()
  local x, t
  before_each(function()
    x = tide.randn({2, 5, 6, 2}, "float64")
    t = x:totable()
  end)

  it("takes the greatest of each window", function()
    local function greatest(v) return math.max(unpack(v)) end
    same(ref.pool(t, {2, 2}, {2, 2}, {0, 0}, greatest), nn.MaxPool2d(2)(x))
    local m = nn.MaxPool2d({3, 2}, {stride = {1, 2}, padding = 1})
    same(ref.pool(t, {3, 2}, {1, 2}, {1, 1}, greatest), m(x))
    assert.is_true(gradcheck(m, x))
  end)

  it("takes the mean of each window without the padding", function()
    local m = nn.AvgPool2d(3, {stride = 2, padding = 1})
    same(ref.pool(t, {3, 3}, {2, 2}, {1, 1}, ref.mean), m(x))
    same(ref.pool(t, {2, 3}, {2, 3}, {0, 0}, ref.mean), nn.AvgPool2d({2, 3})(x))
    assert.is_true(gradcheck(m, x))
  end)

  it("cuts images into a number of parts", function()
    local m = nn.AdaptiveAvgPool2d({3, 4})
    same(ref.adaptive_avg_pool2d(t, {3, 4}), m(x))
    assert.is_true(gradcheck(m, x))
  end)

  it("takes the mean of the whole image", function()
    local m = nn.GlobalAvgPool()
    same(ref.build(function(n, c) return ref.mean(ref.channel({t[n]}, c)) end, 2, 2), m(x))
    assert.is_true(gradcheck(m, x))
    assert.fails_here(function() m(tide.ones(2, 3)) end,
      "GlobalAvgPool: the input has shape (2×3), expected N×H×W×C")
  end)

  it("enlarges and shrinks by the nearest pixel or linearly", function()
    same(ref.upsample_nearest(t, {10, 12}), nn.Upsample(2)(x))
    same(ref.upsample_nearest(t, {7, 4}), nn.Upsample({size = {7, 4}})(x))
    same(ref.upsample_bilinear(t, {15, 9}), nn.Upsample({3, 1.5}, {mode = "bilinear"})(x))
    same(ref.upsample_bilinear(t, {8, 8}), nn.Upsample({size = 8, mode = "bilinear"})(x))
    assert.is_true(gradcheck(nn.Upsample(2), x))
    assert.is_true(gradcheck(nn.Upsample(2, {mode = "bilinear"}), x))
    assert.fails_here(function() nn.Upsample() end, "expected a scale or a size, and not both")
    assert.fails_here(function() nn.Upsample(2, {mode = "cubic"}) end, 'mode is "cubic"')
    assert.fails_here(function() nn.Upsample(-1) end, "scale is -1, expected a positive number")
  end)
end)

describe("MultiheadAttention", function()
  local function weights(m)
    local w = {}
    for name, p in m:named_parameters() do w[name] = p:totable() end
    return w
  end
  local function with_biases(m)
    for _, name in ipairs {"query_bias", "key_value_bias", "out_bias"} do
      m[name] = tide.randn(m[name].shape, "float64"):requires_grad()
    end
    return m
  end

  it("agrees with attention head by head within a sequence", function()
    local m, x = with_biases(nn.MultiheadAttention(6, 3, double)), tide.randn({2, 4, 6}, "float64")
    local t, w = x:totable(), weights(m)
    same({ref.multihead(t[1], t[1], w, 3), ref.multihead(t[2], t[2], w, 3)}, m(x))
    same(m(x, x), m(x))
    assert.is_true(gradcheck(m, x))
  end)

  it("attends to another sequence of other channels", function()
    local m = nn.MultiheadAttention(4, 2, options_with {context = 3, bias = false})
    local x, c = tide.randn({1, 3, 4}, "float64"), tide.randn({1, 5, 3}, "float64")
    same({ref.multihead(x:totable()[1], c:totable()[1], weights(m), 2)}, m(x, c))
    assert.equal(3, #m:parameters())
    assert.is_true(gradcheck(m, x, c))
  end)

  it("leaves out what a boolean mask or causality excludes", function()
    local m, x = with_biases(nn.MultiheadAttention(4, 2, double)), tide.randn({2, 3, 4}, "float64")
    local t, w = x:totable(), weights(m)
    local function causal(i, j) return j <= i end
    same({ref.multihead(t[1], t[1], w, 2, causal), ref.multihead(t[2], t[2], w, 2, causal)},
      m(x, {causal = true}))
    same(m(x, {causal = true}), m(x, {mask = tide.tril(tide.ones(3, 3, "uint8"))}))
    local padding = tide.tensor({{1, 1, 0}, {1, 0, 1}}, "uint8"):reshape(2, 1, 1, 3)
    same({ref.multihead(t[1], t[1], w, 2, function(_, j) return j ~= 3 end),
      ref.multihead(t[2], t[2], w, 2, function(_, j) return j ~= 2 end)}, m(x, {mask = padding}))
    same(m(x, {mask = padding}), m(x, {mask = padding:reshape(2, 1, 3)}))
  end)

  it("adds a real mask to the scores, and gives finite numbers when all is excluded", function()
    local q, k, v = tide.randn({3, 2}, "float64"), tide.randn({4, 2}, "float64"),
      tide.randn({4, 5}, "float64")
    local bias = tide.randn({3, 4}, "float64")
    local b = bias:totable()
    same(ref.attention(q:totable(), k:totable(), v:totable(), nil, function(i, j) return b[i][j] end),
      nn.attention(q, k, v, {mask = bias}))
    same(v:mean(1), nn.attention(q, k, v, {mask = tide.zeros(3, 4, "uint8")})[1])
    assert.is_true(tide.gradcheck(function(...) return nn.attention(...) end, {q, k, v}))
  end)

  it("drops weights while training only", function()
    local m, x = nn.MultiheadAttention(4, 2, {dropout = 0.5}), tide.randn(1, 6, 4)
    assert.is_false(tide.equal(m(x), m(x)))
    m:eval()
    assert.is_true(tide.equal(m(x), m(x)))
  end)

  it("refuses what does not fit", function()
    assert.fails_here(function() nn.MultiheadAttention(6, 4) end, "4 heads do not divide 6 channels")
    assert.fails_here(function() nn.MultiheadAttention(4, 2)(tide.ones(3, 4)) end, "expected N×L×4")
  end)
end)

describe("containers and activations", function()
  it("apply one step after the other, functions among them", function()
    local a, b = nn.Linear(2, 3), nn.Linear(3, 1)
    local s, x = nn.Sequential(a, tide.tanh, b), tide.randn(4, 2)
    same(b(a(x):tanh()), s(x))
    assert.equal(3, #s)
    assert.is_true(rawequal(b, s[3]))
    assert.fails_here(function() nn.Sequential(a, 3) end, "Sequential: element 2 is a number")
  end)

  it("flatten and pass on", function()
    local x = tide.randn(2, 3, 4, 5)
    assert.same({2, 60}, nn.Flatten()(x).shape)
    assert.same({2, 12, 5}, nn.Flatten(2, 3)(x).shape)
    assert.is_true(rawequal(x, nn.Identity()(x)))
  end)

  local exp, abs, max, min, log = math.exp, math.abs, math.max, math.min, math.log
  local function sigmoid(v) return 1 / (1 + exp(-v)) end
  local functions = {
    ReLU = function(v) return max(v, 0) end,
    SiLU = function(v) return v * sigmoid(v) end,
    GELUTanh = function(v)
      return 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v ^ 3)))
    end,
    Tanh = math.tanh, Sigmoid = sigmoid, Sin = math.sin, Exp = exp,
    Softplus = function(v) return log(1 + exp(v)) end,
    LogSigmoid = function(v) return log(sigmoid(v)) end,
    Softsign = function(v) return v / (1 + abs(v)) end,
    Mish = function(v) return v * math.tanh(log(1 + exp(v))) end,
    ReLU6 = function(v) return min(max(v, 0), 6) end,
    Hardtanh = function(v) return min(max(v, -1), 1) end,
    LeakyReLU = function(v) return v > 0 and v or 0.01 * v end,
    ELU = function(v) return v > 0 and v or exp(v) - 1 end,
    PReLU = function(v) return v > 0 and v or 0.25 * v end,
  }
  local points = {-7.5, -2.3, -1.1, -0.4, 0.3, 0.9, 1.7, 6.8}
  for name, f in pairs(functions) do
    it("computes " .. name, function()
      local expected = {}
      for i, v in ipairs(points) do expected[i] = f(v) end
      local m = name == "PReLU" and nn.PReLU(1, double) or nn[name]()
      same(expected, m(tide.tensor(points, "float64")))
      assert.is_true(gradcheck(m, tide.tensor(points, "float64")))
    end)
  end

  it("computes GELU, Softmax and LogSoftmax", function()
    same({0.8413447460685429, -0.15865525393145707}, nn.GELU()(tide.tensor({1, -1}, "float64")))
    local x = tide.randn({2, 3}, "float64")
    same({ref.softmax(x:totable()[1]), ref.softmax(x:totable()[2])}, nn.Softmax()(x))
    same(nn.Softmax(1)(x):log(), nn.LogSoftmax(1)(x))
    same({2, -1, -4}, nn.ELU(4)(tide.tensor({2, -math.log(4 / 3), -1e3}, "float64")))
    same({-3, 2}, nn.LeakyReLU(0.5)(tide.tensor({-6, 2}, "float64")))
  end)

  it("learn a slope for each channel", function()
    local m = nn.PReLU(2, options_with {start = 0.5})
    same({{-0.5, 2}, {1, -1}}, m(tide.tensor({{-1, 2}, {1, -2}}, "float64")))
    assert.equal(2, m:count())
  end)
end)

describe("initial values", function()
  local init = nn.init

  local function spread(t) return t:std():item(), t:abs():max():item() end

  it("have the standard deviations of their rules", function()
    local w, k = tide.zeros(300, 200), tide.zeros(3, 3, 40, 60)
    local function close(expected, t) assert.is_true(math.abs(spread(t) / expected - 1) < 0.01) end
    close(math.sqrt(2 / 300), init.kaiming_normal(w))
    close(math.sqrt(2 / 200), init.kaiming_normal(w, {mode = "fan_out", nonlinearity = "relu"}))
    close(math.sqrt(2 / (1 + 5) / 360), init.kaiming_uniform(k, {a = math.sqrt(5)}))
    close(math.sqrt(2 / 500), init.xavier_normal(w))
    close(5 / 3 * math.sqrt(2 / (360 + 540)), init.xavier_uniform(k, {gain = init.gain("tanh")}))
    close(3, init.normal(w, 1, 3))
    assert.is_true(math.abs(w:mean():item() - 1) < 0.05)
    close(2 / math.sqrt(12), init.uniform(w, 4, 6))
    assert.is_true(w:min():item() >= 4 and w:max():item() < 6)
    local _, top = spread(init.xavier_uniform(w))
    assert.is_true(top <= math.sqrt(6 / 500) and top > 0.999 * math.sqrt(6 / 500))
  end)

  it("fill parameters in place without a trace", function()
    local p = tide.zeros(2, 2):requires_grad()
    assert.is_true(rawequal(p, init.constant(p, 3)))
    same({{3, 3}, {3, 3}}, p)
    same({{1, 1}, {1, 1}}, init.ones(p))
    same({{0, 0}, {0, 0}}, init.zeros(p))
    assert.is_true(p.is_leaf)
  end)

  it("are orthonormal where asked, tall or wide", function()
    for _, shape in ipairs {{4, 7}, {7, 4}, {5, 5}, {2, 3, 2, 4}} do
      local w = init.orthogonal(tide.zeros(shape, "float64"), {gain = 2}):reshape(-1, shape[#shape])
      local gram = w:size(1) < w:size(2) and w:matmul(w:t()) or w:t():matmul(w)
      same(tide.eye(gram:size(1), gram:size(1), "float64") * 4, gram)
    end
  end)

  it("refuse what they cannot fill", function()
    assert.fails_here(function() init.kaiming_normal(tide.zeros(3)) end,
      "a weight has at least two dims, got shape (3)")
    assert.fails_here(function() init.normal(tide.zeros(3, "int64")) end,
      "expected a float32 or float64 tensor, got a int64")
    assert.fails_here(function() init.gain("swish") end, 'unknown nonlinearity "swish"')
    assert.fails_here(function() init.kaiming_normal(tide.zeros(2, 2), {mode = "fan"}) end, 'mode is "fan"')
  end)
end)
