-- Second derivatives of a solve by methods whose steps are not put on the tape. With g = Jᵀw the gradient for a
-- cotangent w of the saved values, ⟨g, v⟩ = ⟨w, Jv⟩, and Jv is the tangent that rides on the steps from v. So g is
-- recorded as the result of an operation whose derivative for a cotangent v is that of a solve with the one tangent v:
-- exact, and it can be differentiated again.

local autograd = require "tide.autograd"
local core = require "tide.core"
local crossing = require "tide.ode.crossing"
local forward = require "tide.ode.forward"
local raise = require("tide.message").raise
local rows_of = require "tide.ode.rows"
local tensors = require "tide.tensor"

local M = {}

-- All gradients that there are in one vector, and the way back.
local function packed(grads, count)
  local list, places, at = {}, {}, 1
  for i = 1, count do
    local g = grads[i]
    if g then
      list[#list + 1] = core.reshape(core.to(g, "float64"), -1)
      places[i] = {at, g.numel, g.shape, g.dtype}
      at = at + g.numel
    end
  end
  local function unpacked(all)
    local out = {}
    for i, p in pairs(places) do
      out[i] = core.to(core.reshape(core.narrow(all, 1, p[1], p[2]), p[3]), p[4])
    end
    return out
  end
  return core.cat(list, 1), unpacked
end

-- The solve of (y0, the tangent v), with the times and events of a request: the work for forward.derivatives_of, and
-- what the core gave. nodes: the grid to be taken once more, nil where the same options find the same steps.
-- solve(field, start, own) is the core's.
local function tangent_solve(f, state, request, y0, parts, v, nodes, solve, further)
  local shape, dim, seed = state.y0.shape, forward.dim_of(request), {}
  for i = 1, #parts do seed[i] = v[1 + i] end
  local n = state.y0.numel
  local own = forward.lifted_request(request, state, n, dim == 1 and 2 or 0)
  local field = forward.lifted(f, shape, dim, parts, {seed})
  for i, g in ipairs(request.halves or {}) do own.halves[i] = forward.lifted(g, shape, dim, parts, {seed}) end
  local work = {dim = dim, count = 1}
  local one = request.counts and rows_of.alone(f, #shape) or f
  own.events, work.crossings = crossing.lifted(request.events, one, shape, dim, parts, {seed})
  if nodes then own.grid, own.step_size, own.first_step = core.tensor(nodes, "float64"), 0, 0 end
  local rows = y0.numel ~= n and y0:size(1) or request.counts and y0:size(1)
  local flat = rows and {rows, n} or {n}
  local first = v[1] and core.reshape(v[1], flat) or core.zeros(flat, y0.dtype)
  local start = tensors.stack({core.reshape(y0, flat), first}, rows and dim + 1 or dim)
  if further then further(field, start, own) end
  return work, solve(field, start, own)
end

--- What the core calls when the gradient of a solve is to be differentiated again, and where the solve's own grid has
--- to be put, {nodes = …}: its steps are made once more. Of a batch, where request.counts says how many times each row
--- has, and of solves with events, the same options find the same steps.
function M.of(f, state, times, request)
  local taken = {}
  local batch = request.counts ~= nil
  local again = not batch and not request.events

  -- Derivatives of all results along v, by y0 and by the parts; further: they are differentiated twice.
  local function tangent(y0, parts, v, further)
    local function solve(field, start, own)
      if batch then return core.ode_solve_batch(field, start, times, own) end
      return core.ode_solve(field, start, times, own)
    end
    local function prepare(field, start, own)
      local steps
      local one = batch and core.select(start, 1, 1) or start
      own.second, steps = M.of(field, {y0 = one}, times, own)
      steps.nodes = taken.nodes
    end
    local function checked(work, Y, result, ...)
      if batch and not request.events then return {core.narrow(Y, 1 + work.dim, 2, 1)} end
      if batch then
        local _, event_t, before = ...
        return rows_of.joined(rows_of.derivatives(work, Y, result, event_t, before))
      end
      if again and result.status ~= "ok" then
        raise("ode.solve: the solve failed when repeated: %s", result.message)
      end
      return forward.derivatives_of(work, Y, result, ...)
    end
    return checked(tangent_solve(f, state, request, y0, parts, v, again and taken.nodes or nil, solve,
      further and prepare))
  end

  -- w: the cotangents of the results, false where there is none.
  return function(y0, parts, w, grads)
    local all, unpacked = packed(grads, 1 + #parts)
    local cotangents, place = {}, {}
    for i = 1, 4 do
      if w[i] then cotangents[#cotangents + 1], place[#place + 1] = w[i], i end
    end
    local operands = {unpack(cotangents)}
    for _, x in ipairs {y0, unpack(parts)} do operands[#operands + 1] = x end
    local recorded = core.custom({all}, operands, function(v)
      local outer = core.recording()
      return autograd.enable_grad(function()
        local start = y0.needs_grad and core.contiguous(y0) or y0
        local s = tangent(start, parts, unpacked(v), outer)
        local value, points, at = 0, {}, {}
        for k, i in ipairs(place) do
          local own = s[i] and core.reshape(s[i], cotangents[k].shape)
          if own then value = value + core.to(core.sum(own * cotangents[k]), "float64") end
        end
        for i, x in ipairs {start, unpack(parts)} do
          if x.needs_grad then points[#points + 1], at[#at + 1] = x, i end
        end
        local wanted = #points
        local function stop(x)  -- where the pass has to stop
          if x.needs_grad then points[#points + 1] = x end
        end
        for _, x in ipairs(cotangents) do stop(x) end
        stop(v)
        local out = {}
        for k, i in ipairs(place) do
          local own = s[i] and core.reshape(s[i], cotangents[k].shape)
          out[k] = own and (outer and own or own:detach()) or false
        end
        local found = tensors.is_tensor(value) and value.needs_grad
          and core.backward({value}, nil, points, outer, outer, true) or {}
        for k = 1, math.min(wanted, #found) do out[#place + at[k]] = found[k] or false end
        for i = 1, #operands do out[i] = out[i] or nil end
        return unpack(out, 1, #operands)
      end)
    end)
    return unpacked(recorded)
  end, taken
end

return M
