-- What ode.solve takes as a state and as times, and how the core sees them: one float64 or float32 tensor, one float64
-- tensor of times.

local core = require "tide.core"
local message = require "tide.message"
local tensors = require "tide.tensor"

local M = {}

local raise = message.raise

local is_tensor = tensors.is_tensor

-- Tensors of a nested table in a fixed order (sorted keys), with the way back.
local function flattened(state, list, path)
  if is_tensor(state) then
    list[#list + 1] = state
    return {leaf = #list}
  elseif type(state) ~= "table" then
    raise("ode.solve: %s is a %s, expected a tensor", path, type(state))
  end
  local keys, plan = {}, {}
  for k in pairs(state) do keys[#keys + 1] = k end
  table.sort(keys, function(a, b)
    if type(a) == type(b) then return a < b end
    return type(a) == "number"
  end)
  for i, k in ipairs(keys) do
    plan[i] = {key = k, plan = flattened(state[k], list, path .. "." .. tostring(k))}
  end
  return plan
end

local function rebuilt(plan, list)
  if plan.leaf then return list[plan.leaf] end
  local out = {}
  for _, item in ipairs(plan) do out[item.key] = rebuilt(item.plan, list) end
  return out
end

local function is_number(x) return type(x) == "number" end

local function table_of_numbers(y0)
  for i, v in ipairs(y0) do
    if not is_number(v) then raise("ode.solve: y0[%d] is a %s, expected a number", i, type(v)) end
  end
  local function plain(x) return x:totable() end
  return {
    y0 = core.tensor(y0, "float64"), form = "table", saved = plain, one = plain, times = plain,
    spread = function(v) return core.tensor(v, "float64") end,
  }
end

local function one_number(y0)
  local function plain(x) return x:totable() end
  local function item(x) return x:item() end
  return {
    y0 = core.tensor(y0, "float64"), form = "number", saved = plain, one = item, times = plain,
    spread = function(v) return core.tensor(v, "float64") end,
  }
end

local function nested_tensors(y0)
  local list = {}
  local plan = flattened(y0, list, "y0")
  if #list == 0 then raise("ode.solve: y0 is an empty table") end
  local shapes, sizes, parts = {}, {}, {}
  for i, x in ipairs(list) do
    if x.dtype ~= list[1].dtype then
      raise("ode.solve: the parts of y0 have types %s and %s", list[1].dtype, x.dtype)
    end
    shapes[i], sizes[i], parts[i] = x.shape, x.numel, core.reshape(x, -1)
  end
  local function unpacked(flat, lead)
    local out, start = {}, 1
    for i, size in ipairs(sizes) do
      local shape = {}
      for k, v in ipairs(lead) do shape[k] = v end
      for _, v in ipairs(shapes[i]) do shape[#shape + 1] = v end
      out[i] = core.reshape(core.narrow(flat, -1, start, size), shape)
      start = start + size
    end
    return rebuilt(plan, out)
  end
  return {
    y0 = core.cat(parts, 1), sizes = sizes,
    argument = function(y) return unpacked(y, {}) end,
    -- a number, or a tensor like the part, for each part
    spread = function(v)
      local given, out = {}, {}
      local function collect(item, plan_of)
        if plan_of.leaf then given[plan_of.leaf] = item return end
        for _, part in ipairs(plan_of) do
          if type(item) ~= "table" then raise("ode.solve: a tolerance lacks the part %s", tostring(part.key)) end
          collect(item[part.key], part.plan)
        end
      end
      collect(v, plan)
      for i, size in ipairs(sizes) do
        local x = given[i]
        if is_number(x) then
          out[i] = core.full({size}, x, "float64")
        elseif is_tensor(x) and x.numel == size then
          out[i] = core.reshape(core.to(x, "float64"), -1)
        else
          raise("ode.solve: a tolerance of part %d of the state is a %s, expected a number or a tensor like it", i,
            type(x))
        end
      end
      return core.cat(out, 1)
    end,
    field = function(f)
      return function(t, y)
        local result, derivative = f(t, unpacked(y, {})), {}
        if result == false then return false end
        flattened(result, derivative, "what the right-hand side gave")
        if #derivative ~= #list then
          raise("ode.solve: the right-hand side gave %d tensors, the state has %d", #derivative, #list)
        end
        for i, x in ipairs(derivative) do
          if message.shape(x) ~= message.shape(list[i]) then
            raise("ode.solve: part %d of what the right-hand side gave has shape (%s), that of the state (%s)", i,
              message.shape(x), message.shape(list[i]))
          end
          derivative[i] = core.reshape(core.to(x, list[1].dtype), -1)
        end
        return core.cat(derivative, 1)
      end
    end,
    saved = function(ys) return unpacked(ys, {ys:size(1)}) end,
    one = function(y) return unpacked(y, {}) end,
  }
end

local function single_tensor(y0)
  local function same(x) return x end
  return {y0 = y0, saved = same, one = same}
end

--- The kind of state that y0 is: its packed y0, how f's arguments and results are translated (by `field`, or in the
--- core by `form`), how saved values, one value and times are given, and how tolerances for each element are laid out.
function M.of(y0)
  if is_tensor(y0) then return single_tensor(y0) end
  if is_number(y0) then return one_number(y0) end
  if type(y0) == "table" and is_number(y0[1]) then return table_of_numbers(y0) end
  return nested_tensors(y0)
end

--- Times as a float64 tensor. Entries of a table of times may be tensors of one element, to which gradients then flow.
function M.times(t)
  if is_tensor(t) then
    if t.ndim ~= 1 then raise("ode.solve: t has shape (%s), expected one dim of times", message.shape(t)) end
    return core.to(t, "float64")
  elseif type(t) ~= "table" then
    raise("ode.solve: t is a %s, expected {t0, t1}, a table of times or a tensor", type(t))
  end
  if #t == 0 then raise("ode.solve: no times were given") end
  local plain, parts = true, {}
  for i, v in ipairs(t) do
    if is_tensor(v) and v.numel == 1 then
      plain = false
    elseif not is_number(v) then
      raise("ode.solve: t[%d] is a %s, expected a number", i, type(v))
    end
  end
  if plain then return core.tensor(t, "float64") end
  for i, v in ipairs(t) do
    parts[i] = is_number(v) and core.tensor({v}, "float64") or core.reshape(core.to(v, "float64"), 1)
  end
  return core.cat(parts, 1)
end

return M
