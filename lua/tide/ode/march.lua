-- Many explicit steps over plain numbers as one Lua function: the solver's loop between two moments that matter,
-- written out for a tableau, a number of variables and the form of f, so that LuaJIT compiles stages, f, error norm and
-- step-size control to one loop and nothing crosses to C at each step. It computes what csrc/solve (explicit.c,
-- control.c) computes, in the same order, to the last bit; csrc/solve/march.c calls it and books the steps.

local stages = require "tide.ode.stages"

local M = {}

local has_ffi, ffi = pcall(require, "ffi")

-- Beyond this many slopes the loop would spill more than it gains.
local MOST_NUMBERS, MOST_ELEMENTS = 80, 8

-- What the loop is told and what it leaves, in the order of the TD_MARCH_… of csrc/solve/field.h. It stays in memory: a
-- loop that carries little in registers is one whose side exits LuaJIT can compile as well.
local told = {
  "t", "wanted", "limit", "direction", "most", "rtol", "atol", "is_max", "min_step", "max_step", "safety", "shrink",
  "least", "grow", "holds", "exponent", "exponent_1", "exponent_2", "exponent_rejected", "error_1", "error_2",
  "was_rejected", "h_min", "h_max", "accepted", "rejected", "worst_rejected", "known", "slopes",
}

local place = {}
for i, name in ipairs(told) do place[name] = ("b[%d]"):format(i - 1) end

local propose = [[
  local t, tried = $t, $wanted
  if $max_step > 0 and abs(tried) > $max_step then tried = $direction * $max_step end
  local t_end = t + tried
  local h = t_end - t
  if $direction * ($limit - t_end) <= 1e-10 * abs(h) then break end
  local floor = 10 * 2.220446049250313e-16 * abs(t)
  if $min_step > floor then floor = $min_step end
  if t_end == t or abs(h) < floor then break end]]

-- |Σ c_j k_j| over atol + rtol·max(|y|, |u|) of element e.
local function error_of(m, e)
  local sum = {"0"}
  for j = 1, m.stages do
    if m.e[j] ~= 0 then sum[#sum + 1] = ("(h * %.17g) * k%d_%d"):format(m.e[j], j, e) end
  end
  return ("abs(%s) / ($atol + $rtol * max(abs(y_%d), abs(u_%d)))"):format(table.concat(sum, " + "), e, e)
end

-- The step from b's state: its end u, the slope there and the scaled errors go to memory behind the state.
local function write_step(add, m, n, form, at)
  add "do"
  for e = 1, n do add(("local y_%d, k1_%d = b[%d], b[%d]"):format(e, e, at.y + e, at.slope + e)) end
  for i = 2, m.stages do
    local c, time = m.c[i], "t_end"
    if c == 0 then time = "t" elseif math.abs(c - 1) >= 1e-14 then time = ("t + %.17g * h"):format(c) end
    add(("local t%d = %s"):format(i, time))
  end
  stages.write(add, m, n, form, "break")
  for e = 1, n do
    add(("b[%d], b[%d], b[%d] = u_%d, k%d_%d, %s"):format(at.tried + e, at.next_slope + e, at.scaled + e, e, m.stages,
      e, error_of(m, e)))
  end
  add "end"
end

-- The norm of the scaled errors, the place of the greatest, and whether all is finite.
local function write_norm(add, n, at)
  add "local sum, top, worst = 0, -1, 0"
  for e = 1, n do
    add(("do local q = b[%d] sum = sum + q * q"):format(at.scaled + e))
    add(("if q > top or (q ~= q and top == top) then top, worst = q, %d end end"):format(e - 1))
  end
  add(("local err = top if $is_max == 0 then err = sqrt(sum / %d) end"):format(n))
  add(("b[%d + worst] = b[%d + worst] + 1"):format(at.counts + 1, at.counts + 1))
  add "local finite = err - err == 0"
  for e = n, 1, -1 do
    add(("if err - err == 0 and b[%d] - b[%d] ~= 0 then finite, worst = false, %d end"):format(at.tried + e,
      at.tried + e, e - 1))
  end
end

local accepted = [[
    if err < 1e-10 then err = 1e-10 end
    local factor, before, earlier = $safety, 1, 1
    if $exponent ~= 0 and err ~= 1 then factor = factor * pow(err, $exponent) end
    if $exponent_1 ~= 0 and $error_1 ~= 1 then before = pow($error_1, $exponent_1) end
    if $exponent_2 ~= 0 and $error_2 ~= 1 then earlier = pow($error_2, $exponent_2) end
    factor = max($least, min(factor * (before * earlier), $grow))
    if $was_rejected ~= 0 and $holds ~= 0 then factor = min(factor, 1) end
    $wanted, $error_2, $error_1 = h * factor, $error_1, err
    $accepted, $t, $was_rejected = $accepted + 1, t_end, 0
    $h_min, $h_max = $h_min == 0 and abs(h) or min($h_min, abs(h)), max($h_max, abs(h))]]

local rejected = [[
    local factor = $shrink
    if finite then factor = $safety * pow(err, $exponent_rejected) else $error_1, $error_2 = 1, 1 end
    factor = min(max($shrink, factor), $safety)
    $wanted, $was_rejected, $rejected, $worst_rejected = h * factor, finite and 1 or 2, $rejected + 1, worst]]

local function source_of(m, n, form)
  local lines, at = {}, {}
  for i, name in ipairs {"y", "slope", "counts", "tried", "next_slope", "scaled"} do
    at[name] = #told + (i - 1) * n - 1
  end
  local function add(line) lines[#lines + 1] = line:gsub("%$([%a_%d]+)", place) end
  add "local cast, abs, max, min, sqrt, pow, type = ..."
  add "return function(f, block, steps)"
  add "local b, rows = cast('double *', block), cast('double *', steps)"
  add "for _ = 1, $most do"
  add(propose)
  write_step(add, m, n, form, at)
  write_norm(add, n, at)
  add "if finite and err <= 1 then"
  add(("local row = $accepted * %d rows[row], rows[row + 1] = t, t_end"):format(n + 2))
  for e = 1, n do
    add(("rows[row + %d], b[%d], b[%d] = b[%d], b[%d], b[%d]"):format(e + 1, at.y + e, at.slope + e, at.y + e,
      at.tried + e, at.next_slope + e))
  end
  add(accepted)
  add "else"
  add(rejected)
  add "end end end"
  return table.concat(lines, "\n")
end

local own = debug.getinfo(1, "S").source
local made = {}

--- The function for an entry of ode.methods, n numbers and a form ("table" or "number"): (f, block, rows), both
--- pointers, see td_field.march. nil where there is none: without LuaJIT, for methods without an error estimate or
--- whose last stage is not the next one's first.
function M.of(m, n, form)
  if not has_ffi or m.family ~= "explicit Runge–Kutta" or not m.fsal or m.error_order == 0 or m.e2 then return nil end
  if n < 1 or n > MOST_ELEMENTS or n * m.stages > MOST_NUMBERS then return nil end
  local key = ("%s %d %s"):format(m.name, n, form)
  local f = made[key]
  if not f then
    ffi.cdef "double pow(double, double);"
    f = assert(loadstring(source_of(m, n, form), own))(ffi.cast, math.abs, math.max, math.min,
      math.sqrt, ffi.C.pow, type)
    made[key] = f
  end
  return f
end

return M
