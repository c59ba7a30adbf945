-- What a solve gives: values, times, events, statistics, and words about them.

local core = require "tide.core"
local message = require "tide.message"
local tensors = require "tide.tensor"

local is_tensor, raise, shape_of = tensors.is_tensor, message.raise, message.shape

local M = {}

local Solution = {}

-- The times between the steps become a table when they are first asked for.
function Solution:__index(key)
  if key ~= "grid" then return Solution[key] end
  local nodes = rawget(self, "nodes")
  if nodes then self.grid = nodes:totable() end
  return rawget(self, "grid")
end

-- ---- Words ----

local function event_lines(self, lines)
  local e = self.events
  if not e then return end
  local ts = type(e.t) == "table" and e.t or e.t:totable()
  lines[#lines + 1] = ("  %d events%s"):format(#e.index,
    self.event and (", the last one, number %d, ended the solve at t = %.6g"):format(self.event, ts[#ts]) or "")
end

function Solution:__tostring()
  local s = self.stats
  local lines = {
    ("ode.solve by %s: %s"):format(self.method, self.status),
    ("  t from %.6g to %.6g, %d saved times"):format(s.t_first, s.t_last, s.saved),
    ("  %d evaluations, %d steps accepted, %d rejected"):format(s.nfe, s.accepted, s.rejected),
    ("  step sizes %.3g to %.3g"):format(s.h_min, s.h_max),
  }
  if (s.njev or 0) > 0 then lines[#lines + 1] = ("  %d Jacobians, %d factorisations"):format(s.njev, s.nlu) end
  if s.nfe_b > 0 then lines[#lines + 1] = ("  %d evaluations backward"):format(s.nfe_b) end
  event_lines(self, lines)
  if self.message ~= "" then lines[#lines + 1] = "  " .. self.message end
  return table.concat(lines, "\n")
end

-- The elements that most often had the largest error, most first.
local function limiting(limits)
  local list, total = {}, 0
  for i, count in pairs(limits or {}) do
    list[#list + 1] = {i, count}
    total = total + count
  end
  table.sort(list, function(a, b) return a[2] > b[2] or (a[2] == b[2] and a[1] < b[1]) end)
  return list, total
end

local hints = {
  max_steps = "The step limit ended the solve. Raise max_steps, loosen rtol, or try a stiff method (\"rodas5p\", "
    .. "\"bdf\").",
  dt_underflow = "Steps became as small as rounding. If f is smooth and finite there the problem is stiff or its "
    .. "solution blows up; if f jumps, name the time in jump_t or make the jump an event.",
  nonfinite = "f or the state was not finite there, and smaller steps did not help. Look at f near that time.",
  newton_failed = "The implicit equations of a step could not be solved, however small. f may jump there, or jac is "
    .. "wrong.",
  event = "An event ended the solve.",
  bad_input = "Nothing was solved.",
}

--- Why f ran as it is, as a line for explain().
function M.as_it_is(why) return "f was called each time it was needed, as it could not be captured: " .. why end

--- What happened, in words: why it ended, where steps were smallest, which components limited them, and what to try.
function Solution:explain()
  local s, lines = self.stats, {tostring(self)}
  if hints[self.status] then lines[#lines + 1] = hints[self.status] end
  local grid, least, at = self.grid, math.huge, nil
  for i = 1, #grid - 2 do  -- the last step is cut to land
    local h = math.abs(grid[i + 1] - grid[i])
    if h < least then least, at = h, grid[i] end
  end
  if at then lines[#lines + 1] = ("The smallest step, %.3g, began at t = %.6g."):format(least, at) end
  local list, total = limiting(self.limits)
  for i = 1, math.min(3, #list) do
    lines[#lines + 1] = ("Component %d had the largest error in %d %% of the steps."):format(list[i][1],
      math.floor(100 * list[i][2] / total + 0.5))
  end
  if s.rejected > s.accepted then
    lines[#lines + 1] = "More steps were rejected than accepted: f may jump (name the times in jump_t), or change "
      .. "faster than the controller expects (try controller = \"pid_rough\")."
  end
  if self.not_captured then lines[#lines + 1] = M.as_it_is(self.not_captured) end
  return table.concat(lines, "\n")
end

--- sol:at(t), or sol(t) → y, dy/dt at any time inside the solve, with dense = true. side = "left" asks before a jump
--- or a reset.
function Solution:at(t, side)
  if not self.path then raise("ode.solve: sol(t) needs dense = true in the options") end
  if is_tensor(t) then t = t:item() end
  if type(t) ~= "number" then raise("ode.solve: sol(%s): expected a time", tostring(t)) end
  if side ~= nil and side ~= "left" and side ~= "right" then
    raise("ode.solve: side is %s, expected \"left\" or \"right\"", tostring(side))
  end
  local y, dy = self.path(t, side == "left")
  return self.one(y), self.one(dy)
end

Solution.__call = Solution.at

--- sol:sensitivity(x), of a solve with grad = "forward": the derivative of ys by x, times × state × shape of x. x is y0
--- or a tensor that f closes over.
function Solution:sensitivity(x)
  if not self.tangents then
    raise("sensitivity: the solve kept none; it needs grad = \"forward\", and a tensor that needs a gradient")
  end
  if not is_tensor(x) then raise("sensitivity: x is a %s, expected y0 or a tensor that f closes over", type(x)) end
  return self.tangents(x)
    or raise("sensitivity: the right-hand side does not depend on this tensor of shape (%s), or " ..
    "it needs no gradient; name the tensor that f itself uses", shape_of(x))
end

-- ---- Making one ----

-- Statistics; nfe_b counts the evaluations of reverse passes so far, replayed the steps they made again.
local function statistics(stats, counter)
  return setmetatable(stats, {__index = function(_, key)
    if key == "nfe_b" then return (counter()) end
    if key == "replayed" then return (select(2, counter())) end
  end})
end

-- The times of the rows: those reached, and the event's when one ended the solve.
local function times_of(result, times, every, event_t)
  if every then return every end
  if not result.event_row then
    return result.reached == times.numel and times or core.narrow(times, 1, 1, result.reached)
  end
  local n = #result.event_index
  local last = core.narrow(event_t, 1, n, 1)
  if result.reached == 1 then return last end
  return core.cat({core.narrow(times, 1, 1, result.reached - 1), last}, 1)
end

-- save_fn(t, y) of every saved state, stacked.
local function saved_by(fn, ts, ys, state)
  local out, rows = {}, state.one
  for i = 1, ys:size(1) do
    local t = core.select(ts, 1, i)
    out[i] = fn(state.form and t:item() or t, rows(core.select(ys, 1, i)))
  end
  if is_tensor(out[1]) then return tensors.stack(out, 1) end
  return out
end

--- The result of core.ode_solve as a solution.
function M.of(request, state, times, captured, save_fn, ys, result, counter, every, event_t, before, after, path)
  local ts = times_of(result, times, every, event_t)
  local plain = state.times or function(x) return x end
  local self = {
    ts = plain(ts), ys = save_fn and saved_by(save_fn, ts, ys, state) or state.saved(ys),
    last = state.one(core.select(ys, 1, ys:size(1))),
    status = result.status, message = result.message, method = request.method, nodes = result.grid,
    limits = result.limits, stats = statistics(result.stats, counter), path = path, one = state.one,
    captured = captured.used or false, not_captured = captured.why,
  }
  if event_t then
    self.events = {
      t = plain(event_t), index = result.event_index, before = state.saved(before), after = state.saved(after),
    }
    if result.event_row then self.event = result.event_index[#result.event_index] end
  end
  return setmetatable(self, Solution)
end

--- A solution that was refused before f was called.
function M.refused(method, why)
  local stats = {
    nfe = 0, njev = 0, nlu = 0, nfe_b = 0, replayed = 0, accepted = 0, rejected = 0, steps = 0, h_min = 0, h_max = 0,
    t_first = 0 / 0, t_last = 0 / 0, saved = 0, worst_index = 0,
  }
  return setmetatable({
    status = "bad_input", message = why, method = tostring(method), grid = {}, stats = stats, captured = false,
  }, Solution)
end

M.Solution = Solution

return M
