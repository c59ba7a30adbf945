-- Convolution, pooling and resizing of images N×H×W×C.

local array = require "spec.support.array"

local examples = {}

local function pair(v) return type(v) == "table" and v or {v, v} end

-- Calls visit(n, oy, ox, o, y, x, c, ky, kx, kc) for every product that a convolution sums.
local function each_tap(xs, ws, o, oh, ow, visit)
  local stride, pad, dilation = pair(o.stride or 1), pair(o.padding or 0), pair(o.dilation or 1)
  local groups = o.groups or 1
  local cg, og = xs[4] / groups, ws[4] / groups
  for at in array.indices {xs[1], oh, ow, ws[4], ws[1], ws[2], cg} do
    local n, oy, ox, oc, ky, kx, kc = unpack(at)
    local y = (oy - 1) * stride[1] - pad[1] + (ky - 1) * dilation[1] + 1
    local x = (ox - 1) * stride[2] - pad[2] + (kx - 1) * dilation[2] + 1
    if y >= 1 and y <= xs[2] and x >= 1 and x <= xs[3] then
      visit({n, y, x, math.floor((oc - 1) / og) * cg + kc}, {ky, kx, kc, oc}, {n, oy, ox, oc})
    end
  end
end

local function out_size(size, k, stride, pad, dilation)
  return math.floor((size + 2 * pad - dilation * (k - 1) - 1) / stride) + 1
end

local function conv_sizes(xs, ws, o)
  local s, p, d = pair(o.stride or 1), pair(o.padding or 0), pair(o.dilation or 1)
  return out_size(xs[2], ws[1], s[1], p[1], d[1]), out_size(xs[3], ws[2], s[2], p[2], d[2])
end

local function zeros(shape) return array.new(shape, function() return 0 end) end
local function add(a, at, v)
  local p = a:position(at)
  a.data[p] = a.data[p] + v
end

local function conv2d(x, w, b, o)
  if b and b.shape == nil then b, o = nil, b end
  o = o or {}
  local oh, ow = conv_sizes(x.shape, w.shape, o)
  local y = array.new({x.shape[1], oh, ow, w.shape[4]}, function(at) return b and b.data[at[4]] or 0 end)
  each_tap(x.shape, w.shape, o, oh, ow, function(ax, aw, ay) add(y, ay, x:at(ax) * w:at(aw)) end)
  return y
end
local function conv2d_input_grad(dy, w, o)
  local dx = zeros {dy.shape[1], o.height, o.width, w.shape[3] * (o.groups or 1)}
  each_tap(dx.shape, w.shape, o, dy.shape[2], dy.shape[3], function(ax, aw, ay) add(dx, ax,
    dy:at(ay) * w:at(aw)) end)
  return dx
end
local function conv2d_weight_grad(x, dy, o)
  local dw = zeros {o.kernel_height, o.kernel_width, x.shape[4] / (o.groups or 1), dy.shape[4]}
  each_tap(x.shape, dw.shape, o, dy.shape[2], dy.shape[3], function(ax, aw, ay) add(dw, aw,
    x:at(ax) * dy:at(ay)) end)
  return dw
end

-- {x's shape, w's shape, options, big = too large to differentiate numerically, bias = true, tol32}. Winograd's
-- filtering, which large 3×3 ones use, rounds relative to the largest elements of a tile (spec/conv_spec.lua).
local convolutions = {
  {{1, 3, 3, 1}, {1, 1, 1, 1}, {}},
  {{2, 4, 5, 3}, {3, 3, 3, 2}, {padding = 1}, bias = true},
  {{1, 5, 4, 2}, {3, 2, 2, 3}, {stride = 2, padding = 1}},
  {{1, 7, 6, 2}, {2, 3, 2, 2}, {dilation = 2, padding = {1, 2}, stride = {1, 2}}},
  {{1, 4, 4, 4}, {3, 3, 2, 6}, {groups = 2, padding = 1}, bias = true},
  {{1, 4, 5, 4}, {3, 3, 1, 4}, {groups = 4, padding = 1}},
  {{1, 5, 5, 3}, {3, 3, 1, 6}, {groups = 3, stride = 2}},
  {{0, 4, 4, 2}, {3, 3, 2, 2}, {}, big = true},
  {{2, 9, 11, 17}, {3, 3, 17, 19}, {padding = 1}, big = true, bias = true, tol32 = 1e-4},
  {{1, 12, 7, 16}, {3, 3, 16, 32}, {}, big = true, tol32 = 1e-4},
  {{3, 6, 6, 33}, {1, 1, 33, 5}, {}, big = true},
  {{1, 10, 10, 24}, {5, 5, 1, 24}, {groups = 24, padding = 2}, big = true},
  {{2, 7, 9, 35}, {3, 3, 35, 3}, {padding = 1}, big = true, bias = true},
  {{1, 6, 7, 32}, {3, 2, 32, 1}, {stride = {1, 2}, dilation = {2, 1}}, big = true},
  {{1, 9, 8, 3}, {5, 4, 3, 34}, {stride = {2, 3}, padding = 2}, big = true},
  {{2, 4, 14, 2}, {3, 3, 2, 40}, {dilation = {1, 2}, padding = 3}, big = true},
  {{2, 3, 5, 4}, {1, 1, 4, 33}, {stride = 2}, big = true},
  {{1, 7, 7, 16}, {3, 3, 16, 16}, {padding = {1, 3}}, big = true, tol32 = 1e-4},
}
examples.conv2d, examples.conv2d_input_grad, examples.conv2d_weight_grad = {}, {}, {}
for i, e in ipairs(convolutions) do
  local xs, ws, o = unpack(e)
  local oh, ow = conv_sizes(xs, ws, o)
  local ys = {xs[1], oh, ow, ws[4]}
  local function with(more)
    local all = {}
    for k, v in pairs(o) do all[k] = v end
    for k, v in pairs(more) do all[k] = v end
    return all
  end
  examples.conv2d[i] = {
    args = function(r)
      local list = {r.real(xs), r.real(ws)}
      if e.bias then list[3] = r.real({ws[4]}) end
      list[#list + 1] = next(o) and o or nil
      return list
    end, twin = conv2d, grad = not e.big, tol32 = e.tol32,
  }
  examples.conv2d_input_grad[i] = {
    args = function(r) return {r.real(ys), r.real(ws), with {height = xs[2], width = xs[3]}} end,
    twin = conv2d_input_grad, grad = not e.big, tol32 = e.tol32,
  }
  examples.conv2d_weight_grad[i] = {
    args = function(r) return {r.real(xs), r.real(ys), with {kernel_height = ws[1],
      kernel_width = ws[2]}} end,
    twin = conv2d_weight_grad, grad = not e.big, tol32 = e.tol32,
  }
end

-- ---- Convolution with an epilogue ----

local function erf(x)  -- by its series, or by the continued fraction of its tail
  if math.abs(x) < 3 then
    local term, sum = x, x
    for k = 1, 100 do
      term = -term * x * x / k
      sum = sum + term / (2 * k + 1)
    end
    return 2 / math.sqrt(math.pi) * sum
  end
  local a, f = math.abs(x), 0
  for k = 60, 1, -1 do f = k / 2 / (a + f) end
  local tail = math.exp(-a * a) / math.sqrt(math.pi) / (a + f)
  return x > 0 and 1 - tail or tail - 1
end
local function sigmoid(x) return 1 / (1 + math.exp(-x)) end
local activations = {
  [0] = function(x) return x end,
  function(x) return math.max(x, 0) end,
  function(x) return x * sigmoid(x) end,
  function(x) return x * 0.5 * (1 + erf(x / math.sqrt(2))) end,
  math.tanh,
  sigmoid,
}

-- The operands after x and w are those of `parts`, in the order bias, chan, add.
local function conv2d_fused(x, w, ...)
  local rest = {...}
  local o = rest[#rest]
  local parts, next_ = o.parts, 0
  local function take(bit)
    if parts % (2 * bit) < bit then return nil end
    next_ = next_ + 1
    return rest[next_]
  end
  local bias, chan, add_ = take(1), take(2), take(4)
  local y = conv2d(x, w, bias, o)
  return array.new(y.shape, function(at)
    local u = y:at(at)
    if chan then u = u + chan.data[(at[1] - 1) * y.shape[4] + at[4]] end
    if add_ then u = u + add_:at(at) end
    return activations[o.activation](u)
  end)
end

-- {x's shape, w's shape, parts, activation, options}
local fused = {
  {{1, 3, 3, 2}, {2, 2, 2, 2}, 7, 0, {padding = 1}},
  {{2, 2, 3, 1}, {2, 2, 1, 2}, 5, 1, {padding = 1}},
  {{1, 4, 4, 1}, {2, 2, 1, 2}, 6, 2, {stride = 2}},
  {{2, 2, 2, 1}, {2, 2, 1, 2}, 3, 3, {padding = 1}},
  {{1, 2, 2, 2}, {1, 1, 2, 2}, 4, 4, {}},
  {{2, 3, 2, 2}, {2, 2, 1, 2}, 7, 5, {groups = 2}},
  {{2, 2, 2, 4}, {2, 2, 2, 4}, 2, 4, {groups = 2}, wide = true},
  {{1, 2, 2, 2}, {2, 2, 2, 2}, 0, 2, {}},
  {{0, 3, 3, 2}, {2, 2, 2, 2}, 7, 1, {}, big = true},
  {{2, 7, 7, 17}, {3, 3, 17, 18}, 7, 1, {padding = 1}, big = true, tol32 = 1e-4},
  {{2, 3, 3, 16}, {3, 3, 16, 32}, 7, 2, {padding = 1}, big = true},
  {{3, 3, 3, 33}, {1, 1, 33, 18}, 5, 3, {}, big = true},
  {{2, 5, 5, 19}, {3, 3, 1, 19}, 7, 2, {padding = 1, groups = 19}, big = true},
  {{1, 7, 8, 16}, {3, 3, 16, 17}, 7, 4, {padding = 1}, big = true, tol32 = 1e-4},
  {{2, 5, 7, 40}, {3, 3, 40, 3}, 7, 5, {padding = 1, stride = 2}, big = true},
}
examples.conv2d_fused = {}
for i, e in ipairs(fused) do
  local xs, ws, parts, activation, o = unpack(e)
  local oh, ow = conv_sizes(xs, ws, o)
  local all = {parts = parts, activation = activation}
  for k, v in pairs(o) do all[k] = v end
  examples.conv2d_fused[i] = {
    args = function(r)
      local list = {r.real(xs), r.real(ws)}
      if parts % 2 >= 1 then list[#list + 1] = r.real {ws[4]} end
      if parts % 4 >= 2 then
        list[#list + 1] = r.real(e.wide and {xs[1], 1, 1, ws[4]} or {xs[1], ws[4]})
      end
      if parts >= 4 then list[#list + 1] = r.real {xs[1], oh, ow, ws[4]} end
      list[#list + 1] = all
      return list
    end, twin = conv2d_fused, grad = not e.big, tol32 = e.tol32,
  }
end

-- ---- Pooling ----

-- The window's elements that lie in the image, for each place of the result: visit(y's index, x's index).
local function each_window(xs, kernel, o, visit)
  local k = pair(kernel)
  local s, p = pair(o.stride or 0), pair(o.padding or 0)
  s = {s[1] > 0 and s[1] or k[1], s[2] > 0 and s[2] or k[2]}
  local oh, ow = out_size(xs[2], k[1], s[1], p[1], 1), out_size(xs[3], k[2], s[2], p[2], 1)
  for at in array.indices {xs[1], oh, ow, xs[4]} do
    local inside = {}
    for ky = 0, k[1] - 1 do
      for kx = 0, k[2] - 1 do
        local y, x = (at[2] - 1) * s[1] - p[1] + ky + 1, (at[3] - 1) * s[2] - p[2] + kx + 1
        if y >= 1 and y <= xs[2] and x >= 1 and x <= xs[3] then inside[#inside + 1] = {at[1], y, x, at[4]} end
      end
    end
    visit(at, inside)
  end
  return {xs[1], oh, ow, xs[4]}
end

local function max_pool2d(x, kernel, o)
  local values, places = {}, {}
  local shape = each_window(x.shape, kernel, o or {}, function(_, inside)
    local best
    for _, at in ipairs(inside) do
      if not best or x:at(at) > x:at(best) then best = at end
    end
    values[#values + 1] = x:at(best)
    places[#places + 1] = (best[2] - 1) * x.shape[3] + best[3] - 1
  end)
  return array.new(shape, values), array.new(shape, places)
end
local function at_place(x, n, place, c)
  return {n, math.floor(place / x.shape[3]) + 1, place % x.shape[3] + 1, c}
end
local function max_pool2d_gather(x, at)
  return array.new(at.shape, function(i) return x:at(at_place(x, i[1], at:at(i), i[4])) end)
end
local function max_pool2d_grad(dy, at, _, o)
  local dx = zeros {dy.shape[1], o.height, o.width, dy.shape[4]}
  for i in array.indices(dy.shape) do add(dx, at_place(dx, i[1], at:at(i), i[4]), dy:at(i)) end
  return dx
end
local function avg_pool2d(x, kernel, o)
  local values = {}
  local shape = each_window(x.shape, kernel, o or {}, function(_, inside)
    local sum = 0
    for _, at in ipairs(inside) do sum = sum + x:at(at) end
    values[#values + 1] = sum / #inside
  end)
  return array.new(shape, values)
end
local function avg_pool2d_grad(dy, kernel, o)
  local dx = zeros {dy.shape[1], o.height, o.width, dy.shape[4]}
  each_window(dx.shape, kernel, o, function(at, inside)
    for _, place in ipairs(inside) do add(dx, place, dy:at(at) / #inside) end
  end)
  return dx
end

local pools = {
  {{2, 4, 4, 3}, 2}, {{1, 5, 7, 2}, {3, 2}, {stride = 2, padding = 1}}, {{1, 5, 5, 1}, 3, {stride = 1}},
  {{2, 9, 8, 17}, 2, {stride = {2, 1}}, big = true}, {{0, 4, 4, 2}, 2, big = true},
}
for _, name in ipairs {"max_pool2d", "max_pool2d_grad", "max_pool2d_gather", "avg_pool2d",
  "avg_pool2d_grad"} do
  examples[name] = {}
end
local tide = require "tide"
for i, e in ipairs(pools) do
  local xs, kernel, o = unpack(e)
  local function with(more)
    local all = {}
    for k, v in pairs(o or {}) do all[k] = v end
    for k, v in pairs(more) do all[k] = v end
    return all
  end
  local function pooled(r)
    local x = r.distinct(xs)
    local y, at = tide.max_pool2d(x, kernel, o)
    return x, y, at
  end
  local size = with {height = xs[2], width = xs[3]}
  examples.max_pool2d[i] = {args = function(r) return {r.distinct(xs), kernel, o} end, twin = max_pool2d,
    grad = not e.big}
  examples.max_pool2d_gather[i] = {
    args = function(r)
      local x, _, at = pooled(r)
      return {x, at, kernel, o}
    end, twin = max_pool2d_gather, grad = not e.big}
  examples.max_pool2d_grad[i] = {
    args = function(r)
      local _, y, at = pooled(r)
      return {y, at, kernel, size}
    end, twin = max_pool2d_grad, grad = not e.big}
  examples.avg_pool2d[i] = {args = function(r) return {r.real(xs), kernel, o} end, twin = avg_pool2d,
    grad = not e.big}
  examples.avg_pool2d_grad[i] = {
    args = function(r) return {tide.zeros(tide.avg_pool2d(r.real(xs), kernel, o).shape, r.dtype)
      + r.real({}), kernel, size} end,
    twin = avg_pool2d_grad, grad = not e.big}
end

-- ---- Resizing: the weight of input position i (1..n) in output position o (1..m) ----

local function adaptive_weight(o, m, i, n)
  local first, last = math.floor((o - 1) * n / m), math.ceil(o * n / m)
  return i - 1 >= first and i - 1 < last and 1 / (last - first) or 0
end
local function nearest_weight(o, m, i, n)
  return math.min(math.floor((o - 1) * n / m), n - 1) == i - 1 and 1 or 0
end
local function bilinear_weight(o, m, i, n)
  local s = math.max((o - 0.5) * n / m - 0.5, 0)
  local low = math.min(math.floor(s), n - 1)
  local high, part = math.min(low + 1, n - 1), s - low
  return (low == i - 1 and 1 - part or 0) + (high == i - 1 and part or 0)
end
local function resize(weight)
  local function forward(x, size)
    local m = pair(size)
    return array.new({x.shape[1], m[1], m[2], x.shape[4]}, function(at)
      local sum = 0
      for i = 1, x.shape[2] do
        for k = 1, x.shape[3] do
          local w = weight(at[2], m[1], i, x.shape[2]) * weight(at[3], m[2], k, x.shape[3])
          if w ~= 0 then sum = sum + w * x:at {at[1], i, k, at[4]} end
        end
      end
      return sum
    end)
  end
  local function back(dy, size, o)
    local m = pair(size)
    return array.new({dy.shape[1], o.height, o.width, dy.shape[4]}, function(at)
      local sum = 0
      for i = 1, m[1] do
        for k = 1, m[2] do
          local w = weight(i, m[1], at[2], o.height) * weight(k, m[2], at[3], o.width)
          if w ~= 0 then sum = sum + w * dy:at {at[1], i, k, at[4]} end
        end
      end
      return sum
    end)
  end
  return forward, back
end
local sizes = {{{1, 4, 4, 2}, 2}, {{2, 5, 3, 1}, {3, 2}}, {{1, 2, 3, 2}, {5, 7}}, {{1, 3, 3, 17}, {4, 1},
  big = true},
  {{1, 1, 1, 3}, 3}, {{1, 4, 3, 2}, {8, 6}}}
local function add_resize(name, weight, only_down)
  local forward, back = resize(weight)
  examples[name], examples[name .. "_grad"] = {}, {}
  for _, e in ipairs(sizes) do
    local xs, size = unpack(e)
    local m = pair(size)
    if not only_down or m[1] <= xs[2] and m[2] <= xs[3] then
      table.insert(examples[name], {args = function(r) return {r.real(xs), size} end, twin = forward,
        grad = not e.big})
      table.insert(examples[name .. "_grad"], {
        args = function(r) return {r.real({xs[1], m[1], m[2], xs[4]}), size, {height = xs[2],
          width = xs[3]}} end,
        twin = back, grad = not e.big})
    end
  end
end
add_resize("adaptive_avg_pool2d", adaptive_weight)
add_resize("upsample_nearest", nearest_weight)
add_resize("upsample_bilinear", bilinear_weight)

return examples
