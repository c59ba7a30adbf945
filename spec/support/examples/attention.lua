-- Attention and its fused derivative.

local array = require "spec.support.array"
local tide = require "tide"

local examples = {}

-- B×L×H×D and so on, element by element.
local function attention(q, k, v, mask, o)
  if mask and not mask.shape then mask, o = nil, mask end
  o = o or {}
  local b, l, h, d = unpack(q.shape)
  local s, e = k.shape[2], v.shape[4]
  local scale = o.scale and o.scale ~= 0 and o.scale or 1 / math.sqrt(d)
  local kept = {}
  local weights = {}  -- by "b,h,i": list over keys
  for bi = 1, b do
    for hi = 1, h do
      for i = 1, l do
        local row, top, sum = {}, -math.huge, 0
        for j = 1, s do
          local dot = 0
          for c = 1, d do dot = dot + q:at {bi, i, hi, c} * k:at {bi, j, hi, c} end
          row[j] = dot * scale
          if mask then row[j] = row[j] + mask:broadcast_at({bi, hi, i, j}, 4) end
          if o.causal and j > i then row[j] = -math.huge end
          top = math.max(top, row[j])
        end
        for j = 1, s do
          row[j] = math.exp(row[j] - top)
          sum = sum + row[j]
        end
        for j = 1, s do row[j] = row[j] / sum end
        weights[bi .. "," .. hi .. "," .. i] = row
        kept[#kept + 1] = top
        kept[#kept + 1] = s > 0 and 1 / sum or 0
      end
    end
  end
  local y = array.new({b, l, h, e}, function(at)
    local row, sum = weights[at[1] .. "," .. at[3] .. "," .. at[2]], 0
    for j = 1, s do sum = sum + row[j] * v:at {at[1], j, at[3], at[4]} end
    return sum
  end)
  return y, array.new({b, h, l, 2}, kept)
end

-- b, l, s, h, d, e, options, mask shape
local cases = {
  {1, 3, 3, 1, 4, 4}, {2, 2, 5, 3, 3, 2, {scale = 0.3}}, {1, 4, 4, 2, 1, 3, {causal = true}},
  {2, 3, 4, 2, 5, 1, nil, {1, 1, 3, 4}}, {2, 3, 2, 2, 2, 3, {causal = true}, {2, 1, 1, 2}},
  {1, 2, 3, 2, 2, 2, {scale = 2}, {1, 2, 2, 1}}, {1, 1, 1, 1, 1, 1},
  {1, 70, 67, 1, 9, 10, nil, nil, true}, {1, 65, 130, 2, 3, 5, {causal = true}, nil, true},
  {2, 130, 65, 1, 16, 17, {causal = true}, {1, 1, 130, 65}, true}, {1, 5, 0, 2, 3, 4, nil, nil, true},
}
local function operands(r, c)
  local args = {r.real {c[1], c[2], c[4], c[5]}, r.real {c[1], c[3], c[4], c[5]}, r.real {c[1], c[3], c[4], c[6]}}
  if c[8] then args[4] = r.real(c[8]) end
  return args
end

examples.attention, examples.attention_grad = {}, {}
for i, c in ipairs(cases) do
  examples.attention[i] = {
    args = function(r)
      local args = operands(r, c)
      args[#args + 1] = c[7]
      return args
    end,
    twin = attention, tol = 1e-10, grad = not c[9], grad_results = 1,
  }
end

-- Central differences of the slow twin.
local function numeric(dy, q, k, v, _, _, mask, o)
  local function value()
    local y, sum = attention(q, k, v, mask, o), 0
    for i, x in ipairs(y.data) do sum = sum + x * dy.data[i] end
    return sum
  end
  local function slope(a)
    local out, h = {}, 1e-5
    for i, x in ipairs(a.data) do
      a.data[i] = x + h
      local up = value()
      a.data[i] = x - h
      out[i] = (up - value()) / (2 * h)
      a.data[i] = x
    end
    return array.new(a.shape, out)
  end
  return slope(q), slope(k), slope(v)
end
for _, c in ipairs(cases) do
  if not c[9] then
    table.insert(examples.attention_grad, {
      args = function(r)
        local args = operands(r, c)
        if c[7] then args[#args + 1] = c[7] end
        local y, kept = tide.attention(unpack(args))
        local all = {r.real {c[1], c[2], c[4], c[6]}, args[1], args[2], args[3], y, kept}
        for i = 4, #args do all[#all + 1] = args[i] end
        return all
      end,
      twin = numeric, tol = 1e-7, tol32 = 1e-4,
    })
  end
end

return examples
