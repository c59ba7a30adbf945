-- The exact gradient of the sampler's steps beside AdjointDPM's continuous adjoint, at 10, 20 and 50 steps: how far
-- each is from the derivative of the flow itself (a mixture on the line, where that is known), and how fast the noise
-- of a digit model is found with each.
--
--   bin/tide bench/diffusion_gradients.lua [--iterations 20] [--count 5] [--lr 0.15] [--out diffusion_gradients.png]

package.path = "./?.lua;" .. package.path
local mixture = require "spec.support.mixture"
local tide = require "tide"
local data, diffusion, plot = tide.data, tide.diffusion, tide.plot

local o = {iterations = 20, count = 5, lr = 0.15, out = "diffusion_gradients.png"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1], "usage: diffusion_gradients.lua [--iterations n] [--count n] [--lr x] "
    .. "[--out file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1])) or arg[i + 1]
end

local counts = {10, 20, 50}
local modes = {"discrete", "adjoint", "adjoint_2m"}

-- ---- On the line: median relative error of dx0/dx_T over 41 starts ----

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

-- Errors against the steps' own derivative and against the flow's.
local function errors(mode, steps)
  local schedule = diffusion.Schedule "scaled_linear"
  local line = {weights = {0.4, 0.6}, sd = {0.3, 0.4}, means = {-1, 1.5}}
  local model = mixture.denoiser {weights = line.weights, sd = line.sd, schedule = schedule,
    means = tide.tensor({{-1}, {1.5}}, "float64")}
  local x = tide.linspace(-2, 2, 41, "float64"):reshape(41, 1):requires_grad()
  local function gradient(grad)
    local out = diffusion.sample(model, x, {schedule = schedule, steps = steps, spacing = "linspace", final = "none",
      grad = grad})
    return tide.gradients(out.x0:sum(), x)[1], out.nodes
  end
  local g, nodes = gradient(mode)
  local exact = gradient "discrete"
  local from_steps, from_flow = {}, {}
  for i = 1, 41 do
    local _, slope = mixture.flow(line, x[{i, 1}]:item(), nodes[1], nodes[#nodes])
    local e = exact[{i, 1}]:item()
    from_steps[i] = math.abs(g[{i, 1}]:item() - e) / math.abs(e)
    from_flow[i] = math.abs(g[{i, 1}]:item() - slope) / math.abs(slope)
  end
  return median(from_steps), median(from_flow)
end

print "a mixture on the line, DDIM, times from 999 to 0: median relative error of dx0/dx_T"
print("steps  gradient     from the steps' own  from the flow's")
for _, steps in ipairs {10, 20, 50, 100, 200} do
  for _, mode in ipairs(modes) do
    local a, b = errors(mode, steps)
    print(("%5d  %-11s  %17.1f %%  %13.1f %%"):format(steps, mode, 100 * a, 100 * b))
  end
end

-- ---- The noise of digits ----

local model, info = assert(diffusion.pretrained "digits")
model:freeze()
local _, test = assert(data.digits())
local target = test.images[{{1, o.count}}]:float() / 127.5 - 1
local none = tide.full({o.count}, 11, "int64")

local function optimise(mode, steps)
  local x = info.schedule:noise({o.count, 28, 28, 1}, {generator = tide.generator(4)}):requires_grad()
  local clock = os.clock()
  local ok, r = pcall(diffusion.optimise, model, x, function(x0) return ((x0 - target) ^ 2):mean() end,
    {iterations = o.iterations, lr = o.lr, sampling = {schedule = info.schedule, steps = steps, condition = none,
      grad = mode}})
  if not ok then return nil, r end
  return r.losses, os.clock() - clock
end

print "\nnoise optimised to held-out digits, DDIM: mean squared error"
local fig = plot.figure {width = 1200, height = 380, cols = #counts, title = "noise found through the sampler"}
for i, steps in ipairs(counts) do
  local ax = fig:axes(i, {title = steps .. " steps", xlabel = "iteration", ylabel = i == 1 and "loss" or nil,
    yscale = "log"})
  for _, mode in ipairs(modes) do
    local losses, seconds = optimise(mode, steps)
    if losses then
      print(("%3d steps  %-11s  %.4f → %.4f, least %.4f, %.0f s of processor time"):format(steps, mode, losses[1],
        losses[#losses], math.min(unpack(losses)), seconds))
      ax:line(tide.arange(0, #losses - 1), losses, {label = mode})
    else
      print(("%3d steps  %-11s  failed: %s"):format(steps, mode, seconds))
    end
    io.stdout:flush()
  end
end
assert(fig:save(o.out))
print("drew " .. o.out)
