-- What the value of an option may be. A rule is {words, holds}: the words follow "expected" in the message, holds(v)
-- says whether v will do. An option that was not given is not looked at.
--
--   values.check("attack", o, {bound = values.positive, norm = values.one_of("max", "l2")})

local core = require "tide.core"
local message = require "tide.message"
local random = require "tide.random"
local is_tensor = require("tide.tensor").is_tensor

local M = {}

local huge = math.huge

--- A value as messages show it: nan, 3, "max", a table, int64 of shape (2×3).
function M.shown(v)
  if type(v) == "number" or type(v) == "boolean" then return tostring(v) end
  if type(v) == "string" then return ("%q"):format(v) end
  if is_tensor(v) then return ("%s of shape (%s)"):format(v.dtype, message.shape(v)) end
  return "a " .. type(v)
end

-- ---- Rules ----

--- A finite number for which `holds`.
function M.number(words, holds)
  return {words, function(v)
    return type(v) == "number" and v == v and math.abs(v) < huge and (not holds or holds(v))
  end}
end

M.any_number = M.number "a number"
M.positive = M.number("a number above 0", function(v) return v > 0 end)
M.not_negative = M.number("a number, 0 or more", function(v) return v >= 0 end)
M.share = M.number("a number above 0, at most 1", function(v) return v > 0 and v <= 1 end)

--- A number from `low` to `high`.
function M.from(low, high)
  return M.number(("a number from %g to %g"):format(low, high), function(v) return v >= low and v <= high end)
end

--- A whole number from `least` on, perhaps to `most`.
function M.whole(least, most)
  local words = most and ("a whole number from %d to %d"):format(least, most)
    or ("a whole number, %d or more"):format(least)
  return M.number(words, function(v) return v % 1 == 0 and v >= least and v <= (most or huge) end)
end

--- One of some words.
function M.one_of(...)
  local names, quoted = {}, {}
  for i, name in ipairs {...} do names[name], quoted[i] = true, ("%q"):format(name) end
  local last = table.remove(quoted)
  return {#quoted == 0 and last or table.concat(quoted, ", ") .. " or " .. last,
    function(v) return names[v] == true end}
end

--- true or false.
M.flag = {"true or false", function(v) return type(v) == "boolean" end}

--- Can x be called?
function M.is_callable(x)
  return type(x) == "function" or (type(x) == "table" and (getmetatable(x) or {}).__call ~= nil)
end

--- Something to be called; `what` says how: "a function callback(i, n)".
function M.callable(what) return {what, M.is_callable} end

M.generator = {"a generator (tide.generator(seed))", function(v)
  return type(v) == "userdata" and getmetatable(v) == getmetatable(random.default_generator())
end}

--- A table without a metatable, such as options are.
M.options = {"a table of options", function(v) return type(v) == "table" and getmetatable(v) == nil end}

-- ---- Checks ----

local function in_order(rules)
  local names = {}
  for name in pairs(rules) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- Raises for the first option of o, by name, that breaks its rule; `where` is the function's name.
function M.check(where, o, rules)
  for _, name in ipairs(in_order(rules)) do
    local v, rule = o[name], rules[name]
    if v ~= nil and not rule[2](v) then
      message.raise("%s: %s is %s, expected %s", where, name, M.shown(v), rule[1])
    end
  end
  return o
end

--- Is every element of a tensor finite?
function M.is_finite(x) return core.sum(core.isfinite(x)):item() == x.numel end

--- Raises unless v, the argument `what`, is a tensor of real numbers, not empty and finite.
function M.check_real(where, what, v)
  if not is_tensor(v) then message.raise("%s: %s is a %s, expected a tensor", where, what, type(v)) end
  if v.dtype ~= "float32" and v.dtype ~= "float64" then
    message.raise("%s: %s is %s, expected float32 or float64", where, what, v.dtype)
  end
  if v.numel == 0 then message.raise("%s: %s has shape (%s), which is empty", where, what, message.shape(v)) end
  if not M.is_finite(v:detach()) then message.raise("%s: %s is not finite", where, what) end
end

--- Raises unless v, the argument `what`, can be called as `how` says.
function M.check_callable(where, what, v, how)
  if not M.is_callable(v) then message.raise("%s: %s is a %s, expected a function %s", where, what, type(v), how) end
end

return M
