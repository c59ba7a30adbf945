-- What the rows of a batch need to pass through events in forward mode and in second derivatives.

local core = require "tide.core"
local forward = require "tide.ode.forward"

local M = {}

--- f(t, y, rows) of a batch as a function (t, y, row) of one row, whose state has `ndim` dims.
function M.alone(f, ndim)
  local ones = {1}
  for i = 1, ndim do ones[1 + i] = 1 end
  return function(t, y, row)
    return core.select(f(core.reshape(t, ones), core.unsqueeze(y, 1), core.tensor({row}, "int64")), 1, 1)
  end
end

--- i(x): the part of row i of x, whose rows have as many entries as sizes(result) says; false for what is none.
local function parts_of(results, sizes)
  local begins, at = {}, 1
  for i, result in ipairs(results) do
    begins[i] = at
    at = at + sizes(result)
  end
  return function(x, i) return x and core.narrow(x, 1, begins[i], sizes(results[i])) or false end
end

--- Functions (x, i) that give row i's part of the saved values, and of the events.
function M.split(results)
  return parts_of(results, function(r) return r.reached end), parts_of(results, function(r) return #r.event_index end)
end

--- The derivatives of each row's results by the tangents, as of forward.derivatives_of, from what
--- core.ode_solve_batch gave for lifted states.
function M.derivatives(work, Y, results, event_t, before)
  local saved, hits = M.split(results)
  local list = {}
  for i, result in ipairs(results) do
    local own = {dim = work.dim, count = work.count, crossings = work.crossings, row = i}
    local t, y = hits(event_t, i) or nil, hits(before, i) or nil
    list[i] = forward.derivatives_of(own, saved(Y, i), result, nil, nil, t, y)
  end
  return list
end

--- The rows' derivatives under one another: of the saved values, of the events' times, of the states before and after.
function M.joined(list)
  local out = {}
  for k = 1, 4 do
    local parts = {}
    for _, own in ipairs(list) do
      if own[k] then parts[#parts + 1] = own[k] end
    end
    out[k] = #parts > 0 and core.cat(parts, 1) or nil
  end
  return out
end

return M
