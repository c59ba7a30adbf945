-- Any function with any arguments returns or raises a string: it never crashes, hangs or loses memory. What is drawn
-- depends on a seed; more rounds with `TIDE_ANY_CALLS=100000`.

local helper = require "spec.helper"
local tide = require "tide"

local rounds = tonumber(os.getenv "TIDE_ANY_CALLS") or 6000
local seed = tonumber(os.getenv "TIDE_ANY_SEED") or 1

-- A small generator of its own, so that a failure can be repeated.
local state = seed
local function draw(n)
  state = (state * 16807) % 2147483647
  return state % n + 1
end
local function pick(list) return list[draw(#list)] end

local dtypes = {"float32", "float64", "int64", "uint8"}
local sizes = {0, 1, 1, 2, 3, 4, 5}

local function shape()
  local s = {}
  for i = 1, draw(6) - 1 do s[i] = pick(sizes) end
  return s
end

local function tensor()
  local x = tide.randint(-3, 5, shape()):to(pick(dtypes))
  local what = draw(8)
  if what == 1 and x.ndim > 1 then x = x:transpose(1, x.ndim)
  elseif what == 2 then x = helper.awkward(x)
  elseif what == 3 and x.ndim < 6 then x = x:unsqueeze(1):expand(3, unpack(x.shape))
  elseif what == 4 and x.dtype:find "float" then x = x:requires_grad()
  elseif what == 5 and x.dtype:find "float" then x = x:requires_grad() * 2 end
  return x
end

local words = {"float32", "int64", "nothing", "", "dims", "ij,jk->ik", "ij->j"}
local keys = {"dim", "dims", "keepdim", "stride", "padding", "dilation", "groups", "kernel", "height", "width", "size",
  "start", "step", "length", "shape", "dtype", "index", "reverse", "descending", "eps", "rows", "upper"}

local anything
local function options()
  local t = {}
  for _ = 1, draw(3) do t[pick(keys)] = anything(1) end
  return t
end
local function numbers()
  local t = {}
  for i = 1, draw(4) - 1 do t[i] = draw(9) - 4 end
  return t
end

-- A few tensors are much used, so that shapes often fit.
local usual = {}
local function usual_tensor()
  local k = draw(12)
  if not usual[k] or draw(4) == 1 then usual[k] = tensor() end
  return usual[k]
end

function anything(depth)
  local k = draw(20)
  if k <= 8 then return usual_tensor() end
  if k <= 13 then return draw(9) - 4 end
  if k == 14 then return pick {0.5, -1.5, 1e300, -1e18, -2 ^ 31, 2 ^ 53, 0 / 0, 1 / 0} end
  if k == 15 then return draw(2) == 1 end
  if k == 16 then return pick(words) end
  if k == 17 then return numbers() end
  if k == 18 then return options() end
  if k == 19 and depth == 0 then return {usual_tensor(), usual_tensor(), usual_tensor()} end
  return nil
end

-- What can be called, but for what prints, ends things or waits for a function.
local skipped = {threads = true, memory = true, set_print = true, raise = true, own = true, recording = true,
  checkpoint = true, custom = true, no_grad = true, enable_grad = true, isa = true, operations = true, free = true,
  is_tensor = true, manual_seed = true, default_generator = true}
local functions = {}
local core = require "tide.core"
for _, holder in ipairs {tide, core.methods} do
  for name, f in pairs(holder) do
    if type(f) == "function" and not skipped[name] then functions[#functions + 1] = {name, f} end
  end
end
table.sort(functions, function(a, b) return a[1] < b[1] end)

local function one_call()
  local name, f = unpack(pick(functions))
  local n, args = draw(5), {}
  for i = 1, n do args[i] = anything(0) end
  if draw(3) > 1 then args[1] = usual_tensor() end
  local results = {pcall(f, unpack(args, 1, n))}
  if not results[1] then
    if type(results[2]) ~= "string" or #results[2] == 0 then error(name .. " raised no message", 0) end
    return false
  end
  for _, y in ipairs(results) do
    if tide.is_tensor(y) then
      if y.numel < 50 and draw(4) == 1 then tostring(y) end
      if y.needs_grad and draw(3) == 1 then
        pcall(y.backward, y, tide.ones(y.shape, y.dtype), {create_graph = draw(8) == 1, retain_graph = draw(2) == 1})
      end
    end
  end
  return true
end

describe("any function called with anything", function()
  it("returns or raises a message", function()
    local returned = 0
    for _ = 1, rounds do
      if one_call() then returned = returned + 1 end
    end
    assert.is_true(returned > rounds / 20, returned)
    assert.is_true(tide.is_grad_enabled())
    assert.close(tide.ones(2) + 1, {2, 2}, 0)
  end)

  it("leaves nothing behind", function()
    local function work()
      for _ = 1, 300 do one_call() end
      for k, x in pairs(usual) do
        if x.is_leaf then x.grad = nil end
        usual[k] = nil
      end
    end
    work()
    local before = helper.live()
    for _ = 1, 3 do work() end
    assert.is_true(helper.live() <= before + 64 * 1024, helper.live() - before)
  end)
end)
