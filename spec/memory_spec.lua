-- Memory beside what tensors themselves take: blocks made of the pages of free ones, garbage before a reverse pass.

require "spec.helper"
local tide = require "tide"
local nn = tide.nn

local function total()
  local m = tide.memory()
  return m.live + m.cached
end

local function clean()
  collectgarbage()
  collectgarbage()
end

describe("the allocator", function()
  local cached = not os.getenv "TIDE_SANITIZED"

  it("makes large blocks of the pages of free ones of other sizes, whose values no one sees", function()
    if not cached or jit.os ~= "Linux" then return end
    clean()
    tide.memory "trim"
    local list, start = {}, total()
    for i = 1, 24 do list[i] = tide.full({2 ^ 20}, i) end  -- 24 of 4 MB
    local most = total() - start
    for i = 1, 24 do if i % 2 == 0 then list[i]:free() end end
    local other = {}
    for i = 1, 3 do other[i] = tide.full({3 * 2 ^ 20}, -i) end  -- of 12 MB, of three free ones each
    assert.is_true(total() - start <= most + 2 ^ 23, ("%d bytes, before %d"):format(total() - start, most))
    for i = 1, 24, 2 do assert.are.equal(i, list[i]:max():item()) assert.are.equal(i, list[i]:min():item()) end
    for i = 1, 3 do assert.are.equal(-i, other[i]:max():item()) assert.are.equal(-i, other[i]:min():item()) end
    for i = 1, 3 do other[i]:free() end
    for i = 2, 24, 2 do list[i] = tide.full({2 ^ 20}, i) end
    for i = 1, 24 do assert.are.equal(i, list[i]:sum():item() / 2 ^ 20) end
    assert.is_true(total() - start <= most + 2 ^ 23, ("%d bytes, before %d"):format(total() - start, most))
  end)
end)

-- In a process of its own: how often garbage is collected depends on Lua's heap, here that of all specs.
local script = [[
  local tide = require "tide"
  local x = tide.randn(64, 2 ^ 14):requires_grad()  -- 4 MB
  local y = x
  for _ = 1, 5 do y = (y * 0.5):sin() end
  local loss = y:sum()
  y = nil
  local before, inside = tide.memory().live
  x:register_hook(function() inside = tide.memory().live end)
  loss:backward()
  print(before - inside)
]]

describe("a reverse pass over much memory", function()
  it("first collects what no one refers to, so that it frees what it has used", function()
    local pipe = assert(io.popen(("luajit -e '%s'"):format(script)))
    local freed = tonumber(pipe:read "*a")
    pipe:close()
    assert.is_true(freed > 5 * 2 ^ 22, ("%s bytes"):format(tostring(freed)))
  end)
end)

describe("a captured evaluation that is kept", function()
  it("leaves out what light operations give back", function()
    local function held(f)
      tide.manual_seed(1)
      local y0 = tide.randn(256, 256):requires_grad()
      clean()
      local before = tide.memory().live
      local sol = tide.ode.solve(f, y0, {0, 1}, {method = "rk4", step_size = 1})
      assert.is_true(sol.captured)
      clean()
      local live = tide.memory().live - before
      local free = tide.ode.solve(f, y0, {0, 1}, {method = "rk4", step_size = 1, hold = 0})
      clean()
      local got, again = tide.gradients(sol.last:sum(), {y0})[1], tide.gradients(free.last:sum(), {y0})[1]
      assert.are.same(again:totable(), got:totable())
      return live
    end
    local w = (tide.randn(256, 256) / 16):requires_grad()
    local norm = nn.GroupNorm(8, 256)
    local plain = held(function(_, y) return y:matmul(w) end)
    -- y and the product, from which the activation and the normalised values come again
    local more = held(function(_, y) return norm(y:matmul(w), "relu"):matmul(w) end)
    local one = 2 ^ 18  -- bytes of a state
    assert.is_true(more - plain < 4 * 1.5 * one, ("%d and %d bytes"):format(more, plain))
  end)
end)
