-- Run by spec/kernels_spec.lua in processes of their own: computes much with the instruction set of TIDE_ISA
-- and the numbers of threads given, and writes to a file name, element type, shape and bytes of each result.

local tide = require "tide"

local cases = {}
local function case(name, f) cases[#cases + 1] = {name, f} end

local g = tide.generator(4)
for _, dtype in ipairs {"float32", "float64"} do
  local function randn(...) return g:randn({...}, dtype) end
  local x, y = randn(300, 1001), randn(300, 1001)
  local function named(name) return name .. " " .. dtype end
  for _, op in ipairs {"exp", "log1p", "tanh", "sigmoid", "gelu", "silu", "erf", "sin", "cos", "softplus",
    "rsqrt"} do
    local input = (op == "log1p" or op == "rsqrt") and x:abs() + 0.1 or x
    case(named(op), function() return input[op](input) end)
  end
  case(named "pow", function() return x:abs() ^ y end)
  case(named "fma of a transposed view", function() return tide.fma(x:t(), y:t(), 0.5) end)
  case(named "broadcast", function() return x * y[1] + y:narrow(2, 1, 1) end)
  case(named "copy", function() return x:t():contiguous() end)
  case(named "sum", function() return x:sum() end)
  case(named "sum 1", function() return x:sum(1) end)
  case(named "sum 2", function() return x:sum(2) end)
  case(named "mean of many", function() return randn(3, 200000):mean(2) end)
  case(named "norm", function() return x:norm(2) end)
  case(named "logsumexp", function() return x:logsumexp(1) end)
  case(named "max", function() return x:max(1) end)
  case(named "min", function() return x:min(2) end)
  case(named "argmax", function() return x:argmax() end)
  case(named "cumsum", function() return x:cumsum(2) end)
  case(named "cumsum 1", function() return x:cumsum(1, true) end)
  case(named "sort", function() return x:sort(1) end)
  case(named "softmax", function() return x:softmax() end)
  case(named "log_softmax 1", function() return x:log_softmax(1) end)
  case(named "prod", function() return (x / 30 + 1):prod(2) end)
  case(named "matmul", function() return x:matmul(y:t()) end)
  case(named "matmul odd", function() return randn(131, 77):matmul(randn(77, 53)) end)
  case(named "matmul small batch", function() return randn(64, 9, 7):matmul(randn(64, 7, 5)) end)
  case(named "matvec", function() return x:matmul(y[1]) end)
  local images, weight = randn(4, 28, 28, 32), randn(3, 3, 32, 48) / 10
  case(named "conv2d", function() return images:conv2d(weight, {padding = 1}) end)
  case(named "conv2d strided", function() return images:conv2d(weight, {stride = 2}) end)
  case(named "conv2d 1x1", function() return images:conv2d(weight[{{1}, {1}}]) end)
  case(named "conv2d depthwise", function() return images:conv2d(randn(3, 3, 1, 32), {groups = 32,
    padding = 1}) end)
  case(named "conv2d dilated in groups", function()
    return images:conv2d(randn(3, 3, 16, 32), {groups = 2, dilation = 2})
  end)
  local dy = randn(4, 28, 28, 48)
  case(named "conv2d to few channels", function() return images:conv2d(randn(3, 3, 32, 3), {padding = 1}) end)
  case(named "conv2d_input_grad of few channels", function()
    return dy:conv2d_input_grad(randn(3, 3, 2, 48), {padding = 1, height = 28, width = 28})
  end)
  case(named "conv2d_fused", function()
    return images:conv2d_fused(weight, randn(48), randn(4, 48), dy, {padding = 1, activation = 2})
  end)
  case(named "conv2d_input_grad", function()
    return dy:conv2d_input_grad(weight, {padding = 1, height = 28, width = 28})
  end)
  case(named "conv2d_weight_grad", function()
    return images:conv2d_weight_grad(dy, {padding = 1, kernel_height = 3, kernel_width = 3})
  end)
  local function rounded(f)
    return function()
      tide.precision "bfloat16"
      local result = f()
      tide.precision "fast"
      return result
    end
  end
  case(named "bfloat16 conv2d", rounded(function() return images:conv2d(weight, {padding = 1}) end))
  case(named "bfloat16 conv2d_weight_grad", rounded(function()
    return images:conv2d_weight_grad(dy, {padding = 1, kernel_height = 3, kernel_width = 3})
  end))
  case(named "bfloat16 matmul", rounded(function() return x:matmul(y:t()) end))
  case(named "matmul of long sums", function() return randn(70, 1500):t():matmul(randn(70, 130)) end)
  case(named "max_pool2d", function() return images:max_pool2d(2) end)
  case(named "avg_pool2d", function() return images:avg_pool2d(3, {stride = 2, padding = 1}) end)
  case(named "upsample_bilinear", function() return images:upsample_bilinear({40, 50}) end)
  case(named "group_norm", function() return images:group_norm({groups = 4}) end)
  case(named "layer norm", function() return x:group_norm({groups = 1, rows = true}) end)
  case(named "channel_norm", function() return images:channel_norm() end)
  for act = 1, 5 do
    case(named("norms with activation " .. act), function()
      local u, r = images:detach():requires_grad(), x:detach():requires_grad()
      local gamma, beta = tide.ones(32, dtype):requires_grad(), tide.zeros(32, dtype):requires_grad()
      local v = u:group_norm_act(gamma, beta, images, {groups = 8, activation = act})
        + u:channel_norm_act(gamma, beta, {activation = act})
      local z = r:group_norm_act(x * 2, {groups = 1, rows = true, activation = act})
      ;(v:tanh():sum() + z:tanh():sum()):backward()
      return tide.cat({v:flatten(), z:flatten(), u.grad:flatten(), r.grad:flatten(), gamma.grad, beta.grad})
    end)
  end
  case(named "attention", function()
    local q, k, v = randn(2, 300, 2, 17):requires_grad(), randn(2, 140, 2, 17), randn(2, 140, 2, 33)
    local all = tide.attention(q, k:requires_grad(), v:requires_grad(), {causal = true})
    local one = tide.attention(q:narrow(1, 1, 1):narrow(3, 1, 1), k:narrow(1, 1, 1):narrow(3, 1, 1),
      v:narrow(1, 1, 1):narrow(3, 1, 1))
    ;(all:tanh():sum() + one:tanh():sum()):backward()
    return tide.cat({all:flatten(), one:flatten(), q.grad:flatten(), k.grad:flatten(), v.grad:flatten()})
  end)
  case(named "gradients of norms", function()
    local u = images:detach():requires_grad()
    local gamma, beta = tide.ones(32, dtype):requires_grad(), tide.zeros(32, dtype):requires_grad()
    ;((u:group_norm(gamma, beta, {groups = 8})) + (u:channel_norm(gamma, beta))):tanh():sum():backward()
    return tide.cat({u.grad:flatten(), gamma.grad, beta.grad})
  end)
  case(named "randn", function() return tide.generator(1):randn(100001, dtype) end)
  case(named "rand", function() return tide.generator(1):rand(100001, dtype) end)
  case(named "gather", function() return x:index_select(tide.arange(300, 1, -3, "int64")) end)
  case(named "scatter", function() return x:index_add(tide.arange(300):long():mod(7) + 1, 1, 7) end)
  local a = randn(40, 40) + tide.eye(40, 40, dtype) * 12
  case(named "solve", function() return a:solve(randn(40, 6)) end)
  case(named "eigvalsh", function() return (a + a:t()):eigvalsh() end)
end

-- Each case starts from the same random state, however often it is run.
return function(file, threads)
  local f = assert(io.open(file, "wb"))
  for _, n in ipairs(threads) do
    tide.threads(n)
    for i, c in ipairs(cases) do
      g:seed(100 + i)
      local y = c[2]()
      f:write(("%d threads: %s\n%s\n%s\n"):format(n, c[1], y.dtype, table.concat(y.shape, " ")), y:tobytes())
    end
  end
  f:close()
  return tide.isa()
end
