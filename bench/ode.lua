-- What a solve costs beside its right-hand side: microseconds per step of dopri5, forward and backward.
-- Medians of several rounds. Fixed steps, so that every row takes the same ones.

local tide = require "tide"
local nn, ode = tide.nn, tide.ode

local clock = os.clock
if pcall(require, "ffi") then  -- wall time, to nanoseconds, where LuaJIT offers it
  local ffi = require "ffi"
  ffi.cdef "typedef struct { long sec, nsec; } tide_bench_time; int clock_gettime(int, tide_bench_time *);"
  local now = ffi.new "tide_bench_time"
  clock = function()
    ffi.C.clock_gettime(1, now)
    return tonumber(now.sec) + tonumber(now.nsec) * 1e-9
  end
end

local function median(list)
  table.sort(list)
  local n = #list
  return n % 2 == 1 and list[(n + 1) / 2] or (list[n / 2] + list[n / 2 + 1]) / 2
end

-- The median time of f(), in seconds.
local function timed(f, rounds)
  f()
  local times = {}
  for i = 1, rounds or 21 do
    collectgarbage()
    local start = clock()
    f()
    times[i] = clock() - start
  end
  return median(times)
end

local steps = 100
local fixed = {method = "dopri5", step_size = 1 / steps}

local function row(name, forward, backward)
  local per_step = forward * 1e6 / steps
  if backward then
    print(("%-52s %9.2f %9.2f %7.2f"):format(name, per_step, backward * 1e6 / steps, backward / forward))
  else
    print(("%-52s %9.2f"):format(name, per_step))
  end
end

-- Time of a solve, and of its backward pass by `mode`.
local function both(f, y0, mode)
  local o = {method = "dopri5", step_size = 1 / steps, grad = mode}
  local back = {}
  local forward = timed(function()
    local sum = ode.solve(f, y0, {0, 1}, o).last:sum()
    local start = clock()
    sum:backward()
    back[#back + 1] = clock() - start
  end)
  local b = median(back)
  return forward - b, b
end

print(("dopri5, %d fixed steps, µs per step (6 evaluations)    forward  backward   ratio"):format(steps))

row("numbers: y' = −y, {1, 0}", timed(function()
  ode.solve(function(_, y) return {y[2], -y[1]} end, {1, 0}, {0, 1}, fixed)
end))
row("numbers: Lotka–Volterra", timed(function()
  ode.solve(function(_, u) return {1.5 * u[1] - u[1] * u[2], u[1] * u[2] - 3 * u[2]} end, {1, 1}, {0, 1}, fixed)
end))

local tiny = tide.tensor {1, 0}
row("tensor of 2: y' = −y, no gradient", timed(function()
  tide.no_grad(ode.solve, function(_, y) return -y end, tiny, {0, 1}, fixed)
end))

local net = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2))
local function field(_, y) return net(y) end
for _, batch in ipairs {1, 20, 256} do
  local y0 = tide.randn {batch, 2}
  row(("network 2-50-2, batch %d, no gradient"):format(batch), timed(function()
    tide.no_grad(ode.solve, field, y0, {0, 1}, fixed)
  end))
  row(("network 2-50-2, batch %d, discrete"):format(batch), both(field, y0, "discrete"))
  row(("network 2-50-2, batch %d, backsolve"):format(batch), both(field, y0, "backsolve"))
end

-- A whole solve with its gradient, adaptive.
print()
local function lotka(p)
  return function(_, u)
    local x, y = u[1], u[2]
    local xy = x * y
    return tide.stack({p[1] * x - p[2] * xy, p[4] * xy - p[3] * y}, 1)
  end
end
local u0, p = tide.tensor({1, 1}, "float64"), tide.tensor({1.5, 1, 3, 1}, "float64"):requires_grad()
for _, mode in ipairs {"discrete", "backsolve"} do
  local o, sol = {method = "dopri5", rtol = 1e-7, atol = 1e-5, grad = mode}, nil
  local seconds = timed(function()
    sol = ode.solve(lotka(p), u0, {0, 10}, o)
    local loss = ((1 - sol.last) ^ 2):sum()
    loss:backward()
  end, 7)
  print(("Lotka–Volterra to t = 10 with its gradient, %-9s %8.2f ms (%d + %d evaluations)"):format(mode, seconds * 1e3,
    sol.stats.nfe, sol.stats.nfe_b))
end
local numbers = timed(function()
  ode.solve(function(_, u) return {1.5 * u[1] - u[1] * u[2], u[1] * u[2] - 3 * u[2]} end, {1, 1}, {0, 10},
    {method = "dopri5", rtol = 1e-7, atol = 1e-7})
end)
print(("Lotka–Volterra to t = 10 with plain numbers %20.3f ms"):format(numbers * 1e3))
