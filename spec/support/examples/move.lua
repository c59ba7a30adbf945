-- Operations that move elements, and indexing.

local array = require "spec.support.array"

local function same(x) return x end

local function with_size(shape, dim, size)
  local out = {unpack(shape)}
  out[dim] = size
  return out
end

local function without(shape, dim)
  local out = {unpack(shape)}
  table.remove(out, dim)
  return out
end

local function narrow(x, dim, start, length, step)
  return array.new(with_size(x.shape, dim, length), function(at)
    return x:at(with_size(at, dim, start + (at[dim] - 1) * (step or 1)))
  end)
end

-- zeros of `size` along dim, to which each element of x is added at the position that to(at) names
local function spread(x, dim, size, to)
  local y = array.new(with_size(x.shape, dim, size), function() return 0 end)
  for at in array.indices(x.shape) do
    local p = y:position(with_size(at, dim, to(at)))
    y.data[p] = y.data[p] + x:at(at)
  end
  return y
end

local function wrapped(i, n) return i < 0 and n + 1 + i or i end

local function reshaped(shape) return function(x) return array.new(shape, x.data) end end

local examples = {}

examples.reshape = {
  {args = function(r) return {r.real({2, 6}), 3, 4} end, twin = reshaped {3, 4}},
  {args = function(r) return {r.real({2, 6}), {3, -1, 2}} end, twin = reshaped {3, 2, 2}},
  {args = function(r) return {r.real({}), 1, 1} end, twin = reshaped {1, 1}},
  {args = function(r) return {r.real({0, 3}), 3, 0} end, twin = reshaped {3, 0}},
  {args = function(r) return {r.integers({4, 3}, -9, 9), -1} end, twin = reshaped {12}},
}
examples.permute = {
  {args = function(r) return {r.real({2, 3, 4}), 3, 1, 2} end, twin = function(x)
    return array.new({4, 2, 3}, function(at) return x:at {at[2], at[3], at[1]} end)
  end},
  {args = function(r) return {r.real({2, 3}), {-1, -2}} end, twin = function(x)
    return array.new({3, 2}, function(at) return x:at {at[2], at[1]} end)
  end},
  {args = function(r) return {r.integers({2, 0, 4}, 0, 9), 2, 3, 1} end, twin = reshaped {0, 4, 2}},
}
examples.expand = {
  {args = function(r) return {r.real({3, 1}), 2, 3, 4} end, twin = function(x)
    return array.new({2, 3, 4}, function(at) return x:at {at[2], 1} end)
  end},
  {args = function(r) return {r.real({2, 1}), {-1, 3}} end, twin = function(x)
    return array.new({2, 3}, function(at) return x:at {at[1], 1} end)
  end},
  {args = function(r) return {r.real({}), 2, 2} end, twin = function(x)
    return array.new({2, 2}, function() return x.data[1] end)
  end},
}
examples.narrow = {
  {args = function(r) return {r.real({5, 4}), 1, 2, 3} end, twin = narrow},
  {args = function(r) return {r.real({3, 9}), 2, -8, 3, 2} end, twin = function(x) return narrow(x, 2, 2, 3,
    2) end},
  {args = function(r) return {r.real({3, 4}), {dim = -1, start = -3, length = 2}} end,
    twin = function(x) return narrow(x, 2, 2, 2) end},
  {args = function(r) return {r.integers({5}, 0, 9), 1, 6, 0} end, twin = narrow},
}
examples.narrow_grad = {
  {args = function(r) return {r.real({2, 3}), 2, 1, 2, 7} end, twin = function(x)
    return spread(x, 2, 7, function(at) return 2 + (at[2] - 1) * 2 end)
  end},
  {args = function(r) return {r.real({3}), 1, 0, 1, 3} end, twin = same},
  {args = function(r) return {r.real({0, 2}), 1, 0, 1, 2} end, twin = function()
    return array.new({2, 2}, {0, 0, 0, 0})
  end},
}
local function select_twin(x, dim, i)
  dim = wrapped(dim, #x.shape)
  return array.new(without(x.shape, dim), function(at)
    local own = {unpack(at)}
    table.insert(own, dim, wrapped(i, x.shape[dim]))
    return x:at(own)
  end)
end
examples.select = {
  {args = function(r) return {r.real({3, 4}), 1, 2} end, twin = select_twin},
  {args = function(r) return {r.real({2, 3, 4}), -2, -1} end, twin = select_twin},
  {args = function(r) return {r.integers({3}, 0, 9), 1, 3} end, twin = select_twin},
}
examples.unsqueeze = {
  {args = function(r) return {r.real({3, 4}), 1} end, twin = reshaped {1, 3, 4}},
  {args = function(r) return {r.real({3, 4}), 3} end, twin = reshaped {3, 4, 1}},
  {args = function(r) return {r.real({3, 4}), -2} end, twin = reshaped {3, 1, 4}},
  {args = function(r) return {r.real({}), 1} end, twin = reshaped {1}},
}
examples.squeeze = {
  {args = function(r) return {r.real({1, 3, 1})} end, twin = reshaped {3}},
  {args = function(r) return {r.real({1, 3, 1}), 1} end, twin = reshaped {3, 1}},
  {args = function(r) return {r.real({1, 3, 1}), {1, -1}} end, twin = reshaped {3}},
}
examples.contiguous = {{args = function(r) return {r.real({3, 4}):t()} end, twin = same}}
examples.clone = {{args = function(r) return {r.real({3, 4}):t()} end, twin = same}}

local function joined(list, dim)
  dim = wrapped(dim or 1, #list[1].shape)
  local size, parts = 0, {}
  for _, x in ipairs(list) do
    for i = 1, x.shape[dim] do parts[size + i] = {x, i} end
    size = size + x.shape[dim]
  end
  return array.new(with_size(list[1].shape, dim, size), function(at)
    local part = parts[at[dim]]
    return part[1]:at(with_size(at, dim, part[2]))
  end)
end
examples.cat = {
  {args = function(r) return {{r.real({2, 3}), r.real({1, 3}), r.real({0, 3})}} end, twin = joined},
  {args = function(r) return {{r.real({2, 3}), r.real({2, 1}):t():t(), r.real({2, 2})}, -1} end,
    twin = joined},
  {args = function(r) return {{r.integers({2}, 0, 9), r.integers({3}, 0, 9)}, {dim = 1}} end,
    twin = function(list) return joined(list, 1) end},
}

examples.index_select = {
  {args = function(r) return {r.real({4, 3}), r.index {4, -4, 2, 2, 1}} end, twin = function(x)
    local order = {4, 1, 2, 2, 1}
    return array.new({5, 3}, function(at) return x:at {order[at[1]], at[2]} end)
  end},
  {args = function(r) return {r.real({2, 3, 2}), r.index {3, 3, 1}, 2} end, twin = function(x)
    local order = {3, 3, 1}
    return array.new({2, 3, 2}, function(at) return x:at {at[1], order[at[2]], at[3]} end)
  end},
  {args = function(r) return {r.integers({3}, 0, 9), r.index {}} end, twin = function() return array.new({0},
    {}) end},
}
examples.index_add = {
  {args = function(r) return {r.real({3, 2}), r.index {2, 2, -1}, 1, 4} end, twin = function(x)
    local to = {2, 2, 4}
    return spread(x, 1, 4, function(at) return to[at[1]] end)
  end},
  {args = function(r) return {r.real({2, 3, 2}), r.index {3, 1, 3}, 2, 5} end, twin = function(x)
    local to = {3, 1, 3}
    return spread(x, 2, 5, function(at) return to[at[2]] end)
  end},
}
examples.gather = {
  {args = function(r) return {r.real({3, 4}), r.index {{1, -1}, {2, 2}, {4, 3}}, 2} end, twin = function(x,
    index)
    return array.new({3, 2}, function(at) return x:at {at[1], wrapped(index:at(at), 4)} end)
  end},
  {args = function(r) return {r.real({3, 4}), r.index {{3, 1, 2, 2}}, 1} end, twin = function(x, index)
    return array.new({1, 4}, function(at) return x:at {index:at(at), at[2]} end)
  end},
}
examples.scatter_add = {
  {args = function(r) return {r.real({2, 3}), r.index {{1, 5, -5}, {2, 2, 2}}, 2, 5} end, twin = function(x,
    index)
    return spread(x, 2, 5, function(at) return wrapped(index:at(at), 5) end)
  end},
  {args = function(r) return {r.real({3, 2}), r.index {{1, 2}, {1, 1}, {2, 2}}, 1, 2} end, twin = function(x,
    index)
    return spread(x, 1, 2, function(at) return index:at(at) end)
  end},
}

return examples
