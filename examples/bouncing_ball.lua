-- A ball that bounces, and the drop that makes its third impact come when we want it.
--
--   bin/tide examples/bouncing_ball.lua [--seconds 9] [--out bouncing_ball.png]
--
-- An event watches the height and turns the velocity around at the ground, losing a fifth of it. The impact times come
-- with exact gradients through every bounce, so a few Newton steps on the height of the drop place the third impact.

local tide = require "tide"
local ode, plot = tide.ode, tide.plot

local o = {seconds = 9, out = "bouncing_ball.png"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1], "usage: bouncing_ball.lua [--seconds s] [--out file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end

local gravity, kept = 9.8, 0.8
local acceleration = tide.tensor({-gravity}, "float64")

-- The ball dropped from `height` (a tensor), until its third impact or over given times.
local function drop(height, times)
  return ode.solve(function(_, y) return tide.cat({y:narrow(1, 2, 1), acceleration}, 1) end,
    tide.cat({height, tide.zeros({1}, "float64")}, 1), times or {0, 60}, {
      rtol = 1e-10, atol = 1e-10, dense = true,
      event = {
        fn = function(_, y) return y[1] end, direction = -1, terminal = not times and 3 or false,
        reset = function(_, y) return tide.cat({y:narrow(1, 1, 1) * 0, y:narrow(1, 2, 1) * -kept}, 1) end,
      }})
end

-- ---- Newton on the height ----

local height = tide.tensor({10}, "float64"):requires_grad()
local heights = {}
for step = 1, 8 do
  local sol = drop(height)
  local third = sol.events.t[3]
  local slope = tide.gradients(third, {height})[1]
  heights[step] = height:item()
  print(("dropped from %8.4f m: the third impact at %.6f s, %+.4f s a metre"):format(height:item(), third:item(),
    slope:item()))
  if math.abs(third:item() - o.seconds) < 1e-10 then break end
  height = (height + (o.seconds - third) / slope):detach():requires_grad()
end

-- ---- The picture ----

local function path(from)
  local sol = tide.no_grad(drop, tide.tensor({from}, "float64"), {0, 1.35 * o.seconds})
  local t, x, v, hits, bounce = {}, {}, {}, sol.events.t:totable(), 1
  local function add(at, side)
    local y = sol(at, side)
    t[#t + 1], x[#x + 1], v[#v + 1] = at, y[1]:item(), y[2]:item()
  end
  for i = 0, 900 do
    local at = 1.35 * o.seconds * i / 900
    while hits[bounce] and hits[bounce] <= at do  -- before and after the ground
      add(hits[bounce], "left")
      add(hits[bounce])
      bounce = bounce + 1
    end
    add(at)
  end
  return t, x, v, sol
end

local fig = plot.figure {width = 1200, height = 460, cols = 2,
  title = ("The drop whose third impact comes after %g seconds"):format(o.seconds)}
local fall = fig:axes(1, {title = "height", xlabel = "seconds", ylabel = "metres", legend = "outside"})
local phase = fig:axes(2, {title = "phase portrait", xlabel = "metres", ylabel = "metres a second"})
local shown = {heights[1], heights[2], heights[#heights]}
for i, from in ipairs(shown) do
  local t, x, v, sol = path(from)
  local last = i == #shown
  fall:line(t, x, {color = plot.color(i), width = last and 2 or 1, label = ("%.1f m"):format(from)})
  phase:line(x, v, {color = plot.color(i), width = last and 2 or 1, alpha = last and 1 or 0.6})
  if last then
    local hits = sol.events.t:totable()
    local ground = {}
    for k = 1, #hits do ground[k] = 0 end
    fall:scatter(hits, ground, {color = plot.color(i), size = 7})
  end
end
fall:vline(o.seconds)
assert(fig:save(o.out))
print("drew " .. o.out)

-- t₃ = (1 + 2e + 2e²) √(2h/g) in closed form
local exact = gravity / 2 * (o.seconds / (1 + 2 * kept + 2 * kept ^ 2)) ^ 2
assert(math.abs(height:item() / exact - 1) < 1e-9, "the height was not found")
