-- L-BFGS: quasi-Newton steps from the last few changes of the gradient, with a line search. Nocedal and
-- Wright, Numerical Optimization (2006): algorithm 7.4 (two-loop recursion), 3.5 and 3.6 (strong Wolfe).

local core = require "tide.core"
local raise = require("tide.message").raise
local optimiser = require "tide.optim.optimiser"
local is_tensor = require("tide.tensor").is_tensor

local huge = math.huge

-- ---- All parameters as one vector ----

local function flat(list, params, dtype)
  local parts = {}
  for i, p in ipairs(params) do
    local t = list[i]
    parts[i] = t and core.reshape(t:detach(), -1):to(dtype) or core.zeros(p.numel, dtype)
  end
  return core.cat(parts, 1)
end

local function spread(params, x)
  local start = 1
  for _, p in ipairs(params) do
    if p.numel > 0 then p:copy_(core.reshape(core.narrow(x, 1, start, p.numel), p.shape)) end
    start = start + p.numel
  end
end

local function dot(a, b) return core.sum(a * b):item() end

-- f and its gradient at x: the parameters take x's values and the closure runs. A loss that is NaN counts as
-- infinite.
local function evaluate(self, closure, x)
  spread(self.all, x)
  self:zero_grad()
  core.recording(true)
  local loss = closure()
  core.recording(false)
  if is_tensor(loss) then loss = loss:item() end
  if type(loss) ~= "number" then raise("LBFGS: the closure gave a %s, expected the loss", type(loss)) end
  self.evaluations = self.evaluations + 1
  local grads = {}
  for i, p in ipairs(self.all) do grads[i] = p.grad end
  return loss == loss and loss or huge, flat(grads, self.all, self.dtype)
end

-- ---- Line searches: points are {a = step, f = value, s = slope along the direction, g = gradient, x} ----

-- The minimum of the cubic through two points and their slopes (3.59), kept a tenth of the interval off its
-- ends.
local function between(p, q)
  local width = q.a - p.a
  local d1 = p.s + q.s - 3 * (p.f - q.f) / (p.a - q.a)
  local square = d1 * d1 - p.s * q.s
  local a = p.a + width / 2
  if square >= 0 and square < huge then
    local d2 = width > 0 and math.sqrt(square) or -math.sqrt(square)
    local cubic = q.a - width * (q.s + d2 - d1) / (q.s - p.s + 2 * d2)
    if cubic == cubic then a = cubic end
  end
  local low, high = math.min(p.a, q.a), math.max(p.a, q.a)
  local margin = 0.1 * (high - low)
  return math.min(high - margin, math.max(low + margin, a))
end

local ARMIJO, CURVATURE = 1e-4, 0.9

-- Algorithm 3.6: a point between low (which has the least value so far) and high that satisfies both
-- conditions; when the evaluations run out, the best one that decreases enough.
local function zoom(try, start, low, high, budget)
  for _ = 1, budget do
    if math.abs(high.a - low.a) <= 1e-14 * math.max(1, math.abs(low.a)) then break end
    local p = try(between(low, high))
    if p.f > start.f + ARMIJO * p.a * start.s or p.f >= low.f then
      high = p
    else
      if math.abs(p.s) <= -CURVATURE * start.s then return p end
      if p.s * (high.a - low.a) >= 0 then high = low end
      low = p
    end
  end
  return low
end

-- Algorithm 3.5: from the step `first` on, further out until an interval holds a good point.
local function strong_wolfe(try, start, first, budget)
  local before, a = start, first
  for i = 1, budget do
    local p = try(a)
    if p.f > start.f + ARMIJO * a * start.s or (i > 1 and p.f >= before.f) then
      return zoom(try, start, before, p, budget)
    end
    if math.abs(p.s) <= -CURVATURE * start.s then return p end
    if p.s >= 0 then return zoom(try, start, p, before, budget) end
    before, a = p, 2 * a
  end
  return before
end

-- Halves the step until the value decreases enough.
local function backtracking(try, start, first, budget)
  local a = first
  for _ = 1, budget do
    local p = try(a)
    if p.f <= start.f + ARMIJO * a * start.s then return p end
    a = a / 2
  end
  return start
end

local searches = {strong_wolfe = strong_wolfe, backtracking = backtracking}

-- ---- The method ----

--- optim.LBFGS(params, {lr = 1, iterations = 20, history = 10, tolerance_grad = 1e-7, tolerance_change =
--- 1e-9, line_search = "strong_wolfe" | "backtracking", evaluations = 25}): opt:step(closure) makes up to
--- `iterations` steps; it stops when the largest component of the gradient falls to tolerance_grad, or a step
--- changes no parameter and the loss by no more than tolerance_change. The closure computes the loss of the
--- whole problem, calls backward and returns the loss (gradients are dropped before it). lr is the first step
--- length tried; `evaluations` bounds each search. Afterwards opt.loss, opt.evaluations and opt.steps (of
--- this call) tell what was done.
local LBFGS = optimiser.class("LBFGS", {
  lr = 1, iterations = 20, history = 10, tolerance_grad = 1e-7, tolerance_change = 1e-9,
  line_search = "strong_wolfe", evaluations = 25,
}, function(name, o)
  optimiser.check_ranges(name, o, {
    lr = {1e-300, huge}, iterations = {1, huge}, history = {1, huge}, tolerance_grad = {0, huge},
    tolerance_change = {0, huge}, evaluations = {1, huge},
  })
  if not searches[o.line_search] then
    raise("%s: line_search is %q, expected \"strong_wolfe\" or \"backtracking\"", name,
      tostring(o.line_search))
  end
end)

-- −H·g, H the inverse Hessian that the remembered pairs (change s of the point, y of the gradient) imply.
local function direction(history, g)
  local q, alphas = -g, {}
  for i = #history, 1, -1 do
    local h = history[i]
    alphas[i] = dot(h.s, q) / h.sy
    q:sub_(h.y * alphas[i])
  end
  local last = history[#history]
  if last then q:mul_(last.sy / dot(last.y, last.y)) end
  for i = 1, #history do
    local h = history[i]
    q:add_(h.s * (alphas[i] - dot(h.y, q) / h.sy))
  end
  return q
end

-- Keeps the pair of a step if its curvature is positive beyond rounding.
local function remember(history, s, y, most)
  local sy = dot(s, y)
  if sy <= 1e-10 * dot(y, y) then return end
  history[#history + 1] = {s = s, y = y, sy = sy}
  while #history > most do table.remove(history, 1) end
end

local function largest(g) return g.numel > 0 and (core.max(core.abs(g))):item() or 0 end

local function minimise(self, group, closure)
  local x = flat(self.all, self.all, self.dtype)
  local f, g = evaluate(self, closure, x)
  for _ = 1, group.iterations do
    if largest(g) <= group.tolerance_grad or f == huge then break end
    local d = direction(self.history, g)
    local slope = dot(g, d)
    if slope ~= slope or slope >= 0 then  -- no descent: the memory is spoiled
      self.history = {}
      d, slope = -g, -dot(g, g)
    end
    local first = group.lr
    if #self.history == 0 then first = group.lr * math.min(1, 1 / core.sum(core.abs(g)):item()) end
    local start = {a = 0, f = f, s = slope, g = g, x = x}
    local function try(a)
      local at = x + d * a
      local value, gradient = evaluate(self, closure, at)
      return {a = a, f = value, s = dot(gradient, d), g = gradient, x = at}
    end
    local best = searches[group.line_search](try, start, first, group.evaluations)
    if best.a == 0 then
      if #self.history == 0 then break end
      self.history = {}  -- once more, downhill
    else
      self.steps = self.steps + 1
      local change, moved = f - best.f, best.x - x
      remember(self.history, moved, best.g - g, group.history)
      x, f, g = best.x, best.f, best.g
      if math.max(math.abs(change), largest(moved)) <= group.tolerance_change then break end
    end
  end
  spread(self.all, x)
  self.loss = f
end

function LBFGS:step(closure)
  if type(closure) ~= "function" then
    raise("LBFGS: step needs a closure that computes the loss, calls backward and returns the loss")
  end
  if #self.groups > 1 then raise("LBFGS: %d groups, expected one", #self.groups) end
  self.all = self.groups[1].params
  self.dtype = self.all[1].dtype
  for _, p in ipairs(self.all) do
    if p.dtype ~= self.dtype then self.dtype = "float64" end
  end
  self.history = self.history or {}
  self.evaluations, self.steps = 0, 0
  local was = core.recording(false)
  local ok, message = pcall(minimise, self, self.groups[1], closure)
  core.recording(was)
  if not ok then error(message, 0) end
  return self
end

--- As other optimisers', with the remembered pairs as the rows of "history.s" and "history.y".
function LBFGS:state_dict()
  local out = optimiser.state_dict(self)
  if self.history and #self.history > 0 then
    local s, y = {}, {}
    for i, h in ipairs(self.history) do s[i], y[i] = core.unsqueeze(h.s, 1), core.unsqueeze(h.y, 1) end
    out["history.s"], out["history.y"] = core.cat(s, 1), core.cat(y, 1)
  end
  return out
end

function LBFGS:load_state_dict(dict)
  local rest, s, y = {}, dict["history.s"], dict["history.y"]
  for name, value in pairs(dict) do
    if name ~= "history.s" and name ~= "history.y" then rest[name] = value end
  end
  optimiser.load_state_dict(self, rest)
  self.history = {}
  for i = 1, s and s:size(1) or 0 do
    remember(self.history, s[i]:clone(), y[i]:clone(), self.groups[1].history)
  end
  return self
end

return {LBFGS = LBFGS}
