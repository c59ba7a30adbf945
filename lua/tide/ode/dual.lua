-- Exact Jacobians of right-hand sides on plain numbers: the function is run on dual numbers, a value with its partial
-- derivatives, which arithmetic and the functions of `math` carry along. While it runs, `math` and the function's own
-- locals that hold functions of `math` (local cos = math.cos) stand for their counterparts on dual numbers, which
-- treat plain numbers as before.

-- Loaded once for a Lua state, even where package.loaded is cleared: opening LuaJIT's ffi again numbers its types anew.
local registry, key = debug.getregistry(), "tide.ode.dual"
if registry[key] then return registry[key] end

local message = require "tide.message"

local M = {}
registry[key] = M

local Dual = {}
local width = 0  -- partial derivatives that a dual number has now

-- A dual number x with the value x.v and the partial derivatives x.d[1 … width]. LuaJIT's structs, one kind for each
-- width, can be compared with plain numbers (if t > 1 …), which tables in Lua 5.1 cannot.
local is_dual, new
local has_ffi, ffi = pcall(require, "ffi")
if has_ffi then
  local kinds = setmetatable({}, {__index = function(list, n)
    list[n] = ffi.metatype(("struct { double v; double d[%d]; }"):format(n + 1), Dual)
    return list[n]
  end})
  function is_dual(x) return type(x) == "cdata" and ffi.istype(kinds[width], x) end
  function new(v)
    local x = kinds[width]()
    x.v = v
    return x
  end
else
  function is_dual(x) return getmetatable(x) == Dual end
  function new(v) return setmetatable({v = v, d = {}}, Dual) end
end

local function value(x) return is_dual(x) and x.v or x end

-- f(x) with f' = slope, x a dual number.
local function chain(x, v, slope)
  local out = new(v)
  for i = 1, width do out.d[i] = x.d[i] * slope end
  return out
end

-- v with partial derivatives da·∂a + db·∂b; either may be a plain number.
local function combined(v, a, da, b, db)
  if not is_dual(a) then return chain(b, v, db) end
  if not is_dual(b) then return chain(a, v, da) end
  local out = new(v)
  for i = 1, width do out.d[i] = a.d[i] * da + b.d[i] * db end
  return out
end

function Dual.__add(a, b) return combined(value(a) + value(b), a, 1, b, 1) end
function Dual.__sub(a, b) return combined(value(a) - value(b), a, 1, b, -1) end
function Dual.__mul(a, b) return combined(value(a) * value(b), a, value(b), b, value(a)) end
function Dual.__div(a, b)
  local x, y = value(a), value(b)
  return combined(x / y, a, 1 / y, b, -x / (y * y))
end
function Dual.__unm(a) return chain(a, -a.v, -1) end
function Dual.__pow(a, b)
  local x, y = value(a), value(b)
  local v = x ^ y
  if not is_dual(b) then return chain(a, v, y == 0 and 0 or y * x ^ (y - 1)) end
  return combined(v, a, y * x ^ (y - 1), b, x == 0 and 0 or v * math.log(x))
end
function Dual.__mod(a, b)
  if is_dual(b) then error("the derivative of a % b by b is not known", 2) end
  return chain(a, a.v % b, 1)
end
function Dual.__lt(a, b) return value(a) < value(b) end
function Dual.__le(a, b) return value(a) <= value(b) end
function Dual.__eq(a, b) return value(a) == value(b) end

-- ---- The functions of math ----

local plain = {}
for name, f in pairs(math) do plain[name] = f end

local slopes = {
  sin = function(x) return plain.cos(x) end,
  cos = function(x) return -plain.sin(x) end,
  tan = function(x) return 1 + plain.tan(x) ^ 2 end,
  asin = function(x) return 1 / plain.sqrt(1 - x * x) end,
  acos = function(x) return -1 / plain.sqrt(1 - x * x) end,
  atan = function(x) return 1 / (1 + x * x) end,
  exp = function(x) return plain.exp(x) end,
  sqrt = function(x) return 0.5 / plain.sqrt(x) end,
  sinh = function(x) return plain.cosh(x) end,
  cosh = function(x) return plain.sinh(x) end,
  tanh = function(x) return 1 - plain.tanh(x) ^ 2 end,
  log10 = function(x) return 1 / (x * plain.log(10)) end,
  abs = function(x) return x < 0 and -1 or 1 end,
  floor = function() return 0 end,
  ceil = function() return 0 end,
}

local dual = {}
for name, slope in pairs(slopes) do
  local f = plain[name]
  if f then
    dual[name] = function(x)
      if is_dual(x) then return chain(x, f(x.v), slope(x.v)) end
      return f(x)
    end
  end
end

function dual.log(x, base)
  if is_dual(base) then return dual.log(x) / dual.log(base) end
  local scale = base and plain.log(base) or 1
  if is_dual(x) then return chain(x, plain.log(x.v) / scale, 1 / (x.v * scale)) end
  return plain.log(x) / scale
end
function dual.pow(a, b)
  if is_dual(a) or is_dual(b) then return Dual.__pow(a, b) end
  return a ^ b
end
function dual.fmod(a, b)
  if is_dual(a) and not is_dual(b) then return chain(a, plain.fmod(a.v, b), 1) end
  return plain.fmod(a, b)
end
function dual.atan2(y, x)
  if not (is_dual(x) or is_dual(y)) then return plain.atan2(y, x) end
  local a, b = value(y), value(x)
  local r = a * a + b * b
  return combined(plain.atan2(a, b), y, b / r, x, -a / r)
end

local function extreme(f, better)
  return function(first, ...)
    local best, any = first, is_dual(first)
    for i = 1, select("#", ...) do
      local x = select(i, ...)
      any = any or is_dual(x)
      if better(value(x), value(best)) then best = x end
    end
    return any and best or f(first, ...)
  end
end
dual.max = extreme(plain.max, function(a, b) return a > b end)
dual.min = extreme(plain.min, function(a, b) return a < b end)

-- ---- Standing in for math ----

local counterpart = {}
for name, f in pairs(dual) do counterpart[plain[name]] = f end

-- The locals of f, and of the functions that they hold, that are functions of math.
local function captured(f, list, seen)
  if seen[f] then return list end
  seen[f] = true
  local i = 1
  while true do
    local name, v = debug.getupvalue(f, i)
    if not name then return list end
    if type(v) == "function" then
      if counterpart[v] then list[#list + 1] = {f = f, at = i, plain = v}
      elseif debug.getinfo(v, "S").what == "Lua" then captured(v, list, seen) end
    end
    i = i + 1
  end
end

local function exchange(list, into_dual)
  for name, f in pairs(dual) do rawset(math, name, into_dual and f or plain[name]) end
  for _, c in ipairs(list) do
    debug.setupvalue(c.f, c.at, into_dual and counterpart[c.plain] or c.plain)
  end
end

-- ---- Jacobians ----

local function seeded(v, at)
  local out = new(v)
  for i = 1, width do out.d[i] = i == at and 1 or 0 end
  return out
end

-- ∂f/∂y row by row in one table, and ∂f/∂t, of f(t, y) on numbers (`single`) or tables of numbers. A false result,
-- where f cannot be evaluated, has none: its value, which the solver sees too, is NaN.
local function of_result(result, n, single)
  local rows, by_time = {}, {}
  for i = 1, n do
    local x = result and (single and result or result[i])
    for j = 1, n do rows[#rows + 1] = is_dual(x) and x.d[j] or 0 end
    by_time[i] = is_dual(x) and x.d[n + 1] or 0
  end
  return rows, by_time
end

--- A function of (t, y), y a table of numbers, that gives the Jacobian of f there, row by row, and ∂f/∂t. `single`: f
--- takes and gives one number. It raises what f raises on dual numbers.
function M.jacobian(f, single)
  local list = type(f) == "function" and captured(f, {}, {}) or {}
  return function(t, y)
    local n, before = #y, width
    width = n + 1
    local state = {}
    for i = 1, n do state[i] = seeded(y[i], i) end
    exchange(list, true)
    local ok, result = pcall(f, seeded(t, n + 1), single and state[1] or state)
    exchange(list, false)
    local rows, by_time
    if ok then rows, by_time = of_result(result, n, single) end
    width = before
    if ok then return rows, by_time end
    message.raise("ode.solve: the Jacobian of the right-hand side is not known, for it cannot run on dual numbers " ..
      "(%s): compare by math.max or math.min, give the option jac, or write it on tensors", tostring(result))
  end
end

return M
