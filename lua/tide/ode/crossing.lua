-- Tangents through events. Where c(t, y) crosses zero at t*, the time moves by δt = −(c_y s + c_p δp)/ċ, with
-- ċ = c_t + c_y f, for a tangent s of the state before; the state before moves by s + f δt, the
-- state after a reset A(t, y, p) by
-- A_y(s + f δt) + A_t δt + A_p δp, and the tangent that the solve goes on with is that less f⁺δt, f⁺ the slope after.
-- These are the continuous formulas: with those of `discrete` they agree to the accuracy of the steps.

local autograd = require "tide.autograd"
local core = require "tide.core"
local raise = require("tide.message").raise
local tensors = require "tide.tensor"

local M = {}

--- The products of dy's derivative by the points with each tangent, a table from their numbers to directions: the
--- derivative by u of ⟨uᵀ∂dy, tangent⟩. false where one is zero. With `outer` they can be differentiated again.
function M.products(dy, points, tangents, outer)
  local u = core.zeros(dy.shape, dy.dtype):requires_grad()
  local pulled = core.backward({dy}, {u}, points, true, true, true)
  local out = {}
  for k, tangent in ipairs(tangents) do
    local outputs, cotangents = {}, {}
    for i, v in pairs(tangent) do
      if pulled[i] and pulled[i].needs_grad then
        outputs[#outputs + 1], cotangents[#cotangents + 1] = pulled[i], core.to(v, pulled[i].dtype)
      end
    end
    out[k] = #outputs > 0 and core.backward(outputs, cotangents, {u}, outer, true, true)[1] or false
  end
  return out
end

-- A number's derivatives by the points along each tangent, as 0-d float64 tensors.
local function slopes_of(c, points, tangents, outer)
  if not tensors.is_tensor(c) or not c.needs_grad then return nil end
  local by, out = core.backward({c}, nil, points, outer, true, true), {}
  for k, tangent in ipairs(tangents) do
    local sum = core.zeros({}, "float64")
    for i, v in pairs(tangent) do
      if by[i] then sum = sum + core.to(core.sum(by[i] * v), "float64") end
    end
    out[k] = sum
  end
  return out
end

--- event {fn, reset} of a solve of f with the tangents seeds[k], directions in the parts, stacked along dim of Y: a
--- function of (t, Y, row), the batch's row if there is one, that gives what moves there: dt (a list of 0-d tensors, or
--- nil: the time is constant), before and after (lists of the states' derivatives), and the state after with the
--- tangents to go on with.
function M.of(event, f, shape, dim, parts, seeds)
  local function at(t, Y, row)
    local outer = core.recording()
    local function vector(k) return core.reshape(core.select(Y, dim, k), shape) end
    local function point(x) return x.needs_grad and x or x:detach():requires_grad() end
    local y, time = point(vector(1)), point(t)
    local points = {y, time, unpack(parts)}
    local slope = core.to(f(time, y, row), y.dtype)
    local after = event.reset and core.to(event.reset(time, y, row), y.dtype) or y
    local tangents = {}
    for k, seed in ipairs(seeds) do
      tangents[k] = {vector(1 + k)}
      for i, direction in pairs(seed) do tangents[k][2 + i] = direction end
    end
    local along = {{slope, core.full({}, 1, "float64")}}
    for k, tangent in ipairs(tangents) do along[1 + k] = tangent end
    local moved = slopes_of(event.fn(time, y, row), points, along, outer)
    local dt, before, total = moved and {}, {}, {}
    for k, tangent in ipairs(tangents) do
      before[k] = tangent[1]
      if moved then
        dt[k] = -moved[1 + k] / moved[1]
        before[k] = before[k] + core.to(slope * dt[k], y.dtype)
        tangent[1], tangent[2] = before[k], dt[k]
      end
    end
    local list = {core.reshape(after, -1)}
    if event.reset then
      local reset = after.needs_grad and M.products(after, points, tangents, outer) or {}
      local slope_after = moved and core.to(f(time, after, row), y.dtype)
      for k = 1, #seeds do
        total[k] = reset[k] or core.zeros(shape, y.dtype)
        list[1 + k] = core.reshape(moved and total[k] - core.to(slope_after * dt[k], y.dtype) or total[k], -1)
      end
    else
      total = before
      for k, tangent in ipairs(tangents) do list[1 + k] = core.reshape(tangent[1], -1) end
    end
    local rate = moved and moved[1]:detach():item()
    return {dt = dt, before = before, after = total, state = tensors.stack(list, dim), rate = rate}
  end
  return function(t, Y, row)
    local outer = core.recording()
    local out = autograd.enable_grad(at, t, Y, row)
    if outer then return out end
    for _, name in ipairs {"dt", "before", "after"} do
      for k, x in ipairs(out[name] or {}) do out[name][k] = x:detach() end
    end
    out.state = out.state:detach()
    return out
  end
end

--- The events of a request for the lifted solve, and the functions above for each.
function M.lifted(events, f, shape, dim, parts, seeds)
  local list, crossings = {}, {}
  for i, e in ipairs(events or {}) do
    local at = M.of(e, f, shape, dim, parts, seeds)
    crossings[i], list[i] = at, {
      direction = e.direction, stop_after = e.stop_after,
      fn = function(t, Y, row) return e.fn(t, core.reshape(core.select(Y, dim, 1), shape), row) end,
      reset = e.reset and function(t, Y, row) return at(t, Y, row).state end or nil,
    }
  end
  return events and list, crossings
end

--- The derivatives of all hits of a lifted solve by each tangent: of their times (hits × tangents, float64), of the
--- states before and after (hits × tangents × elements). nil without hits.
function M.of_hits(crossings, count, index, times, before, row)
  if not index or #index == 0 then return nil end
  local dt, list = {}, {before = {}, after = {}}
  for i, which in ipairs(index) do
    local at = core.select(times, 1, i)
    local x = crossings[which](at, core.select(before, 1, i), row)
    if x.dt and x.rate == 0 then
      raise("ode.solve: event %d touches zero at t=%g without crossing it: its time has no derivative", which,
        at:detach():item())
    end
    dt[i] = x.dt and tensors.stack(x.dt, 1) or core.zeros({count}, "float64")
    for name, all in pairs(list) do
      local flat = {}
      for k, v in ipairs(x[name]) do flat[k] = core.reshape(v, -1) end
      all[i] = tensors.stack(flat, 1)
    end
  end
  return tensors.stack(dt, 1), tensors.stack(list.before, 1), tensors.stack(list.after, 1)
end

return M
