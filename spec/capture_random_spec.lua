-- Random programs run eagerly and captured, with arguments in nested tables and budgets of what a call keeps: results,
-- gradients, second derivatives and what was written must agree.
-- What is drawn depends on a seed; more with `TIDE_RANDOM_PROGRAMS=1000`, others with `TIDE_RANDOM_SEED=5000`.

local helper = require "spec.helper"
local programs = require "spec.support.programs"
local tide = require "tide"
local ode = tide.ode

local count = tonumber(os.getenv "TIDE_RANDOM_PROGRAMS") or 40
local first = tonumber(os.getenv "TIDE_RANDOM_SEED") or 1

local function is_real(x) return x.dtype == "float32" or x.dtype == "float64" end

-- ---- Comparing ----

-- nil when two lists of tensors (or false) agree to tol, relative to each tensor's largest element; else where not.
local function difference(what, got, expected, tol)
  for i = 1, math.max(#got, #expected) do
    local x, y = got[i], expected[i]
    if x and y then
      if x.dtype ~= y.dtype then return ("%s %d is %s, expected %s"):format(what, i, x.dtype, y.dtype) end
      local scale = y.numel > 0 and is_real(y) and math.max(1, y:abs():max():item()) or 1
      if scale ~= scale or scale == math.huge then scale = 1 end
      local why = helper.difference(x:double() / scale, y:double() / scale, tol)
      if why then return ("%s %d: %s"):format(what, i, why) end
    elseif x or y then  -- no gradient is one of zeros
      local there = x or y
      if there:ne(0):any():item() == 1 then
        return ("%s %d is %s, expected %s"):format(what, i, tostring(x), tostring(y))
      end
    end
  end
end

local function detached(list)
  local out = {}
  for i, x in ipairs(list) do out[i] = x and x:detach():clone() end
  return out
end

-- Gradients of a weighted sum of the outputs, and for order 2 those of the gradients' squares behind them.
local function gradients(outputs, points, order)
  local function total(list, f)
    local sum
    for i, y in ipairs(list) do
      if y and y.needs_grad then sum = sum and sum + f(y:double(), i) or f(y:double(), i) end
    end
    return sum
  end
  local loss = total(outputs, function(y, i) return (y * tide.generator(i):rand(y.shape, "float64")):sum() end)
  if not loss or #points == 0 then return {} end
  local found = tide.gradients(loss, points, {create_graph = order == 2})
  local squares = order == 2 and total(found, function(g) return g:square():sum() end)
  local all = detached(found)
  for i, g in ipairs(squares and tide.gradients(squares, points) or {}) do all[#found + i] = g end
  return all
end

local function points_of(...)
  local points = {}
  for _, list in ipairs {...} do
    for _, x in ipairs(list) do
      if x.needs_grad then points[#points + 1] = x end
    end
  end
  return points
end

-- ---- Functions ----

-- The inputs of a round: other values of the same shapes, lying as the program's own do.
local function inputs_of(p, round)
  local g, inputs = tide.generator(1000 + round), {}
  for i, x in ipairs(p.inputs) do
    local y = x:detach():clone()
    if is_real(x) and round > 1 then y:mul_((g:rand(x.shape, "float64") * 0.4 + 0.8):to(x.dtype)) end
    if not x:is_contiguous() then y = helper.awkward(y) end
    inputs[i] = x.needs_grad and y:requires_grad() or y
  end
  return inputs
end

-- Some rounds call twice before they go back, some ask for the gradients of the inputs or of the externals alone.
local function outcome(p, f, round, order)
  local inputs = inputs_of(p, round)
  tide.manual_seed(round)
  local outputs = {}
  for _ = 1, p.grad and round == 2 and 2 or 1 do
    for _, y in ipairs(f({inputs = inputs, round = {inputs[1]}}, "plain").list) do outputs[#outputs + 1] = y end
  end
  local points = points_of(round ~= 5 and inputs or {}, round ~= 4 and p.externals or {})
  local found = p.grad and gradients(outputs, points, order) or {}
  return {outputs = detached(outputs), gradients = detached(found), inputs = detached(inputs),
    externals = detached(p.externals)}
end

local function check(p, order)
  local saved = detached(p.externals)
  local function restored(...)
    local result = outcome(...)
    for i, x in ipairs(p.externals) do
      if not x.needs_grad then x:copy_(saved[i]) end
    end
    return result
  end
  local function f(given, kind) return {list = p:run(given.inputs), kind = kind} end
  local captured = tide.capture(f, {keep = ({math.huge, 0, 1000})[p.seed % 5] or math.huge})
  local tol = tostring(p):find "float32" and 1e-5 or 1e-9
  for round = 1, p.grad and 5 or 3 do
    local expected = restored(p, f, round, round == 3 and order or 1)
    local got = restored(p, captured, round, round == 3 and order or 1)
    for _, what in ipairs {"outputs", "gradients", "inputs", "externals"} do
      local why = difference(what, got[what], expected[what], tol)
      if why then error(("seed %d, round %d, %s\n%s"):format(p.seed, round, why, tostring(p)), 0) end
    end
  end
end

describe("a random program gives the same captured:", function()
  local kinds = {
    ["few numbers"] = {dtype = "float64", most = 12, length = 8, grad = true, common = 95, sizes = {1, 2, 3, 2}},
    ["few numbers, written in place"] = {dtype = "float64", most = 12, length = 12, common = 90, sizes = {1, 2, 3, 2},
      writes_given = true},
    ["usual operations"] = {dtype = "float64", most = 300, length = 20, grad = true},
    ["without gradients, written in place"] = {dtype = "float64", most = 300, length = 30, writes_given = true},
    ["float32"] = {dtype = "float32", most = 300, length = 20, grad = true},
    ["all operations"] = {dtype = "float64", most = 200, length = 25, grad = true, common = 0},
    ["thousands of numbers"] = {dtype = "float32", most = 6000, length = 25, grad = true, common = 40,
      sizes = {1, 8, 16, 17, 33, 4}},
  }
  for name, o in pairs(kinds) do
    it(name, function()
      for seed = first, first + count - 1 do check(programs.new(seed, o), seed % 3 == 0 and 2 or 1) end
    end)
  end
end)

-- ---- Fields ----

-- A smooth field of the state's shape from a program whose first input is the state.
local function field_of(p)
  local shape = table.concat(p.inputs[1].shape, ",")
  return function(t, y)
    local dy = y:neg()
    for _, v in ipairs(p:run {y, unpack(p.inputs, 2)}) do
      if is_real(v) and v.numel > 0 then
        v = v:to(y.dtype):tanh() * 0.3
        dy = dy + (table.concat(v.shape, ",") == shape and v or v:mean() * (1 + t:to(y.dtype) * 0.1))
      end
    end
    return dy
  end
end

local function solved(p, o, capture)
  local options = {capture = capture}
  for k, v in pairs(o) do options[k] = v end
  local y0 = p.inputs[1]:detach():clone():requires_grad()
  local sol = ode.solve(field_of(p), y0, {0, 0.4, 1}, options)
  return {sol.ys}, gradients({sol.ys}, points_of({y0}, {unpack(p.inputs, 2)}, p.externals), 1), sol
end

describe("a random field gives the same captured, by", function()
  local methods = {
    {method = "tsit5", rtol = 1e-6}, {method = "rk4", step_size = 0.005}, {method = "rodas5p", rtol = 1e-6},
    {method = "bdf", rtol = 1e-6}, {method = "trbdf2", rtol = 1e-5}, {method = "dopri5", rtol = 1e-5, checkpoints = 3},
  }
  local sizes = {
    {dtype = "float64", most = 8, length = 8, common = 90, sizes = {1, 2, 3, 2}, grad = true, state = true},
    {dtype = "float64", most = 64, length = 8, common = 60, sizes = {1, 2, 3, 4, 5}, grad = true, state = true},
  }
  for k, o in ipairs(methods) do
    it(o.method, function()
      for seed = first, first + math.ceil(count / 10) - 1 do
        for i, size in ipairs(sizes) do
          local p = programs.new(seed * 10 + k, size)
          local expected, slopes, plain = solved(p, o, false)
          for _ = 1, 2 do
            local got, found, sol = solved(p, o)
            local tol = sol.stats.nfe == plain.stats.nfe and 1e-7 or 1e-4  -- a step was decided by a rounding
            local why = difference("states", got, expected, tol) or difference("gradients", found, slopes, tol)
            if why then error(("seed %d, size %d: %s\n%s"):format(seed, i, why, tostring(p)), 0) end
          end
        end
      end
    end)
  end
end)
