-- The exact gradient of the sampler's steps beside AdjointDPM's continuous adjoint, at 10, 20 and 50 steps: how far
-- each is from the derivative of the flow itself, on a mixture on the line, where that is known. What they are worth
-- for a network: diffusion_tasks.lua.
--
--   bin/tide bench/diffusion_gradients.lua

package.path = "./?.lua;" .. package.path
local mixture = require "spec.support.mixture"
local tide = require "tide"
local diffusion = tide.diffusion

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
