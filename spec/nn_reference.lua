-- The layers of tide.nn once more, slow and obvious, over nested Lua tables.

local M = {}

-- ---- Nested tables ----

--- A nested table of the sizes given, of f(i, j, …).
function M.build(f, n, ...)
  local out, rest = {}, {...}
  for i = 1, n do
    if #rest == 0 then out[i] = f(i)
    else out[i] = M.build(function(...) return f(i, ...) end, ...) end
  end
  return out
end

-- The sum of f(i, j, …) over {first, last} ranges.
local function sum_over(ranges, f)
  local total = 0
  local function loop(k, ...)
    if k > #ranges then
      total = total + f(...)
      return
    end
    for i = ranges[k][1], ranges[k][2] do
      local args = {...}
      args[#args + 1] = i
      loop(k + 1, unpack(args))
    end
  end
  loop(1)
  return total
end

-- ---- Layers; images are [n][h][w][c] ----

--- Convolution; w[kh][kw][c/groups][o].
function M.conv2d(x, w, bias, stride, pad, dilation, groups)
  local H, W, KH, KW, CG, O = #x[1], #x[1][1], #w, #w[1], #w[1][1], #w[1][1][1]
  local function count(size, k, d)
    return math.floor((size + 2 * pad[d] - dilation[d] * (k - 1) - 1) / stride[d]) + 1
  end
  return M.build(function(n, i, j, o)
    local first = math.floor((o - 1) / (O / groups)) * CG
    return (bias and bias[o] or 0) + sum_over({{1, KH}, {1, KW}, {1, CG}}, function(a, b, c)
      local r = (i - 1) * stride[1] - pad[1] + (a - 1) * dilation[1] + 1
      local s = (j - 1) * stride[2] - pad[2] + (b - 1) * dilation[2] + 1
      if r < 1 or r > H or s < 1 or s > W then return 0 end
      return x[n][r][s][first + c] * w[a][b][c][o]
    end)
  end, #x, count(H, KH, 1), count(W, KW, 2), O)
end

--- Transposed convolution: every input pixel spreads over its window; w[kh][kw][outputs/groups][inputs].
function M.conv_transpose2d(x, w, bias, stride, pad, dilation, groups, extra)
  local KH, KW, OG, I = #w, #w[1], #w[1][1], #w[1][1][1]
  local function size(n, k, d)
    return (n - 1) * stride[d] - 2 * pad[d] + dilation[d] * (k - 1) + extra[d] + 1
  end
  local OH, OW = size(#x[1], KH, 1), size(#x[1][1], KW, 2)
  local y = M.build(function(_, _, _, o) return bias and bias[o] or 0 end, #x, OH, OW, OG * groups)
  for n = 1, #x do
    for i = 1, #x[n] do
      for j = 1, #x[n][i] do
        for a = 1, KH do
          for b = 1, KW do
            local r = (i - 1) * stride[1] - pad[1] + (a - 1) * dilation[1] + 1
            local s = (j - 1) * stride[2] - pad[2] + (b - 1) * dilation[2] + 1
            if r >= 1 and r <= OH and s >= 1 and s <= OW then
              for c = 1, I do
                local first = math.floor((c - 1) / (I / groups)) * OG
                for o = 1, OG do
                  y[n][r][s][first + o] = y[n][r][s][first + o] + x[n][i][j][c] * w[a][b][o][c]
                end
              end
            end
          end
        end
      end
    end
  end
  return y
end

--- Mean and biased variance of a list.
local function mean_and_variance(values)
  local mean, var = 0, 0
  for _, v in ipairs(values) do mean = mean + v / #values end
  for _, v in ipairs(values) do var = var + (v - mean) ^ 2 / #values end
  return mean, var
end
M.mean_and_variance = mean_and_variance

--- Group norm of [n][h][w][c].
function M.group_norm(x, groups, gamma, beta, eps)
  local C = #x[1][1][1]
  local per = C / groups
  return M.build(function(n, i, j, c)
    local g, values = math.floor((c - 1) / per), {}
    for _, row in ipairs(x[n]) do
      for _, pixel in ipairs(row) do
        for k = g * per + 1, (g + 1) * per do values[#values + 1] = pixel[k] end
      end
    end
    local mean, var = mean_and_variance(values)
    return (x[n][i][j][c] - mean) / math.sqrt(var + eps) * gamma[c] + beta[c]
  end, #x, #x[1], #x[1][1], C)
end

--- All values of channel c of [n][h][w][c].
function M.channel(x, c)
  local values = {}
  for _, image in ipairs(x) do
    for _, row in ipairs(image) do
      for _, pixel in ipairs(row) do values[#values + 1] = pixel[c] end
    end
  end
  return values
end

--- Windows of a pooling layer reduced by f(values).
function M.pool(x, kernel, stride, pad, f)
  local H, W = #x[1], #x[1][1]
  local function count(size, d) return math.floor((size + 2 * pad[d] - kernel[d]) / stride[d]) + 1 end
  return M.build(function(n, i, j, c)
    local values = {}
    for a = 1, kernel[1] do
      for b = 1, kernel[2] do
        local r, s = (i - 1) * stride[1] - pad[1] + a, (j - 1) * stride[2] - pad[2] + b
        if r >= 1 and r <= H and s >= 1 and s <= W then values[#values + 1] = x[n][r][s][c] end
      end
    end
    return f(values)
  end, #x, count(H, 1), count(W, 2), #x[1][1][1])
end

function M.mean(values)
  local total = 0
  for _, v in ipairs(values) do total = total + v end
  return total / #values
end

--- Means over the windows [floor(i·H/OH), ceil((i + 1)·H/OH)).
function M.adaptive_avg_pool2d(x, size)
  local H, W = #x[1], #x[1][1]
  return M.build(function(n, i, j, c)
    local values = {}
    for r = math.floor((i - 1) * H / size[1]) + 1, math.ceil(i * H / size[1]) do
      for s = math.floor((j - 1) * W / size[2]) + 1, math.ceil(j * W / size[2]) do
        values[#values + 1] = x[n][r][s][c]
      end
    end
    return M.mean(values)
  end, #x, size[1], size[2], #x[1][1][1])
end

function M.upsample_nearest(x, size)
  local H, W = #x[1], #x[1][1]
  return M.build(function(n, i, j, c)
    return x[n][math.floor((i - 1) * H / size[1]) + 1][math.floor((j - 1) * W / size[2]) + 1][c]
  end, #x, size[1], size[2], #x[1][1][1])
end

--- Linear between pixel centres, the edge continued.
function M.upsample_bilinear(x, size)
  local function taps(i, n, m)
    local at = math.max(0, (i - 0.5) * n / m - 0.5)
    local low = math.min(math.floor(at), n - 1)
    return low + 1, math.min(low + 1, n - 1) + 1, at - low
  end
  return M.build(function(n, i, j, c)
    local r0, r1, u = taps(i, #x[1], size[1])
    local s0, s1, v = taps(j, #x[1][1], size[2])
    return (x[n][r0][s0][c] * (1 - v) + x[n][r0][s1][c] * v) * (1 - u)
      + (x[n][r1][s0][c] * (1 - v) + x[n][r1][s1][c] * v) * u
  end, #x, size[1], size[2], #x[1][1][1])
end

--- x·w + b for a matrix x and w[in][out].
function M.linear(x, w, b)
  return M.build(function(i, o)
    local total = b and b[o] or 0
    for k = 1, #w do total = total + x[i][k] * w[k][o] end
    return total
  end, #x, #w[1])
end

function M.softmax(row)
  local top, total, out = -math.huge, 0, {}
  for _, v in ipairs(row) do top = math.max(top, v) end
  for i, v in ipairs(row) do out[i] = math.exp(v - top) end
  for _, v in ipairs(out) do total = total + v end
  for i, v in ipairs(out) do out[i] = v / total end
  return out
end

--- Attention of one sequence q[l][d] over k[s][d], v[s][e]; allowed(i, j) leaves pairs out, bias(i, j) is
--- added.
function M.attention(q, k, v, allowed, bias)
  return M.build(function(i, e)
    local scores = {}
    for j = 1, #k do
      local dot = 0
      for d = 1, #q[i] do dot = dot + q[i][d] * k[j][d] end
      scores[j] = dot / math.sqrt(#q[i]) + (bias and bias(i, j) or 0)
      if allowed and not allowed(i, j) then scores[j] = -math.huge end
    end
    local total = 0
    for j, p in ipairs(M.softmax(scores)) do
      if p > 0 then total = total + p * v[j][e] end
    end
    return total
  end, #q, #v[1])
end

--- Multi-head attention of one batch element, with the layer's own weights as nested tables.
function M.multihead(x, context, w, heads, allowed)
  local q, kv = M.linear(x, w.query_weight, w.query_bias),
    M.linear(context, w.key_value_weight, w.key_value_bias)
  local channels = #q[1]
  local width = channels / heads
  local joined = M.build(function() return 0 end, #x, channels)
  for h = 0, heads - 1 do
    local function part(rows, from)
      return M.build(function(i, d) return rows[i][from + h * width + d] end, #rows, width)
    end
    local y = M.attention(part(q, 0), part(kv, 0), part(kv, channels), allowed)
    for i = 1, #x do
      for d = 1, width do joined[i][h * width + d] = y[i][d] end
    end
  end
  return M.linear(joined, w.out_weight, w.out_bias)
end

return M
