-- Captured functions: a function of tensors is run once on tensors without values, what it does is written down, and
-- the plan made of that runs from then on without Lua, without recording and without allocating.
--
--   local f = tide.capture(function(x) return (x * w + b):tanh() end)
--   f(x)                 -- captured at the first call with tensors of these shapes and types
--   print(f)             -- the programs: operations, memory, arithmetic
--
-- What the function closes over: tensors are read where they lie at every run, so an optimiser's steps are seen;
-- numbers, strings, booleans and functions are constants, globals too, and a call after one has been assigned anew
-- captures anew; what lies inside tables is not watched (train() and eval() of modules are). Writes into tensors happen
-- at every run; a function that changes Lua values that it closes over, or that reads values of tensors (item,
-- comparisons, printing), cannot be captured.

local autograd = require "tide.autograd"
local cache = require "tide.capture.cache"
local core = require "tide.core"
local listing = require "tide.capture.listing"
local message = require "tide.message"
local options = require "tide.options"

local M = {}

local raise, form_of, filled = message.raise, cache.form_of, cache.filled

-- ---- Capturing ----

-- What the reverse pass of the outputs reaches: cotangents for the outputs that carry a gradient, operands (the
-- points among the inputs and the externals) and their gradients.
local function reversed(trace, outputs, virtual, points, since)
  local r = {mark = trace:count(), carry = {}, outputs = {}, cotangents = {}, operands = {}}
  for i, y in ipairs(outputs) do
    if y.needs_grad then
      r.carry[#r.carry + 1], r.outputs[#r.outputs + 1] = i, y
      r.cotangents[#r.cotangents + 1] = trace:like(y)
    end
  end
  if #r.carry == 0 then return nil end
  for _, i in ipairs(points) do r.operands[#r.operands + 1] = virtual[i] end
  r.externals = core.externals(r.outputs, since)
  for _, x in ipairs(r.externals) do r.operands[#r.operands + 1] = x end
  r.gradients = core.backward(r.outputs, r.cotangents, r.operands, false, false, true)
  return r
end

local function joined(...)
  local list = {}
  for _, part in ipairs {...} do
    for _, x in ipairs(part) do list[#list + 1] = x end
  end
  return list
end

-- The two programs of a function with gradients. What the backward one needs of the forward one is kept: further
-- results of the forward, further inputs of the backward. A third program gives the gradients of the inputs alone, for
-- passes that want no others: what only the externals' gradients need is not computed.
local function forward_and_backward(trace, virtual, outputs, r, keep)
  local found, of_inputs, known = {}, {}, joined(r.cotangents, virtual)
  for i, g in ipairs(r.gradients) do
    if g then found[#found + 1] = g end
    if g and i <= #r.operands - #r.externals then of_inputs[#of_inputs + 1] = g end
  end
  local some = #of_inputs > 0 and #of_inputs < #found
  local rest = trace:count() - r.mark
  local kept = trace:kept(r.mark, known)
  local all, used = trace:program(r.mark, rest, joined(known, kept), found), {}
  for i, x in ipairs(kept) do
    if all:reads(#known + i) then used[#used + 1] = x end
  end
  local bytes = 0
  for _, x in ipairs(used) do bytes = bytes + x.numel end
  if bytes > keep then  -- the backward program computes the forward part again, unless that would write or draw again
    local forward = trace:program(0, r.mark, virtual, outputs)
    if #forward:written() == 0 then
      return forward, trace:program(0, trace:count(), known, found),
        some and trace:program(0, trace:count(), known, of_inputs)
    end
  end
  local backward = #used == #kept and all or trace:program(r.mark, rest, joined(known, used), found)
  return trace:program(0, r.mark, virtual, joined(outputs, used)), backward,
    some and trace:program(r.mark, rest, joined(known, used), of_inputs)
end

-- One entry of a captured function: f as programs for tensors like those of `list`. nil and the error when f cannot
-- be captured.
local function capture_once(f, keep, form, count, list)
  local recording = core.recording()
  local virtual, points, outputs, result_form, r
  local trace, err = cache.traced(function(trace)
    local since = core.now()
    virtual, points = cache.stand_ins(trace, list, recording)
    local results = {f(unpack(filled(form, virtual), 1, count))}
    outputs = {}
    result_form = form_of(results, outputs, {})
    if #outputs == 0 then raise("capture: the function returned no tensor") end
    r = recording and reversed(trace, outputs, virtual, points, since)
  end)
  if not trace then return nil, err end
  local entry = {form = result_form, results = #outputs, points = points, written = {}}
  if r then
    entry.forward, entry.backward, entry.backward_inputs = forward_and_backward(trace, virtual, outputs, r, keep)
    entry.carry, entry.externals, entry.gradients = r.carry, r.externals, {}
    for i, g in ipairs(r.gradients) do entry.gradients[i] = g and true or false end
    entry.written = entry.forward:written()
  else
    entry.forward = trace:program(0, trace:count(), virtual, outputs)
  end
  return entry
end

-- ---- Running an entry ----

-- Is the cotangent of an external wanted?
local function wants_externals(entry, needs)
  for i = #entry.points + 1, #entry.gradients do
    if needs[i] then return true end
  end
  return false
end

-- One call: what it was given (list, and the arguments' form and count), what it kept for the reverse pass, and how
-- often the tensors had been written that the reverse pass reads.
local function check_unwritten(program, call)
  for i, x in ipairs(call.list) do
    if x.version ~= call.versions[i] then
      raise("capture: input %d was written in place after the captured function used it; its gradient is lost", i)
    end
  end
  if program:versions() ~= call.external_versions[program] then
    raise("capture: a tensor that the function closes over was written in place after the call; its gradient is lost")
  end
end

-- Cotangents of the operands that need one; `given` are those of the results that carry one, false where there is none.
local function run_backward(entry, needs, given, call)
  local inputs = {}
  for k, y in ipairs(call.carried) do inputs[k] = given[k] or core.zeros(y.shape, y.dtype) end
  local all = not entry.backward_inputs or wants_externals(entry, needs)
  local program = all and entry.backward or entry.backward_inputs
  check_unwritten(program, call)
  local found, grads, at = program:run(joined(inputs, call.list, call.kept)), {}, 0
  for i, has in ipairs(entry.gradients) do
    local given_here = has and (all or i <= #entry.points)
    if given_here then at = at + 1 end
    grads[i] = given_here and found[at] or nil
  end
  return unpack(grads, 1, #entry.gradients)
end

-- f(…) with what the program writes (states of generators, running means) as it was before the call, and put back.
local function as_then(entry, call, f, ...)
  local now = {}
  for i, x in ipairs(entry.written) do
    now[i] = x:clone()
    x:copy_(call.before[i])
  end
  local results = {pcall(f, ...)}
  for i, x in ipairs(entry.written) do x:copy_(now[i]) end
  if not results[1] then error(results[2], 0) end
  return {unpack(results, 2)}
end

-- The same when the reverse pass is itself recorded: f once more on the tape.
local function run_recorded(f, entry, given, form, count, call)
  check_unwritten(entry.backward, call)
  if not cache.is_same(entry) then
    raise("capture: what the function closes over was assigned anew after the call, or a module changed its mode; a "
      .. "gradient with create_graph runs the function again and would not be that of the call")
  end
  return autograd.enable_grad(function()
    local again, points, list = {}, {}, call.list
    for i, x in ipairs(list) do again[i] = x end
    for k, i in ipairs(entry.points) do
      again[i] = core.contiguous(list[i])
      points[k] = again[i]
    end
    for _, x in ipairs(entry.externals) do points[#points + 1] = x end
    local outputs, ys, cotangents = {}, {}, {}
    form_of(as_then(entry, call, f, unpack(filled(form, again), 1, count)), outputs, {})
    for k, i in ipairs(entry.carry) do
      if given[k] then ys[#ys + 1], cotangents[#cotangents + 1] = outputs[i], given[k] end
    end
    local grads = core.backward(ys, cotangents, points, true, true, true)
    for i = 1, #points do grads[i] = grads[i] or nil end
    return unpack(grads, 1, #points)
  end)
end

-- Makes the outputs results of one operation on the operands; more than four travel as one tensor.
local function recorded(outputs, operands, pull)
  if #outputs <= 4 then return {core.custom(outputs, operands, pull, true)} end
  local flat = {}
  for i, y in ipairs(outputs) do flat[i] = core.reshape(y, -1) end
  local function split(x)
    local parts, start = {}, 1
    for i, y in ipairs(outputs) do
      parts[i] = core.reshape(core.narrow(x, 1, start, y.numel), y.shape):to(y.dtype)
      start = start + y.numel
    end
    return parts
  end
  local function pull_flat(needs, given) return pull(needs, unpack(split(given))) end
  return split(core.custom({core.cat(flat, 1)}, operands, pull_flat, true))
end

-- The outputs that carry a gradient, as results of one operation.
local function attach_gradient(f, entry, form, count, call)
  local operands = {}
  for k, i in ipairs(entry.points) do operands[k] = call.list[i] end
  for _, x in ipairs(entry.externals) do operands[#operands + 1] = x end
  for i, x in ipairs(call.list) do call.versions[i] = x.version end
  for _, program in ipairs {entry.backward, entry.backward_inputs or nil} do
    call.external_versions[program] = program:versions()
  end
  return recorded(call.carried, operands, function(needs, ...)
    local given = {...}
    if core.recording() then return run_recorded(f, entry, given, form, count, call) end
    return run_backward(entry, needs, given, call)
  end)
end

local function run_entry(f, entry, form, count, list)
  local before = {}
  for i, x in ipairs(entry.written) do before[i] = x:clone() end
  local results = entry.forward:run(list)
  if not entry.backward then return unpack(filled(entry.form, results), 1, #entry.form.keys) end
  local call = {list = list, carried = {}, kept = {unpack(results, entry.results + 1)}, before = before, versions = {},
    external_versions = {}}
  for k, i in ipairs(entry.carry) do call.carried[k] = results[i] end
  local recorded_ones = attach_gradient(f, entry, form, count, call)
  for k, i in ipairs(entry.carry) do results[i] = recorded_ones[k] end
  return unpack(filled(entry.form, results), 1, #entry.form.keys)
end

-- ---- The object ----

local Captured = {}
Captured.__index = Captured

function Captured:__call(...)
  if core.capturing() then return self.f(...) end
  local entry, list, form, count = self.cache:find(...)
  if not entry then return self.f(...) end
  return run_entry(self.f, entry, form, count, list)
end

--- The programs captured so far: a table of {key, forward, backward}, each with lines() and memory().
function Captured:programs() return self.cache:list() end

--- Why it runs as it is, or nil.
function Captured:reason() return self.cache.reason end

--- Captures anew from the next call on: something inside a table that f uses has changed.
function Captured:forget() self.cache:forget() end

function Captured:__tostring() return listing.captured(self) end

--- Runs f(…) and measures every step, beside the processor's peak and bandwidth; a table that prints itself. Without
--- arguments the program captured last runs, on ones.
function Captured:profile(...)
  local entry, list = self.cache.newest, {}
  if select("#", ...) == 0 then
    if not entry and not self:reason() then
      raise("profile: nothing is captured yet; call the function first, or give its arguments")
    end
    for i, x in ipairs(entry and entry.inputs or {}) do list[i] = core.ones(x.shape, x.dtype) end
  else
    self(...)
    entry, list = self.cache:find(...)
  end
  if not entry then raise("profile: the function is not captured: %s", self:reason()) end
  local results  -- the same each time: the first run pays for memory that was never used
  for _ = 1, 3 do results = entry.forward:profile(list, results) end
  return listing.profile(entry.forward)
end

--- capture(f, {fallback = "error", name = "a function", keep = math.huge}): f as an object that is called like f and
--- runs captured programs, one for each combination of the tensors' types and shapes, of the other arguments' values,
--- and of whether gradients are recorded. Tensors may lie in nested tables. Gradients flow through a call to its
--- arguments and to what f closes over, of every order. fallback = "eager" runs f as it is when it cannot be captured,
--- and reason() says why; "error" raises. When a call would keep more than `keep` bytes for its reverse pass, that
--- computes the forward part again instead.
function M.capture(f, opts)
  if getmetatable(f) == Captured then return f end
  if type(f) ~= "function" and not (type(f) == "table" and (getmetatable(f) or {}).__call) then
    raise("capture: f is a %s, expected a function", type(f))
  end
  local o = options.check("capture", opts, {fallback = "error", name = "a function", keep = math.huge})
  if type(o.keep) ~= "number" then raise("capture: keep is a %s, expected a number of bytes", type(o.keep)) end
  if o.fallback ~= "error" and o.fallback ~= "eager" then
    raise("capture: fallback is %s, expected \"error\" or \"eager\"", tostring(o.fallback))
  end
  local self = {f = f, name = o.name}
  self.cache = cache.new {f = f, fallback = o.fallback, build = function(...) return capture_once(f, o.keep, ...) end}
  return setmetatable(self, Captured)
end

return M
