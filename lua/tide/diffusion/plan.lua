-- A sampler as a plan: a straight list of two instructions, "evaluate the network at this value" and "this value is
-- a linear combination of those". All coefficients are numbers that depend on the schedule alone, so the plan is made
-- once, and one forward loop and one reverse loop (run.lua) serve every sampler, multistep or by stages.
--
-- Samplers are written in expressions. An expression is a sum Σ cᵢ·vᵢ over values of the plan; +, −, and * with
-- numbers work on them, so that a step reads as its formula does.

local prediction = require "tide.diffusion.prediction"

local M = {}

-- ---- Expressions: tables {[value] = coefficient} ----

local Sum = {}

local function term(value) return setmetatable({[value] = 1}, Sum) end

local function combined(a, ca, b, cb)
  local out = setmetatable({}, Sum)
  for v, c in pairs(a) do out[v] = ca * c end
  for v, c in pairs(b) do out[v] = (out[v] or 0) + cb * c end
  return out
end

Sum.__add = function(a, b) return combined(a, 1, b, 1) end
Sum.__sub = function(a, b) return combined(a, 1, b, -1) end
Sum.__unm = function(a) return combined(a, -1, {}, 0) end
Sum.__mul = function(a, b)
  if type(a) == "number" then return combined(b, a, {}, 0) end
  return combined(a, b, {}, 0)
end
Sum.__div = function(a, b) return combined(a, 1 / b, {}, 0) end

-- ---- The plan ----

local Plan = {}
Plan.__index = Plan

--- An empty plan over `nodes`, whose network values are predictions of kind `form`. The value 1 is the start.
function M.new(nodes, form)
  return setmetatable({
    nodes = nodes, form = form, code = {}, count = 1, noises = 0, step = 1, start = term(1), states = {1},
    evaluations = 0, kept = {},
  }, Plan)
end

local function new_value(self)
  self.count = self.count + 1
  return self.count
end

local function add(self, instruction)
  instruction.dst, instruction.step = new_value(self), self.step
  self.code[#self.code + 1] = instruction
  return instruction.dst
end

-- The value that an expression is, if it is one.
local function single(e)
  local v, c = next(e)
  if v and c == 1 and next(e, v) == nil then return v end
end

--- The expression as one value of the plan: a later step refers to it as a whole. `solves`, a value of the sum, says
--- that the reverse loop may recover it from the others.
function Plan:value(e, solves)
  if single(e) then return e end
  local ids, coefs = {}, {}
  for v, c in pairs(e) do
    if c ~= 0 then ids[#ids + 1] = v end
  end
  table.sort(ids)
  for i, v in ipairs(ids) do coefs[i] = e[v] end
  if #ids == 0 then ids, coefs = {1}, {0} end
  return term(add(self, {op = "sum", ids = ids, coefs = coefs, solves = solves and single(solves)}))
end

--- The network's value (of the plan's form) at x, a value, and the point `node`. Asked again, the same value.
function Plan:model(x, node)
  local src = assert(single(x), "a network is evaluated at a value")
  self.known = self.known or {}
  local known = self.known[src]
  if known and known.node == node then return known.value end
  self.evaluations = self.evaluations + 1
  local value = term(add(self, {op = "eval", src = src, node = node, number = self.evaluations}))
  self.known[src] = {node = node, value = value}
  return value
end

local function as(self, x, node, kind)
  local a, b = prediction.coefficients(self.form, kind, node.alpha, node.sigma)
  local m = self:model(x, node)
  return a == 0 and m * b or x * a + m * b
end

--- ε, D (the prediction of x0) and the flow's velocity at x, as expressions, whatever the form.
function Plan:epsilon(x, node) return as(self, x, node, "epsilon") end
function Plan:data(x, node) return as(self, x, node, "x0") end
function Plan:velocity(x, node) return as(self, x, node, "flow") end

--- A fresh standard normal noise.
function Plan:noise()
  self.noises = self.noises + 1
  return term(add(self, {op = "noise", index = self.noises}))
end

--- Ends a step: the expression is the state at the next point. Gives it as a value.
function Plan:state(e, solves)
  local value = self:value(e, solves)
  self.step = self.step + 1
  self.states[self.step] = single(value)
  return value
end

--- Says that the reverse loop is to be given this value: others are recovered from it.
function Plan:keep(value) self.kept[#self.kept + 1] = single(value) end

--- Completes the plan: `result` is its last state. Computes where each value is used last.
function Plan:finish(result)
  self.result = single(self:value(result))
  local last = {[self.result] = #self.code + 1}
  for i = #self.code, 1, -1 do
    local c = self.code[i]
    for _, v in ipairs(c.ids or {c.src}) do last[v] = last[v] or i end
  end
  self.last = last
  self.known = nil
  return self
end

return M
