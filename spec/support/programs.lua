-- Random programs: lists of operations on tensors, drawn from a seed, that run eagerly or captured. Every step is drawn
-- so that it is valid for the shapes at hand, and dropped again when its values leave the range of easy arithmetic.
--
--   local p = programs.new(seed, {dtype = "float64", most = 300, length = 20, grad = true})
--   p.inputs, p.externals      tensors; some require gradients, some are views, masks or positions
--   p:run(inputs)              the outputs, a list
--   print(p)                   the steps, to be read

local helper = require "spec.helper"
local tide = require "tide"

local M = {}
local Program = {}
Program.__index = Program
local draws = require "spec.support.program_steps"
local common, names = draws.common, draws.names

-- ---- Drawing ----

function Program:draw(n)
  self.state = self.state * 16807 % 2147483647
  return math.floor(self.state / 7) % n + 1
end
function Program:chance(percent) return self:draw(100) <= percent end
function Program:pick(list) return list[self:draw(#list)] end

local function numel(shape)
  local n = 1
  for _, s in ipairs(shape) do n = n * s end
  return n
end

function Program:shape()
  local s = {}
  repeat
    for i = 1, 4 do s[i] = nil end
    for i = 1, self:pick {0, 1, 1, 2, 2, 2, 3, 3, 4} do s[i] = self:pick(self.sizes) end
  until numel(s) <= self.most
  return s
end

function Program:tensor(shape, dtype)
  if dtype == "int64" then return self.generator:randint(-3, 4, shape) end
  if dtype == "uint8" then return self.generator:bernoulli(0.5, shape):to "uint8" end
  return (self.generator:rand(shape, "float64") * 3 - 1.5):to(dtype)
end

-- The same elements lying in another way.
function Program:laid(x)
  local k = self:draw(6)
  if k == 1 then return helper.awkward(x) end
  if k == 2 and x.ndim > 1 then return x:transpose(1, x.ndim):contiguous():transpose(1, x.ndim) end
  return x
end

-- ---- Values ----

-- A tensor that the program gets or closes over; gives its number.
function Program:given(shape, dtype, constant)
  local x = self:laid(self:tensor(shape, dtype or self.dtype))
  local state = self.state_first and #self.values == 0
  local grad = self.grad and not constant and x.dtype:find "float" and (self:chance(60) or state)
  if grad then x:requires_grad() end
  local list = (self:chance(50) or state) and self.inputs or self.externals
  list[#list + 1] = x
  self.values[#self.values + 1] = x:detach()
  self.origin[#self.values] = {list = list == self.inputs and "inputs" or "externals", place = #list}
  self.tainted[#self.values], self.root[#self.values] = grad, #self.values
  return #self.values
end

local function is_real(x) return x.dtype == "float32" or x.dtype == "float64" end

-- The number of a value with a property; recent ones more often.
function Program:find(holds)
  local n, found = #self.values, {}
  for i = 1, n do
    if self.values[i] and holds(self.values[i], i) then found[#found + 1] = i end
  end
  if #found == 0 then return nil end
  if self:chance(50) then return found[math.max(1, #found - self:draw(3) + 1)] end
  return self:pick(found)
end
function Program:real(holds)
  return self:find(function(x, i) return is_real(x) and (not holds or holds(x, i)) end)
    or self:given(self:shape())
end

local text_of = draws.text_of

local function is_easy(x)
  if x.numel == 0 or not is_real(x) then return true end
  return x:isfinite():all():item() == 1 and x:abs():max():item() < 1e3
end

--- A step: f of the values `operands` gives results; text names it. Gives the number of the first, or nil.
function Program:step(text, operands, f, o)
  o = o or {}
  local given, tainted = {}, false
  for i, k in ipairs(operands) do
    given[i], tainted = self.values[k], tainted or self.tainted[k]
  end
  local results = {f(unpack(given))}
  for _, y in ipairs(results) do
    if not o.writes and (y.numel > self.most or not is_easy(y)) then return nil end
  end
  local first = #self.values + 1
  for i, y in ipairs(results) do
    local n = first + i - 1
    self.values[n], self.tainted[n] = y, tainted and is_real(y)
    self.root[n] = n
    for _, k in ipairs(operands) do
      local copied = text:find "^reshape" or text:find "^contiguous"  -- because of how it lies; a view in a program
      if copied or y:shares_storage(self.values[k]) then self.root[n] = self.root[k] end
    end
  end
  if tainted then
    for _, k in ipairs(operands) do self.used[self.root[k]] = true end
  end
  self.steps[#self.steps + 1] = {text = text, operands = {unpack(operands)}, f = f, first = first, count = #results,
    writes = o.writes}
  return first
end

--- The operation `name` of values, and other arguments behind them.
function Program:call(name, operands, ...)
  if type(operands) == "number" then operands = {operands} end
  local rest, count, n = {...}, select("#", ...), #operands
  local parts = {}
  for i = 1, n do parts[i] = "%s" end
  for i = 1, count do parts[n + i] = text_of(rest[i]) end
  return self:step(("%s(%s)"):format(name, table.concat(parts, ", ")), operands, function(...)
    local args = {...}
    for i = 1, count do args[n + i] = rest[i] end
    return tide[name](unpack(args, 1, n + count))
  end)
end

-- ---- A program ----

local function is_refused_write(err)
  return err:find "writing in place" or err:find "takes part in a gradient" or err:find "would spoil a gradient"
end

--- new(seed, o): a program of o.length steps on values of at most o.most elements of type o.dtype, whose dims are among
--- o.sizes; o.common percent of the steps are of the usual ones. grad: some inputs and externals require gradients.
--- writes_given: it writes also into inputs and externals. state: its first value is an input that requires a gradient,
--- and nothing is drawn at random.
function M.new(seed, o)
  local p = setmetatable({seed = seed, state = seed * 7919 % 2147483646 + 1, generator = tide.generator(seed),
    dtype = o.dtype, most = o.most, grad = o.grad, state_first = o.state, writes_given = o.writes_given,
    sizes = o.sizes or {1, 2, 3, 4, 5, 7, 1, 2, 3, 0},
    inputs = {}, externals = {}, steps = {}, values = {}, origin = {}, tainted = {}, root = {}, used = {},
    expanded = {}}, Program)
  for _ = 1, 3 do p:draw(2) end
  for _ = 1, o.given or 1 + p:draw(3) do p:given(o.shape or p:shape()) end
  local tries = 0
  while #p.steps < o.length and tries < 10 * o.length do
    tries = tries + 1
    local name = p:chance(o.common or 50) and p:pick(common) or p:pick(names)
    local ok, err = pcall(draws.draws[name], p)
    if not ok and not is_refused_write(tostring(err)) then
      error(("seed %d: %s: %s"):format(seed, name, tostring(err)), 0)
    end
  end
  p.outputs = {}
  local read, ends = {}, {}
  for _, s in ipairs(p.steps) do
    for _, k in ipairs(s.operands) do read[k] = true end
  end
  for i = 1, #p.values do
    if not read[i] then ends[#ends + 1] = i end
  end
  for i = 1, p:pick {1, 1, 2, 3, 6} do p.outputs[i] = p:chance(80) and p:pick(ends) or p:draw(#p.values) end
  return p
end

--- The outputs for other inputs of the same shapes.
function Program:run(inputs)
  local v = {}
  for i, at in pairs(self.origin) do v[i] = at.list == "inputs" and inputs[at.place] or self.externals[at.place] end
  for _, s in ipairs(self.steps) do
    local given = {}
    for i, k in ipairs(s.operands) do given[i] = v[k] end
    local results = {s.f(unpack(given))}
    for i = 1, s.count do v[s.first + i - 1] = results[i] end
  end
  local out = {}
  for i, k in ipairs(self.outputs) do out[i] = v[k] end
  return out
end

function Program:__tostring()
  local lines = {}
  for i = 1, #self.values do
    local at = self.origin[i]
    if at then
      local x = self[at.list][at.place]
      lines[#lines + 1] = ("v%d = %s[%d]  -- %s (%s)%s%s"):format(i, at.list, at.place, x.dtype,
        table.concat(x.shape, "×"), x.needs_grad and ", gradient" or "", x:is_contiguous() and "" or ", not contiguous")
    end
  end
  for _, s in ipairs(self.steps) do
    local given = {}
    for i, k in ipairs(s.operands) do given[i] = "v" .. k end
    local n = 0
    local text = s.text:gsub("%%s", function() n = n + 1 return given[n] or given[1] end)
    local y = self.values[s.first]
    if y then
      lines[#lines + 1] = ("v%d = %s  -- %s (%s)%s"):format(s.first, text, y.dtype, table.concat(y.shape, "×"),
        s.count > 1 and " and " .. s.count - 1 .. " more" or "")
    else lines[#lines + 1] = text end
  end
  local out = {}
  for i, k in ipairs(self.outputs) do out[i] = "v" .. k end
  return table.concat(lines, "\n") .. "\nreturn " .. table.concat(out, ", ")
end

return M
