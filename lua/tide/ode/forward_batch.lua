-- grad = "forward" of a batch: each row carries the tangents of its own start and of what f closes over (forward.lua).

local autograd = require "tide.autograd"
local core = require "tide.core"
local forward = require "tide.ode.forward"
local message = require "tide.message"
local tensors = require "tide.tensor"

local M = {}

local raise = message.raise

-- {count, 1, …} for a state of `ndim` dims.
local function column(count, ndim)
  local shape = {count}
  for i = 1, ndim do shape[1 + i] = 1 end
  return shape
end

-- The first time of each row, as f gets it, and the rows' numbers.
local function first_arguments(times, y0)
  local first, rows = {}, {}
  for i, t in ipairs(times) do first[i], rows[i] = t[1]:item(), i end
  return core.reshape(core.tensor(first, "float64"), column(#times, y0.ndim - 1)), core.tensor(rows, "int64")
end

-- By rows: what each row's saved values give, of g, saved rows × tangents.
local function by_row(g, results)
  local list, at = {}, 1
  for i, result in ipairs(results) do
    list[i] = core.sum(core.narrow(g, 1, at, result.reached), 1)
    at = at + result.reached
  end
  return tensors.stack(list, 1)
end

-- Each row's sensitivities, from its saved rows × tangents × elements.
local function sensitivity_of(all, y0, y, parts)
  return function(x)
    local at = 1
    for _, p in ipairs {y0.needs_grad and y0 or false, unpack(parts)} do
      local count = p and (p == y0 and y.numel or p.numel) or 0
      if p and core.same_point(p, x) then
        local shape = {all:size(1)}
        for _, v in ipairs(y.shape) do shape[#shape + 1] = v end
        for _, v in ipairs(p == y0 and y.shape or p.shape) do shape[#shape + 1] = v end
        return core.reshape(core.contiguous(tensors.transpose(core.narrow(all, 2, at, count), 2, 3)), shape)
      end
      at = at + count
    end
  end
end

--- core.ode_solve_batch(f, y0, times of all rows, request) with tangents, `times` a list for the rows: before
--- its results a list of functions, for each row, that give the sensitivities to a tensor; nil when nothing needs a
--- gradient.
function M.solve(f, state, y0, times, request)
  local all_times = core.cat(times, 1)
  if request.events then
    raise("ode.solve: grad = \"forward\" does not pass events in a batch, use \"discrete\"")
  elseif core.recording() and all_times.needs_grad then
    raise("ode.solve: grad = \"forward\" of a batch has no gradient of times, use \"discrete\"")
  end
  local y, n = state.y0, y0:size(1)
  local parts, seeds, first = {}, {}, {}
  if core.recording() then
    local t, rows = first_arguments(times, y0)
    parts = forward.externals_of(f, nil, request.params, t, y0, rows)
    seeds, first = forward.directions_of(y0, y, parts, nil, request.max_tangents)
  end
  local dim = forward.dim_of(request)
  if #seeds == 0 then
    return nil, core.ode_solve_batch(f, y0, all_times, forward.lifted_request(request, state, y.numel, 0))
  end
  local own = forward.lifted_request(request, state, y.numel, dim == 1 and 1 + #seeds or 0)
  local field = forward.lifted(f, y.shape, dim, parts, seeds)
  local function run(start)
    local list = {core.reshape(start, {n, y.numel})}
    for k, v in ipairs(first) do list[1 + k] = core.expand(core.reshape(v, {1, y.numel}), {n, y.numel}) end
    return core.ode_solve_batch(field, tensors.stack(list, dim + 1), all_times, own)
  end
  local work = {dim = dim, count = #seeds}
  local Y, results, counter = autograd.no_grad(run, y0:detach())
  local tangents = forward.derivatives_of(work, Y, {})[1]
  local ys = forward.states_of(work, Y, y.shape)
  local operands = {}
  if y0.needs_grad then operands[1] = y0 end
  for _, p in ipairs(parts) do operands[#operands + 1] = p end
  local out = core.custom({ys}, operands, function(w)
    local again = tangents
    if core.recording() then
      local Y2 = run(y0)
      if Y2:size(1) ~= Y:size(1) then raise("ode.solve: the batch went another way when repeated") end
      again = forward.derivatives_of(work, Y2, {})[1]
    end
    local g = core.sum(again * core.reshape(w, {again:size(1), 1, again:size(3)}), 3)
    local grads, at = {}, 1
    if y0.needs_grad then
      grads[1] = core.reshape(core.to(by_row(core.narrow(g, 2, 1, y.numel), results), y0.dtype), y0.shape)
      at = 1 + y.numel
    end
    if #parts > 0 then
      local total = core.sum(core.narrow(g, 2, at, #seeds - at + 1), 1)
      for _, x in ipairs((forward.pieces(total, parts))) do grads[#grads + 1] = x end
    end
    return unpack(grads, 1, #operands)
  end)
  local sensitivities, at = {}, 1
  for i, result in ipairs(results) do
    sensitivities[i] = sensitivity_of(core.narrow(tangents, 1, at, result.reached), y0, y, parts)
    at = at + result.reached
  end
  return sensitivities, out, results, counter
end

return M
