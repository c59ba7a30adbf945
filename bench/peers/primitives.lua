-- Convolutions, products, element-wise functions and normalisations, one line each; rows as in primitives.py. What is
-- more than one operation runs captured, as it does in a training step.

package.path = (arg[0]:match "^(.*/)" or "./") .. "?.lua;" .. package.path
local side = require "side"
local tide = require "tide"

local o = side.options()

-- sin(0, 1, 2, …)·scale, row-major.
local function wave(shape, scale)
  local n = 1
  for _, s in ipairs(shape) do n = n * s end
  return (tide.arange(0, n - 1, 1, "float64"):sin() * (scale or 1)):float():reshape(shape)
end

local function row(name, f, flops)
  local got = f()
  local record = side.measure(f, o.repeats)
  record.sum = got:double():abs():sum():item()
  record.gflops = (flops or 0) / (o.threads == 1 and record.cpu or record.seconds) / 1e9
  side.report(name, record)
end

local function convolutions()
  for _, g in ipairs {{64, 28, 64, 64, 3}, {32, 16, 128, 128, 3}, {64, 28, 16, 16, 3}, {128, 14, 32, 32, 3},
    {1, 64, 320, 320, 3}, {32, 28, 64, 256, 1}} do
    local n, h, c, out, k = unpack(g)
    local x, dy, w = wave {n, h, h, c}, wave {n, h, h, out}, wave({k, k, c, out}, 0.1)
    local pad, flops = math.floor(k / 2), 2 * n * h * h * c * out * k * k
    local name = ("conv %d×%d %d→%d %d² B%d"):format(k, k, c, out, h, n)
    row(name .. " forward", function() return tide.conv2d(x, w, nil, 1, pad) end, flops)
    row(name .. " input gradient", function()
      return tide.conv2d_input_grad(dy, w, {padding = pad, height = h, width = h})
    end, flops)
    row(name .. " weight gradient", function()
      return tide.conv2d_weight_grad(x, dy, {padding = pad, kernel_height = k, kernel_width = k})
    end, flops)
  end
end

local function products()
  for _, s in ipairs {{512, 512, 512}, {1024, 1024, 1024}, {64, 8192, 576}, {128, 256, 1152}, {16, 784, 144},
    {64, 784, 144}, {50, 32, 50}} do
    local m, n, k = unpack(s)
    local a, b = wave {m, k}, wave {k, n}
    row(("product %d×%d×%d"):format(m, n, k), function() return a:matmul(b) end, 2 * m * n * k)
  end
end

local function elementwise()
  local x = wave({2 ^ 20}, 3)
  for _, name in ipairs {"relu", "exp", "tanh", "silu", "gelu"} do
    row(name .. ", 1M", function() return tide[name](x) end)
  end
end

local function normalisations()
  local x, dy = wave {64, 28, 28, 64}, wave {64, 28, 28, 64}
  local gamma, beta = tide.ones(64), tide.zeros(64)
  for _, act in ipairs {"relu", "silu"} do
    local function f(v, g, b) return tide[act]((tide.group_norm(v, g, b, 8))) end
    local forward = tide.capture(f)
    row(("group norm (8) + %s forward"):format(act), function() return tide.no_grad(forward, x, gamma, beta) end)
    local xg, g, b = x:clone():requires_grad(), gamma:clone():requires_grad(), beta:clone():requires_grad()
    local captured = tide.capture(f)
    row(("group norm (8) + %s forward and backward"):format(act), function()
      return tide.gradients(captured(xg, g, b), {xg, g, b}, {cotangents = {dy}})[1]
    end)
  end
end

convolutions()
products()
elementwise()
normalisations()
