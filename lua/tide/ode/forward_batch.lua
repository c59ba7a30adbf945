-- grad = "forward" of a batch: each row carries the tangents of its own start and of what f closes over (forward.lua).

local autograd = require "tide.autograd"
local core = require "tide.core"
local crossing = require "tide.ode.crossing"
local forward = require "tide.ode.forward"
local message = require "tide.message"
local rows = require "tide.ode.rows"
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
  local first, numbers = {}, {}
  for i, t in ipairs(times) do first[i], numbers[i] = t[1]:item(), i end
  return core.reshape(core.tensor(first, "float64"), column(#times, y0.ndim - 1)), core.tensor(numbers, "int64")
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

-- What f, and the events, depend on.
local function externals_of(f, request, times, y0)
  local t, numbers = first_arguments(times, y0)
  local list = forward.externals_of(f, nil, request.params, t, y0, numbers)
  local first = core.reshape(core.narrow(times[1], 1, 1, 1), {})
  for _, p in ipairs((forward.externals_of(nil, request.events, nil, first, core.select(y0, 1, 1), 1))) do
    local known = false
    for _, q in ipairs(list) do known = known or core.same_point(p, q) end
    if not known then list[#list + 1] = p end
  end
  return list
end

-- The solve of all rows with their tangents, which is run(y0), and what its derivatives are read from.
local function begin(f, y, n, parts, seeds, first, request, times, own)
  local dim = forward.dim_of(request)
  local field = forward.lifted(f, y.shape, dim, parts, seeds)
  local work = {dim = dim, count = #seeds}
  own.events, work.crossings = crossing.lifted(request.events, rows.alone(f, y.ndim), y.shape, dim, parts, seeds)
  function work.run(start)
    local list = {core.reshape(start, {n, y.numel})}
    for k, v in ipairs(first) do list[1 + k] = core.expand(core.reshape(v, {1, y.numel}), {n, y.numel}) end
    return core.ode_solve_batch(field, tensors.stack(list, dim + 1), core.cat(times, 1), own)
  end
  return work
end

-- The derivatives of all rows' results by each tangent, and of every row against its cotangents, rows × tangents.
local function derivatives_of(work, events, Y, results, event_t, before)
  if not events then
    local all = forward.derivatives_of(work, Y, {})[1]
    return all, function(w)
      return by_row(core.sum(all * core.reshape(w[1], {all:size(1), 1, all:size(3)}), 3), results)
    end
  end
  local list = rows.derivatives(work, Y, results, event_t, before)
  return rows.joined(list)[1], function(w)
    local saved, hits = rows.split(results)
    local sums = {}
    for i, own in ipairs(list) do
      local parts = {saved(w[1], i), hits(w[2], i), hits(w[3], i), hits(w[4], i)}
      sums[i] = forward.against(own, parts) or core.zeros({work.count}, Y.dtype)
    end
    return tensors.stack(sums, 1)
  end
end

--- core.ode_solve_batch(f, y0, times of all rows, request) with tangents, `times` a list for the rows: before
--- its results a list of functions, for each row, that give the sensitivities to a tensor; nil when nothing needs a
--- gradient.
function M.solve(f, state, y0, times, request)
  local all_times = core.cat(times, 1)
  if core.recording() and all_times.needs_grad then
    raise("ode.solve: grad = \"forward\" of a batch has no gradient of times, use \"discrete\"")
  end
  local y = state.y0
  local parts, seeds, first = {}, {}, {}
  if core.recording() then
    parts = externals_of(f, request, times, y0)
    seeds, first = forward.directions_of(y0, y, parts, nil, request.max_tangents)
  end
  local dim = forward.dim_of(request)
  if #seeds == 0 then
    return nil, core.ode_solve_batch(f, y0, all_times, forward.lifted_request(request, state, y.numel, 0))
  end
  local own = forward.lifted_request(request, state, y.numel, dim == 1 and 1 + #seeds or 0)
  local work = begin(f, y, y0:size(1), parts, seeds, first, request, times, own)
  local Y, results, counter, event_t, before, after = autograd.no_grad(work.run, y0:detach())
  local tangents, against = autograd.no_grad(derivatives_of, work, request.events, Y, results, event_t, before)
  local outputs = {forward.states_of(work, Y, y.shape)}
  if event_t then
    for i, x in ipairs {event_t, forward.states_of(work, before, y.shape), forward.states_of(work, after, y.shape)} do
      outputs[1 + i] = x
    end
  end
  local operands = {}
  if y0.needs_grad then operands[1] = y0 end
  for _, p in ipairs(parts) do operands[#operands + 1] = p end
  local out, t, y_before, y_after = core.custom(outputs, operands, function(...)
    local again, w = against, {...}
    if core.recording() then
      local Y2, results2, _, event_t2, before2 = work.run(y0)
      local changed = Y2:size(1) ~= Y:size(1) or (event_t and event_t2.numel ~= event_t.numel)
      if changed then raise("ode.solve: the batch went another way when repeated") end
      again = select(2, derivatives_of(work, request.events, Y2, results2, event_t2, before2))
    end
    local g = again(w)
    local grads, at = {}, 1
    if y0.needs_grad then
      grads[1] = core.reshape(core.to(core.narrow(g, 2, 1, y.numel), y0.dtype), y0.shape)
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
    local path = result.path
    if path then
      result.path = function(time, left)
        local there, slope = path(time, left)
        return core.reshape(core.select(there, dim, 1), y.shape), core.reshape(core.select(slope, dim, 1), y.shape)
      end
    end
    at = at + result.reached
  end
  return sensitivities, out, results, counter, t, y_before, y_after
end

return M
