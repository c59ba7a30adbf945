-- Wrong calls: each raises at the caller's line, names the function, says what was expected and what came,
-- leaves nothing behind and everything usable.

local helper = require "spec.helper"
local tide = require "tide"

local a, b = tide.ones(3, 4), tide.ones(5, 6)
local v, i64, u8 = tide.ones(3), tide.ones(3, "int64"), tide.ones(3, "uint8")
local image, weight = tide.ones(1, 4, 4, 2), tide.ones(3, 3, 2, 5)
local d64 = tide.ones(3, 4, "float64")

-- A call, and the parts that its message must have.
local calls = {
  -- shapes
  {function() return (a + b) end, "add", "(3×4)", "(5×6)"},
  {function() return (a * tide.ones(3)) end, "mul", "(3×4)", "(3)"},
  {function() local _ = tide.where(a, b, 1) end, "where", "(3×4)", "(5×6)"},
  {function() local _ = a:matmul(b) end, "matmul", "inner sizes differ", "(3×4)·(5×6)"},
  {function() local _ = a:matmul(tide.ones(2, 5, 6)) end, "matmul", "(3×4)"},
  {function() local _ = tide.ones(2, 3, 4):matmul(tide.ones(5, 4, 3)) end, "matmul", "batch",
    "(2×3×4)·(5×4×3)"},
  {function() local _ = a:matmul(tide.ones(5)) end, "matmul", "(3×4)·(5)"},
  {function() local _ = a:matmul(tide.ones()) end, "matmul", "0-d"},
  {function() local _ = a:matmul(3) end, "matmul", "number", "tensor"},
  {function() local _ = a:matmul(d64) end, "matmul"},
  {function() local _ = v:dot(a) end, "dot", "(3×4)"},
  {function() local _ = tide.outer(a, v) end, "outer", "1-d"},
  {function() local _ = a:reshape(5, 2) end, "reshape", "12 elements", "(3×4)", "(5×2)"},
  {function() local _ = a:reshape(-1, 5) end, "reshape", "12"},
  {function() local _ = a:reshape(-1, -1) end, "reshape", "-1"},
  {function() local _ = a:reshape(-2) end, "reshape"},
  {function() local _ = a:reshape("3") end, "reshape", "\"3\"", "numbers"},
  {function() local _ = a:reshape() end, "reshape", "shape is missing"},
  {function() local _ = a:reshape(1, 1, 1, 1, 1, 1, 1, 3, 4) end, "reshape", "8"},
  {function() local _ = a:expand(2, 4) end, "expand", "(3×4)"},
  {function() local _ = a:expand(4) end, "expand", "(3×4)"},
  {function() local _ = a:expand(-2, 4) end, "expand"},
  {function() local _ = a:permute(1) end, "permute", "2 dims"},
  {function() local _ = a:permute(1, 1) end, "permute", "twice"},
  {function() local _ = a:permute(1, 3) end, "permute", "dim 3", "(3×4)"},
  {function() local _ = a:squeeze(1) end, "squeeze", "dim 1", "3"},
  {function() local _ = a:unsqueeze(4) end, "unsqueeze", "dim 4"},
  {function() local _ = tide.ones(1, 1, 1, 1, 1, 1, 1, 1):unsqueeze(1) end, "unsqueeze", "8 dims"},
  {function() local _ = a:transpose(1, 3) end, "transpose", "dim 3"},
  {function() local _ = a:transpose(1) end, "transpose", "dim nil"},
  {function() local _ = v:t() end, "transpose", "1 dims"},
  {function() local _ = tide.cat({a, b}) end, "cat", "operand 2", "(5×6)", "(3×4)"},
  {function() local _ = tide.cat({a, 3}) end, "cat", "element 2", "3"},
  {function() local _ = tide.cat({}) end, "cat", "empty"},
  {function() local _ = tide.cat(a) end, "cat", "table"},
  {function() local _ = tide.cat({tide.ones()}) end, "cat", "0-d"},
  {function() local _ = tide.stack({a, b}) end, "cat", "operand 2"},
  {function() local _ = tide.stack(a) end, "stack", "table"},
  {function() local _ = tide.stack({1}) end, "stack", "element 1", "number"},
  {function() local _ = a:split(0) end, "split", "0"},
  {function() local _ = a:split({1, 1}) end, "split", "add up to 2", "3"},
  {function() local _ = a:split({4, -1}) end, "split", "-1"},
  {function() local _ = a:split("a") end, "split", "a"},
  {function() local _ = a:chunk(0) end, "chunk", "0"},
  {function() local _ = a:narrow(1, 3, 2) end, "narrow", "dim 1", "3"},
  {function() local _ = a:narrow(1, 0, 1) end, "narrow", "start", "position"},
  {function() local _ = a:narrow(1, 1, -1) end, "narrow"},
  {function() local _ = a:narrow(1, 1, 2, 0) end, "narrow", "step"},
  {function() local _ = a:narrow(1, 1) end, "narrow", "length is missing", "signature"},
  {function() local _ = a:narrow_grad(1, 0, 9e15, 3) end, "narrow_grad", "size 3"},
  {function() local _ = a:narrow_grad(1, 0, 1, -1) end, "narrow_grad", "-1"},
  {function() local _ = a:select(1, 4) end, "select", "4", "size 3"},
  {function() local _ = a:select(3, 1) end, "select", "dim 3"},
  {function() local _ = a:flatten(3) end, "flatten", "dim 3"},
  {function() local _ = a:tile(2) end, "tile", "1 counts"},
  {function() local _ = a:tile(1.5, 1) end, "tile", "1.5"},
  {function() local _ = a:pad(1) end, "pad", "table"},
  {function() local _ = a:pad({[3] = 1}) end, "pad", "dim 3"},
  {function() local _ = a:pad({[1] = {-1, 0}}) end, "narrow_grad"},
  {function() local _ = a:diag():diag():diag():unsqueeze(1):unsqueeze(1):unsqueeze(1):diag() end, "diag",
    "dims"},
  {function() local _ = v:tril() end, "tril", "two dims"},
  {function() local _ = tide.meshgrid(1) end, "meshgrid", "number"},
  {function() local _ = tide.flip(3) end, "flip", "number"},
  {function() local _ = tide.flatten("x") end, "flatten", "string"},

  -- dims
  {function() local _ = a:sum(3) end, "sum", "dim 3", "(3×4)"},
  {function() local _ = a:sum(0) end, "sum", "dim 0"},
  {function() local _ = a:sum({1, 1}) end, "sum", "dim 1", "twice"},
  {function() local _ = a:sum({1, -2}) end, "sum", "twice"},
  {function() local _ = a:sum("1") end, "sum", "\"1\"", "dim"},
  {function() local _ = a:sum(1, 1) end, "sum", "keepdim", "true or false"},
  {function() local _ = a:sum(1, true, 3) end, "sum", "argument 4", "no more"},
  {function() local _ = a:sum({dim = 1}) end, "sum", "\"dim\"", "\"dims\""},
  {function() local _ = a:mean(3) end, "mean", "dim 3"},
  {function() local _ = a:mean({dim = 1}) end, "mean", "dim"},
  {function() local _ = a:var(3) end, "var", "dim 3"},
  {function() local _ = a:softmax(3) end, "softmax", "dim 3"},
  {function() local _ = tide.ones():softmax() end, "softmax", "0-d"},
  {function() local _ = tide.ones():cumsum(1) end, "cumsum", "dim 1"},
  {function() local _ = a:cumsum() end, "cumsum", "dim"},
  {function() local _ = tide.zeros(0, 3):max(1) end, "max", "dim 1 is empty"},
  {function() local _ = tide.zeros(0):argmin() end, "min", "empty"},
  {function() local _ = a:topk(5) end, "topk", "5", "4"},
  {function() local _ = a:topk(1, 3) end, "topk", "dim 3"},
  {function() local _ = a:size(3) end, "size", "3"},
  {function() local _ = #tide.ones() end, "#", "0-d"},

  -- element types
  {function() local _ = i64:softmax() end, "softmax", "int64", "float32"},
  {function() local _ = i64:norm() end, "norm", "int64"},
  {function() local _ = u8:sort() end, "sort", "uint8"},
  {function() local _ = u8:cumsum(1) end, "cumsum", "uint8"},
  {function() local _ = a:to("float16") end, "to", "float16", "float32"},
  {function() local _ = a:to() end, "to", "dtype is missing"},
  {function() local _ = tide.zeros(2, "float") end, "zeros", "\"float\"", "float32"},
  {function() local _ = tide.zeros(2, {type = "float32"}) end, "zeros", "type", "dtype"},
  {function() local _ = tide.rand(2, "int64") end, "rand", "int64"},
  {function() local _ = a:gather(tide.ones(3, 1), 2) end, "gather", "float32", "int64"},
  {function() local _ = a:masked_select(a) end, "masked_select", "float32", "uint8"},
  {function() local _ = a:masked_select(3) end, "masked_select", "number"},

  -- indices
  {function() local _ = a:index_select(tide.tensor({4}, "int64")) end, "index_select", "4", "1..3"},
  {function() local _ = a:index_select(tide.tensor({0}, "int64")) end, "index_select", "0", "1..3"},
  {function() local _ = a:index_select(tide.tensor({{1}}, "int64")) end, "index_select", "(1×1)", "one dim"},
  {function() local _ = a:index_select(1) end, "index_select", "index"},
  {function() local _ = a:gather(tide.tensor({{5}, {1}, {1}}, "int64"), 2) end, "gather", "5", "1..4"},
  {function() local _ = a:gather(tide.tensor({1}, "int64"), 2) end, "gather", "(1)", "(3×4)"},
  {function() local _ = v:scatter_add(i64, 1, 0) end, "scatter_add", "1"},
  {function() local _ = v:scatter_add(i64, 1, -5) end, "scatter_add", "size", "-5"},
  {function() local _ = v:scatter_add(tide.ones(2, "int64"), 1, 3) end, "scatter_add", "(3)", "(2)"},
  {function() local _ = v:index_add(i64, 1, -1) end, "index_add", "size", "-1"},
  {function() local _ = v:index_add(tide.ones(2, "int64"), 1, 5) end, "index_add", "(2)", "3"},

  -- images
  {function() local _ = a:conv2d(weight) end, "conv2d", "(3×4)", "N×H×W×C"},
  {function() local _ = image:conv2d(a) end, "conv2d", "operand 2"},
  {function() local _ = image:conv2d(tide.ones(3, 3, 3, 5)) end, "conv2d", "(3×3×3×5)", "2 channels"},
  {function() local _ = image:conv2d(weight, {groups = 3}) end, "conv2d", "3 groups"},
  {function() local _ = image:conv2d(weight, {groups = 0}) end, "conv2d", "groups 0"},
  {function() local _ = image:conv2d(weight, {stride = 0}) end, "conv2d", "stride 0"},
  {function() local _ = image:conv2d(weight, {padding = -1}) end, "conv2d", "padding -1"},
  {function() local _ = image:conv2d(weight, {dilation = 1e15}) end, "conv2d", "dilation"},
  {function() local _ = image:conv2d(weight, {stride = {1, 2, 3}}) end, "conv2d", "stride", "2 numbers"},
  {function() local _ = image:conv2d(weight, {stride = "2"}) end, "conv2d", "stride", "\"2\"",
    "one number or two"},
  {function() local _ = image:conv2d(weight, {strides = 2}) end, "conv2d", "\"strides\"", "\"stride\""},
  {function() local _ = image:conv2d(weight, v) end, "conv2d", "bias", "(3)", "5"},
  {function() local _ = image:conv2d(tide.ones(5, 5, 2, 1)) end, "conv2d", "window of 5", "4"},
  {function() local _ = image:conv2d(weight:double()) end, "conv2d", "float64", "float32"},
  {function() local _ = image:conv2d_fused(weight, v, {parts = 6}) end, "conv2d_fused", "parts 6", "1 operands"},
  {function() local _ = image:conv2d_fused(weight, image, {parts = 4}) end, "conv2d_fused", "add", "(1×4×4×2)"},
  {function() local _ = image:conv2d_fused(weight, {activation = 9}) end, "conv2d_fused", "activation is 9",
    "relu"},
  {function() local _ = image:conv2d_input_grad(weight, {height = -1, width = 1}) end, "conv2d_input_grad",
    "-1"},
  {function() local _ = image:conv2d_weight_grad(image, {kernel_height = 9, kernel_width = 1}) end,
    "conv2d_weight_grad", "window of 9"},
  {function() local _ = image:conv2d_input_grad(weight, {height = 9}) end, "conv2d_input_grad",
    "width is missing"},
  {function() local _ = image:max_pool2d(0) end, "max_pool2d", "kernel 0"},
  {function() local _ = image:max_pool2d(5) end, "max_pool2d", "window of 5"},
  {function() local _ = image:avg_pool2d(2, {padding = 2}) end, "avg_pool2d", "padding 2"},
  {function() local _ = image:max_pool2d() end, "max_pool2d", "kernel is missing"},
  {function() local _ = image:max_pool2d_gather(image, 2) end, "max_pool2d_gather", "float32"},
  {function() local _ = image:max_pool2d_gather(tide.full({1, 2, 2, 2}, 16, "int64"), 2) end,
    "max_pool2d_gather", "16"},
  {function() local _ = image:max_pool2d_gather(tide.full({1, 2, 2, 2}, -1, "int64"), 2) end,
    "max_pool2d_gather", "-1"},
  {function() local _ = image:max_pool2d_grad(tide.ones(1, 1, 1, 2, "int64"), 2, {height = 8, width = 8}) end,
    "max_pool2d_grad", "(1×1×1×2)"},
  {function() local _ = image:max_pool2d_grad(tide.ones(1, 4, 4, 2, "int64"), 2, {height = 80,
    width = 8}) end,
    "max_pool2d_grad", "expected (1×40×4×2)"},
  {function() local _ = image:avg_pool2d_grad(2, {height = -8, width = 8}) end, "avg_pool2d_grad", "-8"},
  {function() local _ = image:adaptive_avg_pool2d(0) end, "adaptive_avg_pool2d", "positive"},
  {function() local _ = image:upsample_nearest({1, 2, 3}) end, "upsample_nearest", "2 numbers"},
  {function() local _ = image:upsample_bilinear(-1) end, "upsample_bilinear", "positive"},
  {function() local _ = image:upsample_bilinear_grad(3, {height = 2, width = 2}) end,
    "upsample_bilinear_grad", "3×3"},
  {function() local _ = a:group_norm({groups = 3}) end, "group_norm", "3 groups", "4 channels"},
  {function() local _ = a:group_norm({groups = 0}) end, "group_norm", "0 groups"},
  {function() local _ = a:group_norm() end, "group_norm", "groups is missing"},
  {function() local _ = a:group_norm(v, v, {groups = 1}) end, "group_norm", "gamma", "(3)", "4"},
  {function() local _ = a:group_norm(tide.ones(4), {groups = 1}) end, "group_norm", "gamma without beta"},
  {function() local _ = a:group_norm_grad(a, v, v, {groups = 2}) end, "group_norm_grad", "operand 3", "6"},
  {function() local _ = tide.ones():group_norm_grad(tide.ones(), v, v, {groups = 1}) end, "group_norm_grad",
    "N×…×C"},
  {function() local _ = a:channel_norm_grad(a, v, v) end, "channel_norm_grad", "operand 3", "4"},
  {function() local _ = v:channel_norm() end, "channel_norm", "(3)"},
  {function() local _ = tide.zeros(0, 3):channel_norm() end, "channel_norm", "empty"},
  {function() local _ = tide.lincomb({v, v}) end, "lincomb"},
  {function() local _ = tide.lincomb({tide.ones(2, "float64"), v, a}) end, "lincomb", "(3×4)", "(3)"},

  -- kinds of argument
  {function() local _ = a + "1" end, "add", "\"1\"", "tensor or a number"},
  {function() local _ = a + nil end, "add", "nothing"},
  {function() local _ = {} - a end, "sub", "a table"},
  {function() local _ = tide.exp() end, "exp", "x is nothing"},
  {function() local _ = tide.exp("x") end, "exp", "\"x\""},
  {function() local _ = a:exp(1) end, "exp", "argument 2", "no more"},
  {function() local _ = a:add() end, "add", "b is nothing"},
  {function() local _ = a:add(1, 2) end, "add", "argument 3"},
  {function() local _ = a:clamp(0) end, "clamp", "hi is nothing"},
  {function() a:add_("x") end, "add", "\"x\""},
  {function() a.exp_(3) end, "exp", "self", "3"},
  {function() a:copy_("x") end, "copy_", "\"x\""},
  {function() a:copy_(b) end, "copy", "(5×6)", "(3×4)"},
  {function() a:fill_("x") end, "fill_", "\"x\""},
  {function() local _ = a:item() end, "item", "(3×4)", "12"},
  {function() local _ = tide.tensor("x") end, "tensor", "\"x\""},
  {function() local _ = tide.tensor() end, "tensor", "nothing"},
  {function() local _ = tide.tensor({{1, 2}, {3}}) end, "tensor", "ragged"},
  {function() local _ = tide.tensor({1, {2}}) end, "tensor", "element 2", "table"},
  {function() local _ = tide.tensor({{1}, 2}) end, "tensor", "ragged"},
  {function() local _ = tide.tensor({1, "2"}) end, "tensor", "element 2", "\"2\""},
  {function() local _ = tide.tensor({a}) end, "tensor", "element 1", "(3×4)"},
  {function() local _ = tide.tensor({{{{{{{{{1}}}}}}}}}) end, "tensor", "8"},
  {function() local _ = tide.zeros(-1) end, "zeros", "-1", "non-negative"},
  {function() local _ = tide.zeros(1.5) end, "zeros", "1.5"},
  {function() local _ = tide.zeros({1, "2"}) end, "zeros", "size 2", "\"2\""},
  {function() local _ = tide.zeros(1, 1, 1, 1, 1, 1, 1, 1, 1) end, "zeros", "8 dims"},
  {function() local _ = tide.full(2, 3) end, "full", "table"},
  {function() local _ = tide.full({2}) end, "full", "value", "nothing"},
  {function() local _ = tide.eye() end, "eye", "sizes"},
  {function() local _ = tide.arange() end, "arange"},
  {function() local _ = tide.arange(1, 5, 0) end, "arange", "no end"},
  {function() local _ = tide.arange(1, math.huge) end, "arange", "no end"},
  {function() local _ = tide.linspace(1) end, "linspace", "last", "nothing"},
  {function() local _ = tide.linspace(0, 1, 0) end, "linspace", "0", "positive"},
  {function() local _ = tide.frombytes("abc", {2}) end, "frombytes", "3 bytes", "(2)", "2"},
  {function() local _ = tide.frombytes(3, {2}) end, "frombytes", "3", "string"},
  {function() local _ = tide.einsum(3) end, "einsum", "number"},
  {function() local _ = tide.equal(a, 3) end, "equal", "number"},
  {function() local _ = tide.allclose(a, 3) end, "allclose", "number"},
  {function() local _ = tide.randint(3, 1, 2) end, "randint", "3 to 1"},
  {function() local _ = tide.randint(0, "1", 2) end, "randint", "high", "\"1\""},
  {function() local _ = tide.randperm(-1) end, "randperm", "-1"},
  {function() local _ = tide.randperm(0.5) end, "randperm", "0.5"},
  {function() local _ = tide.bernoulli(2, 3) end, "bernoulli", "2", "0 to 1"},
  {function() local _ = tide.randn("x") end, "randn", "\"x\""},
  {function() tide.manual_seed("x") end, "seed", "\"x\""},
  {function() local _ = tide.generator(0.5) end, "generator", "0.5"},
  {function() tide.generator(1).rand(3) end, "generator", "3"},
  {function() tide.threads(0) end, "threads", "0", "1 to 64"},
  {function() tide.threads("x") end, "threads", "\"x\""},
  {function() a.grad = a end, "grad", "leaf"},
  {function() local w = tide.ones(3):requires_grad(); w.grad = a end, "grad", "(3×4)", "(3)"},
  {function() local w = tide.ones(3):requires_grad(); w.grad = 1 end, "grad", "1"},
  {function() local w = tide.ones(3):requires_grad(); w.grad = v:double() end, "grad", "float64", "float32"},
  {function() a:shares_storage(3) end, "shares_storage", "3"},
  {function() a:register_hook() end, "register_hook", "nothing", "function"},
}

describe("a wrong call", function()
  it("fails at the caller's line, and says who wanted what and what came", function()
    local wrong = {}
    for i, c in ipairs(calls) do
      local info = debug.getinfo(c[1], "S")
      local where = ("call %d at line %d"):format(i, info.linedefined)
      local ok, message = pcall(c[1])
      message = ok and "nothing was raised" or tostring(message)
      local line = message:match("errors_spec%.lua:(%d+): ")
      if not line or tonumber(line) < info.linedefined or tonumber(line) > info.lastlinedefined then
        wrong[#wrong + 1] = ("%s: no position in: %s"):format(where, message)
      end
      for k = 2, #c do
        if not message:find(c[k], 1, true) then
          wrong[#wrong + 1] = ("%s: no %q in: %s"):format(where, c[k], message)
        end
      end
    end
    assert.are.equal("", table.concat(wrong, "\n"))
  end)

  it("leaves nothing behind", function()
    local function all() for _, c in ipairs(calls) do pcall(c[1]) end end
    all()
    local before = helper.live()
    for _ = 1, 5 do all() end
    assert.are.equal(before, helper.live())
  end)

  it("leaves everything usable", function()
    assert.is_true(tide.is_grad_enabled())
    assert.close(a, tide.ones(3, 4), 0)
    assert.close(a + 1, tide.full({3, 4}, 2), 0)
  end)
end)
