-- Batches: every row of y0 is an equation of its own, with its own times, steps, events, status and statistics.

local captures = require "tide.ode.captured"
local core = require "tide.core"
local forward = require "tide.ode.forward_batch"
local masses = require "tide.ode.mass"
local message = require "tide.message"
local options = require "tide.options"
local pass = require "tide.nn.pass"
local requests = require "tide.ode.request"
local seconds = require "tide.ode.second"
local solutions = require "tide.ode.solution"
local tensors = require "tide.tensor"

local M = {}

local raise, is_tensor = message.raise, tensors.is_tensor

-- ---- Results ----

local Batch = {}
Batch.__index = Batch

function Batch:__tostring()
  local counts, nfe, most, order = {}, 0, 0, {}
  for _, row in ipairs(self.rows) do
    if not counts[row.status] then order[#order + 1] = row.status end
    counts[row.status] = (counts[row.status] or 0) + 1
    nfe, most = nfe + row.stats.nfe, math.max(most, row.stats.steps)
  end
  local parts = {}
  for i, status in ipairs(order) do parts[i] = ("%d %s"):format(counts[status], status) end
  return ("ode.solve of a batch of %d by %s: %s\n  %d evaluations of a row, at most %d steps"):format(#self.rows,
    self.method, table.concat(parts, ", "), nfe, most)
end

--- The rows that did not come to their end, each explained; why f is not captured.
function Batch:explain()
  local lines = {tostring(self)}
  if self.not_captured then lines[2] = solutions.as_it_is(self.not_captured) end
  for i, row in ipairs(self.rows) do
    if row.status ~= "ok" and row.status ~= "event" then lines[#lines + 1] = ("row %d: %s"):format(i, row:explain()) end
  end
  return table.concat(lines, "\n")
end

-- Fields of all rows from those of each; tensors where the rows have equally many.
local function collected(rows, method)
  local self = {rows = rows, method = method, status = {}, message = {}, stats = {}, ts = {}, ys = {}, last = {}}
  local same = #rows > 0 and is_tensor(rows[1].ys)
  for i, row in ipairs(rows) do
    for _, name in ipairs {"status", "message", "stats", "ts", "ys", "last"} do self[name][i] = row[name] end
    same = same and row.ys:size(1) == rows[1].ys:size(1)
  end
  if #rows > 0 then self.captured, self.not_captured = rows[1].captured, rows[1].not_captured end
  if #rows > 0 and is_tensor(rows[1].ys) then self.last = tensors.stack(self.last, 1) end
  if same then self.ys, self.ts = tensors.stack(self.ys, 1), tensors.stack(self.ts, 1) end
  return setmetatable(self, Batch)
end

--- batch(t), with dense = true: the states of all rows at one time, and their derivatives, stacked. Each row has its
--- own, batch.rows[i](t).
function Batch:at(t, side)
  local ys, slopes = {}, {}
  for i, row in ipairs(self.rows) do ys[i], slopes[i] = row:at(t, side) end
  if #ys == 0 or not is_tensor(ys[1]) then return ys, slopes end
  return tensors.stack(ys, 1), tensors.stack(slopes, 1)
end

Batch.__call = Batch.at

local function check_failures(rows, o)
  if not o.throw then return end
  for i, row in ipairs(rows) do
    if row.status ~= "ok" and row.status ~= "event" then raise("ode.solve: row %d: %s", i, row.message) end
  end
end

-- ---- What is asked ----

-- A float64 tensor of times for each of n rows.
local function times_of_rows(t, n)
  local list = {}
  if is_tensor(t) and t.ndim == 2 then
    if t:size(1) ~= n then raise("ode.solve: t has %d rows, the batch has %d", t:size(1), n) end
    for i = 1, n do list[i] = requests.times_of(core.select(t, 1, i)) end
  elseif type(t) == "table" and (type(t[1]) == "table" or (is_tensor(t[1]) and t[1].ndim == 1)) then
    if #t ~= n then raise("ode.solve: t has %d rows, the batch has %d", #t, n) end
    for i = 1, n do list[i] = requests.times_of(t[i]) end
  else
    local shared = requests.times_of(t)
    for i = 1, n do list[i] = shared end
  end
  return list
end

-- rtol or atol: a number for all rows, or one for each.
local function row_tolerance(name, v, n)
  if type(v) == "number" then return v end
  local all = is_tensor(v) and core.to(v, "float64") or core.tensor(v, "float64")
  if all.numel ~= n then raise("ode.solve: %s has %d elements, the batch has %d rows", name, all.numel, n) end
  return all:min():item(), core.contiguous(core.reshape(all:detach(), -1))
end

local function set_stops(request, o)
  local at, list, jumps = {}, {}, {}
  for name, jump in pairs {step_t = 0, jump_t = 1} do
    for _, t in ipairs(requests.numbers_of(name, o[name])) do at[t] = math.max(at[t] or 0, jump) end
  end
  for t in pairs(at) do list[#list + 1] = t end
  if #list == 0 then return end
  table.sort(list)
  for i, t in ipairs(list) do jumps[i] = at[t] end
  request.stops, request.jumps = core.tensor(list, "float64"), core.tensor(jumps, "float64")
end

-- The fixed grids of the rows, under one another.
local function set_grids(request, construct, f, y0, times)
  local grids, nodes = {}, {}
  for i, own in ipairs(times) do
    grids[i] = requests.grid_of(construct, f, core.select(y0, 1, i), own)
    nodes[i] = grids[i].numel
  end
  request.grids, request.nodes = core.cat(grids, 1), core.tensor(nodes, "float64")
end

-- ---- Solving ----

-- The option event or events with functions that are told the row.
local function events_of_row(given, i)
  if type(given) == "function" then return function(t, y) return given(t, y, i) end end
  if type(given) ~= "table" then return given end
  local own = {}
  for k, v in pairs(given) do
    own[k] = (type(v) == "table" or type(v) == "function") and events_of_row(v, i) or v
  end
  return own
end

-- Plain numbers: one solve after the other, which no batching could make faster.
local function one_by_one(solve, f, y0, t, o)
  local rows, alone, jac = {}, {}, o.jac
  for k, v in pairs(o) do alone[k] = v end
  alone.batch, alone.throw = nil, false
  local times = times_of_rows(t, #y0)
  for i, start in ipairs(y0) do
    for _, name in ipairs {"rtol", "atol"} do
      if type(o[name]) == "table" then alone[name] = o[name][i] end
    end
    alone.event, alone.events = events_of_row(o.event, i), events_of_row(o.events, i)
    if type(jac) == "function" then alone.jac = function(time, y) return jac(time, y, i) end end
    rows[i] = solve(function(time, y) return f(time, y, i) end, start, times[i], alone)
  end
  return rows
end

local function part(x, begin, count)
  return x and core.narrow(x, 1, begin, count)
end

-- The solutions of the rows from those of all.
local function split(request, state, times, o, captured, sensitivities, ys, results, counter, event_t, before, after)
  local rows, y_at, hit_at = {}, 1, 1
  for i, result in ipairs(results) do
    local hits = #result.event_index
    rows[i] = solutions.of(request, state, times[i], captured, o.save_fn, part(ys, y_at, result.reached), result,
      counter, result.every, part(event_t, hit_at, hits), part(before, hit_at, hits), part(after, hit_at, hits),
      result.path)
    rows[i].tangents = sensitivities and sensitivities[i]
    y_at, hit_at = y_at + result.reached, hit_at + hits
  end
  return rows
end

--- solve(f, y0, t, {batch = true, …}) for all rows of y0; solve is the one for a single equation.
function M.solve(solve, f, y0, t, opts)
  local o = options.check("ode.solve", opts, requests.defaults)
  if opts.throw == nil then o.throw = false end
  if type(y0) == "table" and type(y0[1]) ~= "nil" and not is_tensor(y0) and not is_tensor(y0[1]) then
    local rows = one_by_one(solve, f, y0, t, opts)
    check_failures(rows, o)
    return collected(rows, tostring(o.method))
  end
  if not is_tensor(y0) or y0.ndim < 1 then
    raise("ode.solve: a batch needs y0 with a row for each equation, got a %s",
      is_tensor(y0) and "0-d tensor" or type(y0))
  end
  if o.jac ~= nil and type(o.jac) ~= "function" then
    raise("ode.solve: jac is a %s, expected a function jac(t, y, rows)", type(o.jac))
  end
  local n = y0:size(1)
  if n == 0 then return collected({}, tostring(o.method)) end
  local times = times_of_rows(t, n)
  for i, own in ipairs(times) do
    if o.event or o.events then times[i] = requests.bounded(own) end
  end
  local row_rtol, row_atol
  o.rtol, row_rtol = row_tolerance("rtol", o.rtol, n)
  o.atol, row_atol = row_tolerance("atol", o.atol, n)
  local stops = {step_t = o.step_t, jump_t = o.jump_t}
  o.step_t, o.jump_t = nil, nil
  local construct = o.grid_constructor
  if construct then
    local first = requests.grid_of(construct, f, core.select(y0, 1, 1), times[1])
    o.grid_constructor = function() return first end
  end
  local state = requests.state_of(core.select(y0, 1, 1))
  local request = requests.of(o, f, y0, state, times[1])
  request.row_rtol, request.row_atol = row_rtol, row_atol
  set_stops(request, stops)
  if construct then
    request.grid = nil
    set_grids(request, construct, f, y0, times)
  end
  request.jacobian = o.jac
  local counts = {}
  for i, own in ipairs(times) do counts[i] = own.numel end
  request.counts = core.tensor(counts, "float64")
  local field, captured = pass.hold(function(time, y, rows) return f(time, y, rows) end), {}
  field = masses.solved(field, request.inverse, nil, y0.dtype)
  if o.capture then request.capture = captures.accepts(o.capture, f, captured) end
  local all_times = core.cat(times, 1)
  local function solved()
    if request.grad == "forward" then return forward.solve(field, state, y0, times, request) end
    if core.recording() and request.grad == "discrete" then
      request.second = seconds.of(field, state, all_times:detach(), request)
    end
    return nil, core.ode_solve_batch(field, y0, all_times, request)
  end
  local rows = split(request, state, times, o, captured, solved())
  check_failures(rows, o)
  return collected(rows, request.method)
end

return M
