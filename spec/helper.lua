-- What the specs share: assert.close, assert.fails_here, awkward views of tensors, children processes.

local assert = require "luassert"
local say = require "say"
local array = require "spec.support.array"
local tide = require "tide"

local M = {array = array}

local function place(p, shape)
  local at = {}
  p = p - 1
  for i = #shape, 1, -1 do
    at[i] = p % shape[i] + 1
    p = math.floor(p / shape[i])
  end
  return "[" .. table.concat(at, ", ") .. "]"
end

local function as_array(x)
  if type(x) == "table" and getmetatable(x) ~= array then
    local shape, inner = {}, x
    while type(inner) == "table" do
      shape[#shape + 1] = #inner
      inner = inner[1]
    end
    local data = {}
    local function flatten(v)
      if type(v) ~= "table" then data[#data + 1] = v return end
      for _, e in ipairs(v) do flatten(e) end
    end
    flatten(x)
    return array.new(shape, data)
  end
  return array.of(x)
end

--- nil when x and y agree to tol·(1 + |y|) everywhere (NaN equals NaN), else where they differ and by how much.
function M.difference(x, y, tol)
  local a, b = as_array(x), as_array(y)
  local sa, sb = table.concat(a.shape, "×"), table.concat(b.shape, "×")
  if sa ~= sb then return ("shapes differ: (%s) against (%s)"):format(sa, sb) end
  local worst, at, wrong = 0, nil, 0
  for i, v in ipairs(a.data) do
    local w = b.data[i]
    local gap
    if v == w or (v ~= v and w ~= w) then gap = 0
    else gap = math.abs(v - w) / (1 + math.abs(w)) end
    if gap ~= gap then gap = math.huge end
    if gap > tol then
      wrong = wrong + 1
      if gap > worst then worst, at = gap, i end
    end
  end
  if wrong == 0 then return nil end
  return ("%d of %d elements differ by more than %g; the most at %s: %.17g against %.17g, off by %.3g"):format(
    wrong, #a.data, tol, place(at, a.shape), a.data[at], b.data[at], worst)
end

local function default_tolerance(...)
  local tol = 1e-12
  for i = 1, select("#", ...) do
    local x = select(i, ...)
    if tide.is_tensor(x) and x.dtype == "float32" then tol = 1e-5 end
  end
  return tol
end

-- assert.close(got, expected[, tolerance]): tensors, arrays, nested tables or numbers.
local function close(state, arguments)
  local x, y, tol = arguments[1], arguments[2], arguments[3]
  local why = M.difference(x, y, tol or default_tolerance(x, y))
  state.failure_message = why
  return not why
end
say:set("assertion.close.positive", "Expected tensors to be close.\n%s\n%s")
say:set("assertion.close.negative", "Expected tensors not to be close.\n%s\n%s")
assert:register("assertion", "close", close, "assertion.close.positive", "assertion.close.negative")

-- assert.fails_here(f, part, …): f raises a string that contains every part, at a line of the file f is in.
local function fails_here(state, arguments)
  local f = arguments[1]
  local source = debug.getinfo(f, "S").short_src
  local ok, message = pcall(f)
  if ok then
    state.failure_message = "expected an error, none was raised"
    return false
  end
  if type(message) ~= "string" then
    state.failure_message = "the error is a " .. type(message)
    return false
  end
  local wanted = {source .. ":", unpack(arguments, 2, arguments.n)}
  for i, part in ipairs(wanted) do
    local at = message:find(part, 1, true)
    if not at or (i == 1 and at ~= 1) then
      state.failure_message = ("expected %q in the message:\n%s"):format(part, message)
      return false
    end
  end
  return true
end
say:set("assertion.fails_here.positive", "Expected an error at the caller's line.")
assert:register("assertion", "fails_here", fails_here, "assertion.fails_here.positive")

--- x's values in a tensor that is not contiguous: every other element of a larger one, its dims turned round.
function M.awkward(x)
  local n = x.ndim
  if n == 0 then return tide.full({3}, x:item(), x.dtype)[2] end
  local order, back, shape = {}, {}, {}
  for i = 1, n do order[i] = n + 1 - i end
  for i = 1, n do back[order[i]] = i end
  for i = 1, n do shape[i] = x:size(order[i]) end
  shape[n] = 2 * shape[n] + 1
  local room = tide.full(shape, 77, x.dtype)
  local window = room:narrow(n, 2, math.max(x:size(order[n]), 0), 2)
  window:copy_(x:permute(order))
  return window:permute(back)
end

--- Bytes live after collecting all garbage. A graph that holds Lua functions goes layer by layer, and a layer may hold
--- no bytes of its own: only when several collections in a row free nothing is there nothing left. Compiled traces hold
--- what they met as constants, so they go first.
function M.live()
  if jit then jit.flush() end
  local one = tide.ones(1)
  for _ = 1, 16 do local _ = one + 1 end  -- as many tensors for numbers as the core keeps for reuse
  local live, idle = tide.memory().live, 0
  while idle < 6 do
    collectgarbage()
    collectgarbage()
    local now = tide.memory().live
    idle = now == live and idle + 1 or 0
    live = now
  end
  return live
end

--- The output of a Lua program run by this interpreter with this tree's tide; env is a table of variables.
function M.child(program, env)
  local name = os.tmpname()
  local f = io.open(name, "w")
  f:write(program)
  f:close()
  local set = {}
  for key, value in pairs(env or {}) do set[#set + 1] = ("%s=%s"):format(key, value) end
  local pipe = io.popen(("%s luajit %s 2>&1; echo status $?"):format(table.concat(set, " "), name), "r")
  local out = pipe:read "*a"
  pipe:close()
  os.remove(name)
  local body, status = out:match("^(.*)status (%d+)\n$")
  return body, tonumber(status)
end

return M
