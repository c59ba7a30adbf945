-- Second derivatives of a solve by methods whose steps are not put on the tape. With g = Jᵀw the gradient for a
-- cotangent w of the saved values, ⟨g, v⟩ = ⟨w, Jv⟩, and Jv is the tangent that rides on the steps from v. So g is
-- recorded as the result of an operation whose derivative for a cotangent v is that of a solve with the one tangent v:
-- exact, and it can be differentiated again.

local autograd = require "tide.autograd"
local core = require "tide.core"
local forward = require "tide.ode.forward"
local raise = require("tide.message").raise
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

--- What the core calls when the gradient of a solve is to be differentiated again, and where the solve's own grid has
--- to be put, {nodes = …}: its steps are made once more.
function M.of(f, state, times, request)
  local taken, shape = {}, state.y0.shape

  -- The tangent of the saved rows from v, by y0 and by the parts, times × state; further: it is differentiated twice.
  local function tangent(y0, parts, v, further)
    local dim, seed = forward.dim_of(request), {}
    for i = 1, #parts do seed[i] = v[1 + i] end
    local own = forward.lifted_request(request, state, y0.numel, dim == 1 and 2 or 0)
    local field = forward.lifted(f, shape, dim, parts, {seed})
    for i, g in ipairs(request.halves or {}) do own.halves[i] = forward.lifted(g, shape, dim, parts, {seed}) end
    own.grid, own.step_size, own.first_step = core.tensor(taken.nodes, "float64"), 0, 0
    local first = v[1] and core.reshape(v[1], -1) or core.zeros({y0.numel}, y0.dtype)
    local start = tensors.stack({core.reshape(y0, -1), first}, dim)
    if further then
      local steps
      own.second, steps = M.of(field, {y0 = start}, times, own)
      steps.nodes = taken.nodes
    end
    local Y, result = core.ode_solve(field, start, times, own)
    if result.status ~= "ok" then raise("ode.solve: the solve failed when repeated: %s", result.message) end
    return core.select(Y, 1 + dim, 2)
  end

  return function(y0, parts, w, grads)
    local all, unpacked = packed(grads, 1 + #parts)
    local operands = {w, y0, unpack(parts)}
    local recorded = core.custom({all}, operands, function(v)
      local outer = core.recording()
      return autograd.enable_grad(function()
        local start = y0.needs_grad and core.contiguous(y0) or y0
        local s = tangent(start, parts, unpacked(v), outer)
        local value, points, at = core.sum(s * core.reshape(w, s.shape)), {}, {}
        for i, x in ipairs {start, unpack(parts)} do
          if x.needs_grad then points[#points + 1], at[#at + 1] = x, i end
        end
        local wanted = #points
        for _, x in ipairs {w, v} do  -- where the pass has to stop
          if x.needs_grad then points[#points + 1] = x end
        end
        local out = {core.reshape(outer and s or s:detach(), w.shape)}
        local found = value.needs_grad and core.backward({value}, nil, points, outer, outer, true) or {}
        for k = 1, math.min(wanted, #found) do out[1 + at[k]] = found[k] or nil end
        return unpack(out, 1, #operands)
      end)
    end)
    return unpacked(recorded)
  end, taken
end

return M
