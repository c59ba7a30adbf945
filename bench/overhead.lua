-- What a call costs beside the work: eager operations on eight elements, loading the module.
-- Each number is the least of several rounds: what the machine does when nothing disturbs it.

local clock = os.clock

local function measure(name, n, f, goal)
  local best = math.huge
  for _ = 1, 15 do
    collectgarbage()
    local start = clock()
    f(n)
    best = math.min(best, (clock() - start) / n)
  end
  print(("%-44s %8.0f ns%s"):format(name, best * 1e9, goal and ("   (goal %d)"):format(goal) or ""))
  return best * 1e9
end

-- The time of `require "tide"` in a fresh interpreter, in milliseconds.
local function loading()
  local root = arg and arg[0] and arg[0]:match("^(.*)bench/") or ""
  local best = math.huge
  local program = [[local t = os.clock() require "tide" io.write((os.clock() - t) * 1e3)]]
  for _ = 1, 7 do
    local pipe = io.popen(("'%sbin/tide' -e '%s'"):format(root == "" and "./" or root, program))
    best = math.min(best, tonumber(pipe:read "*a") or math.huge)
    pipe:close()
  end
  print(("%-44s %8.1f ms   (goal 15)"):format('require "tide"', best))
  return best
end

local require_ms = loading()
local tide = require "tide"
local a, b = tide.ones(8), tide.ones(8)
local w = tide.ones(8):requires_grad()
local m, r = tide.ones(8, 8), tide.ones(8, 1)

local add_ns = measure("a + b, 8 elements", 200000, function(n) for _ = 1, n do local _ = a + b end end, 250)
measure("a + 1, 8 elements", 200000, function(n) for _ = 1, n do local _ = a + 1 end end)
measure("a:add_(b), 8 elements", 200000, function(n) for _ = 1, n do a:add_(b) end end)
measure("a:exp(), 8 elements", 200000, function(n) for _ = 1, n do local _ = a:exp() end end)
measure("a:sum(), 8 elements", 200000, function(n) for _ = 1, n do local _ = a:sum() end end)
measure("m + r, 8×8 and 8×1", 200000, function(n) for _ = 1, n do local _ = m + r end end)
measure("m:matmul(m), 8×8", 100000, function(n) for _ = 1, n do local _ = m:matmul(m) end end)
measure("a[3]", 200000, function(n) for _ = 1, n do local _ = a[3] end end)
measure("a:reshape(2, 4)", 200000, function(n) for _ = 1, n do local _ = a:reshape(2, 4) end end)
measure("w * b recorded, 8 elements", 100000, function(n) for _ = 1, n do local _ = w * b end end)
measure("(w * b):sum():backward(), 8 elements", 30000, function(n) for _ = 1,
  n do (w * b):sum():backward() end end)

-- What an operation costs inside a captured program: n dependent operations of one function, which the planner cannot
-- join (products) or may (additions), divided by n; the same function eagerly beside it.
local function captured(name, n, f, x)
  local program = tide.capture(f)
  for label, g in pairs {["captured"] = program, ["eager"] = f} do
    measure(("%s, %s, for each of %d"):format(name, label, n), 2000 * n, function(count)
      tide.no_grad(function()
        for _ = 1, count / n do g(x) end
      end)
    end, label == "captured" and 100)
  end
end

local small = tide.randn(1, 4)
local square = tide.eye(4) + 0
captured("1×4 · 4×4", 100, function(x)
  for _ = 1, 100 do x = x:matmul(square) end
  return x
end, small)
captured("x·0.5 + 1 on 8 elements", 50, function(x)
  for _ = 1, 25 do x = x * 0.5 + 1 end
  return x
end, a)

return {add_ns = add_ns, require_ms = require_ms}
