-- The manual's table of what goes with what, cell by cell: yes runs, no is refused at the caller's line.

local tide = require "tide"
require "spec.helper"
local ode = tide.ode

local function read_table()
  local methods, rows = nil, {}
  local file = assert(io.open("doc/manual.md"))
  local inside = false
  for line in file:lines() do
    if line:find("^#### What goes with what") then inside = true
    elseif inside and line:find("^|") then
      local cells = {}
      for cell in line:sub(2):gmatch("%s*([^|]-)%s*|") do cells[#cells + 1] = cell end
      if not methods then
        methods = cells
      elseif not cells[1]:find("^%-") then
        rows[#rows + 1] = cells
      end
    elseif inside and methods then
      break
    end
  end
  file:close()
  return methods, rows
end

local gradients = {discrete = true, forward = true, interp = true, gauss = true, backsolve = true, reversible = true}

-- What a row's heading asks for.
local function wanted(heading)
  local want = {}
  for word in heading:gmatch("[%a_]+") do
    if gradients[word] then want.grad = word else want[word] = true end
  end
  return want
end

local function attempt(method, want)
  local m = ode.methods[method]
  local o = {method = method, rtol = 1e-4, atol = 1e-6, grad = want.grad, batch = want.batch, dense = want.dense,
    max_steps = 5000}
  if m.error_order == 0 then o.step_size = 0.05 end
  if method == "etdrk4" then o.linear = tide.tensor({-0.3, -0.1}, "float64") end
  if want.mass then o.mass = {1, 2} end
  if want.singular then o.mass = {1, 0} end
  if want.event then
    o.event = {fn = function(_, y) return y[1] - 0.85 end, terminal = false}
  end
  local p = tide.tensor({1.1}, "float64")
  local y0 = tide.tensor(want.batch and {{1, 0.1}, {0.9, 0.2}} or {1, 0.1}, "float64")
  if want.singular then y0 = tide.tensor({1, -math.sin(1) / 0.3}, "float64") end
  if want.grad then p:requires_grad() y0:requires_grad() end
  local function f(_, y)
    local last = y.ndim
    local x, v = y:narrow(last, 1, 1), y:narrow(last, 2, 1)
    if method == "verlet" then return tide.cat({v * p, -(x:sin())}, last) end
    return tide.cat({v * p, -(x:sin()) - v * 0.3}, last)
  end
  local sol = ode.solve(f, y0, {0, 1}, o)
  if not want.grad then return end
  local loss = sol.last:sum()
  if want.event and not want.batch then loss = loss + sol.events.t:sum() end
  local g = tide.gradients(loss, {p, y0}, {create_graph = want.second})
  assert(g[1]:isfinite():all():item() and g[1]:abs():item() > 0, "no gradient")
  if want.second then tide.gradients(g[1]:sum() + (g[2] * y0:detach()):sum(), {p}) end
end

describe("what goes with what", function()
  local methods, rows = read_table()
  it("is in the manual", function() assert.is_true(#methods > 10 and #rows > 15) end)
  for _, cells in ipairs(rows) do
    it(cells[1]:gsub("`", "") .. " as the manual says", function()
      local wrong = {}
      for i = 2, #methods do
        local method = methods[i]:gsub("`", "")
        local ok, why = pcall(attempt, method, wanted(cells[1]))
        if ok ~= (cells[i] == "yes") then
          wrong[#wrong + 1] = ("%s: %s"):format(method, ok and "runs" or tostring(why))
        end
        if not ok and not tostring(why):find("ode_matrix_spec.lua:%d+: ode.solve: ") then
          wrong[#wrong + 1] = method .. " is not refused here: " .. tostring(why)
        end
      end
      assert.are.equal("", table.concat(wrong, "\n"))
    end)
  end
end)
