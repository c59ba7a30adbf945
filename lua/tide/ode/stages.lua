-- A whole explicit step over plain numbers as one Lua function. Calling f from the core costs more than most such
-- fields; a function that makes all the stages pays that once a step, and LuaJIT compiles it together with f. It
-- computes what the core computes stage by stage, in the same order, to the last bit.

local M = {}

-- Beyond this many numbers the function would run out of local variables.
local MOST_NUMBERS, MOST_ELEMENTS = 120, 8

--- "name_1, name_2, …"
local function listed(name, n)
  local out = {}
  for e = 1, n do out[e] = name .. "_" .. e end
  return table.concat(out, ", ")
end

-- "y_e + c1 * k1_e + …" for the row's coefficients other than 0, which are local variables.
local function state_of(row, e)
  local sum = {"y_" .. e}
  for j, w in ipairs(row) do
    if w ~= 0 then sum[#sum + 1] = ("c%d * k%d_%d"):format(j, j, e) end
  end
  return table.concat(sum, " + ")
end

-- Stage i: its state, f there, and what f gave, checked: on anything but n numbers it gives up with this statement, and
-- the core takes over.
local function write_stage(add, row, i, n, form, give_up)
  local states = {}
  for j, w in ipairs(row) do
    if w ~= 0 then add(("  local c%d = h * %.17g"):format(j, w)) end
  end
  for e = 1, n do states[e] = state_of(row, e) end
  add(("  %s = %s"):format(listed("u", n), table.concat(states, ", ")))
  if form == "number" then
    add(("  k%d_1 = f(t%d, u_1)"):format(i, i))
  else
    add(("  local d = f(t%d, {%s})"):format(i, listed("u", n)))
    -- (the length as # would give it, by means that leave the table unmade in compiled code)
    add(("  if type(d) ~= \"table\" or d[%d] ~= nil then %s end"):format(n + 1, give_up))
    for e = 1, n do add(("  k%d_%d = d[%d]"):format(i, e, e)) end
  end
  for e = 1, n do add(("  if type(k%d_%d) ~= \"number\" then %s end"):format(i, e, give_up)) end
end

--- Adds the lines of stages 2 … of a method, given h, y_e, k1_e and the times t2 …: locals k2_e …, and u_e, the last
--- state.
function M.write(add, m, n, form, give_up)
  local slopes = {}
  for i = 2, m.stages do slopes[#slopes + 1] = listed("k" .. i, n) end
  add("local " .. table.concat(slopes, ", "))
  add("local " .. listed("u", n))
  for i = 2, m.stages do
    local row = {}
    for j = 1, i - 1 do row[j] = m.a[i][j] end
    add("do")
    write_stage(add, row, i, n, form, give_up)
    add("end")
  end
end

local function source_of(m, n, form)
  local lines, times, slopes = {}, {}, {}
  local function add(line) lines[#lines + 1] = line end
  for i = 2, m.stages do times[#times + 1], slopes[#slopes + 1] = "t" .. i, listed("k" .. i, n) end
  add("local type = type")
  add(("return function(f, h, %s, %s, %s)"):format(table.concat(times, ", "), listed("y", n), listed("k1", n)))
  M.write(add, m, n, form, "return")
  add(("return %s, %s"):format(listed("u", n), table.concat(slopes, ", ")))
  add("end")
  return table.concat(lines, "\n")
end

local own = debug.getinfo(1, "S").source
local made = {}

--- The function for an entry of ode.methods, n numbers and a form ("table" or "number"), or nil where there is none:
--- (f, h, times of stages 2 …, y, f(t, y)) → the last stage's state, slopes of stages 2 …; nothing when f gave
--- something else than numbers.
function M.of(m, n, form)
  if m.family ~= "explicit Runge–Kutta" or m.stages < 2 then return nil end
  if n < 1 or n > MOST_ELEMENTS or n * m.stages > MOST_NUMBERS then return nil end
  local key = ("%s %d %s"):format(m.name, n, form)
  local f = made[key]
  if not f then
    f = assert((loadstring or load)(source_of(m, n, form), own))()
    made[key] = f
  end
  return f
end

M.listed = listed

return M
