-- Normalisations and their fused derivatives.

local array = require "spec.support.array"
local special = require "spec.support.special"
local tide = require "tide"

local examples = {}

-- x normalised within groups that key(index) names; gives y, and mean, 1/√(var + eps), variance per key.
local function normalise(x, eps, key)
  local groups = {}
  for at in array.indices(x.shape) do
    local k = key(at)
    groups[k] = groups[k] or {n = 0, sum = 0, squares = 0}
    groups[k].n, groups[k].sum = groups[k].n + 1, groups[k].sum + x:at(at)
  end
  for at in array.indices(x.shape) do
    local g = groups[key(at)]
    g.squares = g.squares + (x:at(at) - g.sum / g.n) ^ 2
  end
  for _, g in pairs(groups) do
    g.mean, g.var = g.sum / g.n, g.squares / g.n
    g.rstd = 1 / math.sqrt(g.var + eps)
  end
  local y = array.new(x.shape, function(at)
    local g = groups[key(at)]
    return (x:at(at) - g.mean) * g.rstd
  end)
  return y, groups
end

local function affine(y, gamma, beta)
  if not gamma then return y end
  return array.new(y.shape, function(at) return y:at(at) * gamma.data[at[#at]] + beta.data[at[#at]] end)
end

local function sample_of(x, at, rows)
  local p = at[1]
  for i = 2, rows and #at - 1 or 1 do p = (p - 1) * x.shape[i] + at[i] end
  return rows and #at == 1 and 1 or p
end

local function group_norm(x, gamma, beta, o)
  if gamma and not gamma.shape then gamma, o = nil, gamma end
  local channels, n = x.shape[#x.shape], 1
  for i = 1, o.rows and #x.shape - 1 or 1 do n = n * x.shape[i] end
  local y, groups = normalise(x, o.eps or 1e-5, function(at)
    return sample_of(x, at, o.rows) .. "," .. math.floor((at[#at] - 1) / (channels / o.groups)) + 1
  end)
  local function statistic(field)
    return array.new({n, o.groups}, function(at) return groups[at[1] .. "," .. at[2]][field] end)
  end
  return affine(y, gamma, beta), statistic "mean", statistic "rstd"
end
local function channel_norm(x, gamma, beta, o)
  if gamma and not gamma.shape then gamma, o = nil, gamma end
  local channels = x.shape[#x.shape]
  local y, groups = normalise(x, o and o.eps or 1e-5, function(at) return at[#at] end)
  local function statistic(field)
    return array.new({channels}, function(at) return groups[at[1]][field] end)
  end
  return affine(y, gamma, beta), statistic "mean", statistic "rstd", statistic "var"
end

local group_shapes = {
  {{2, 3, 4}, {groups = 2}}, {{2, 2, 2, 6}, {groups = 3}, affine = true}, {{3, 5}, {groups = 1, rows = true},
    affine = true},
  {{2, 3, 5}, {groups = 1, rows = true, eps = 1e-3}}, {{1, 6, 1}, {groups = 1}}, {{2, 4}, {groups = 4,
    eps = 0.1}, affine = true},
  {{2, 7, 5, 34}, {groups = 2}, affine = true, big = true}, {{9, 33}, {groups = 1, rows = true},
    affine = true, big = true},
}
local channel_shapes = {
  {{5, 3}}, {{2, 3, 4}, nil, affine = true}, {{2, 2, 3, 2}, {eps = 1e-3}, affine = true},
  {{3, 7, 5, 35}, nil, affine = true, big = true},
}
local function forward(list, twin)
  local out = {}
  for i, e in ipairs(list) do
    local c = e[1][#e[1]]
    out[i] = {
      args = function(r)
        if e.affine then return {r.real(e[1]), r.real({c}, 0.5, 2), r.real({c}), e[2]} end
        return {r.real(e[1]), e[2]}
      end,
      twin = twin, grad = not e.big, tol = 1e-10, grad_results = 1,
    }
  end
  return out
end
examples.group_norm = forward(group_shapes, group_norm)
examples.channel_norm = forward(channel_shapes, channel_norm)

-- ---- With an activation and a sum behind ----

local activations = {
  function(x) return math.max(x, 0) end,
  function(x) return x / (1 + math.exp(-x)) end,
  function(x) return x * special.erfc(-x / math.sqrt(2)) / 2 end,
  math.tanh,
  function(x) return 1 / (1 + math.exp(-x)) end,
}
activations[0] = function(x) return x end

-- The twin of the fused form: one or three tensors, add after them where there are two or four; then options.
local function fused(twin)
  return function(x, ...)
    local rest, add = {...}, nil
    local o = table.remove(rest)
    if #rest % 2 == 1 then add = table.remove(rest) end
    rest[#rest + 1] = o
    local results = {twin(x, unpack(rest))}
    results[1] = array.map(activations[o.activation], results[1])
    if add then results[1] = array.map(function(a, b) return a + b end, results[1], add) end
    return unpack(results)
  end
end

-- Every shape with every activation in turn, with and without affine and add.
local function fused_forward(list, twin)
  local out, act = {}, 0
  for _, e in ipairs(list) do
    for form = 1, 4 do
      act = (act + 1) % 6
      local c, o = e[1][#e[1]], {activation = act}
      for key, value in pairs(e[2] or {}) do o[key] = value end
      out[#out + 1] = {
        args = function(r)
          local args = {r.real(e[1])}
          if form > 2 then args[2], args[3] = r.real({c}, 0.5, 2), r.real({c}) end
          if form % 2 == 0 then args[#args + 1] = r.real(e[1]) end
          args[#args + 1] = o
          return args
        end,
        twin = fused(twin), grad = not e.big, tol = 1e-10, grad_results = 1,
      }
    end
  end
  return out
end
examples.group_norm_act = fused_forward(group_shapes, group_norm)
examples.channel_norm_act = fused_forward(channel_shapes, channel_norm)

-- The cotangents dx, dgamma, dbeta by central differences of the slow twin.
local function numeric(twin)
  return function(dy, x, _, _, gamma, beta, o)
    if gamma and not gamma.shape then gamma, o = nil, gamma end
    if beta and not beta.shape then beta, o = nil, beta end
    local c = x.shape[#x.shape]
    local ones = array.new({c}, function() return 1 end)
    local zeros = array.new({c}, function() return 0 end)
    local function value(xx, g, b)
      local y, sum = twin(xx, g, b, o), 0
      for i, v in ipairs(y.data) do sum = sum + v * dy.data[i] end
      return sum
    end
    local function slope(a, f)
      local out = {}
      for i, v in ipairs(a.data) do
        local h = 1e-5
        a.data[i] = v + h
        local up = f()
        a.data[i] = v - h
        out[i] = (up - f()) / (2 * h)
        a.data[i] = v
      end
      return array.new(a.shape, out)
    end
    local g = array.new({c}, {unpack((gamma or ones).data)})
    local b = beta or zeros
    local function f() return value(x, g, b) end
    return slope(x, f), slope(g, f), slope(b, f)
  end
end
local function backward(name, list, twin, act)
  local out = {}
  for i, e in ipairs(list) do
    if not e.big then
      local o = e[2]
      if act then
        o = {activation = i % 6}
        for key, value in pairs(e[2] or {}) do o[key] = value end
      end
      out[#out + 1] = {
        args = function(r)
          local x = r.real(e[1])
          local _, mean, rstd = tide[name](x, e[2])
          local args = {r.real(e[1]), x, mean, rstd}
          if e.affine then args[5] = r.real({e[1][#e[1]]}, 0.5, 2) end
          if e.affine and act then args[6] = r.real({e[1][#e[1]]}) end
          args[#args + 1] = o
          return args
        end,
        twin = numeric(twin), tol = 1e-7, tol32 = 1e-4,
      }
    end
  end
  return out
end
examples.group_norm_grad = backward("group_norm", group_shapes, group_norm)
examples.channel_norm_grad = backward("channel_norm", channel_shapes, channel_norm)
local all_groups, all_channels = {}, {}  -- each activation meets each of several shapes
for _ = 1, 5 do
  for _, e in ipairs(group_shapes) do if not e.big then all_groups[#all_groups + 1] = e end end
  for _, e in ipairs(channel_shapes) do if not e.big then all_channels[#all_channels + 1] = e end end
  all_groups[#all_groups + 1] = {{1, 9, 2, 10}, {groups = 5}, affine = true}
end
examples.group_norm_act_grad = backward("group_norm", all_groups, fused(group_norm), true)
examples.channel_norm_act_grad = backward("channel_norm", all_channels, fused(channel_norm), true)

return examples
