-- AdjointDPM's exponential reparameterisation (arXiv 2307.10711): in y = x/α over σ̂ = σ/α the probability flow is
-- dy/dσ̂ = ε, which any method of tide.ode solves, with that solver's own gradients.

local is_finite = require("tide.values").is_finite
local message = require "tide.message"

local M = {}

local gradients = {discrete = "discrete", adjoint = "backsolve", none = "discrete"}

-- ε at y, a state at the point `node`. States that are not finite are the solver's to deal with; a network that makes
-- such values of finite ones is told.
local function slope(env, y, node, ratios)
  local e = env.predict(y * node.alpha, node, "epsilon")
  if is_finite(e:detach()) or not is_finite(y:detach()) then return e end
  local step = 1
  while step < #ratios - 1 and ratios[step + 1] >= node.ratio do step = step + 1 end
  message.raise("diffusion.sample: the network gave values that are not finite at step %d (t = %g, σ = %.6g)", step,
    node.t, node.sigma)
end

-- From x at nodes[1] to the last of the nodes; to one without noise by a last step of first order. Gives the states at
-- the nodes and the solver's statistics.
local function solve(schedule, nodes, x, env, o, grad)
  if not gradients[grad] then
    message.raise("diffusion.sample: sampler \"ode\" has grad = \"discrete\" or \"adjoint\", not %q", grad)
  end
  local ratios, last = {}, #nodes
  if nodes[last].sigma == 0 then last = last - 1 end
  local states = {x}
  local stats, more = {nfe = 0}, last < #nodes and 1 or 0
  local first = 1
  if nodes[1].alpha == 0 then  -- pure noise, of a flow: the first step is its own
    first, more = 2, more + 1
    states[2] = x + env.predict(x, nodes[1], "flow") * (nodes[2].sigma - nodes[1].sigma)
  end
  for i = first, last do ratios[#ratios + 1] = nodes[i].ratio end
  if last > first then
    local sol = require("tide.ode").solve(function(ratio, y)
      return slope(env, y, schedule:node_at(-math.log(ratio:item())), ratios)
    end, states[first] / nodes[first].alpha, ratios, {
      method = o.method, rtol = o.rtol, atol = o.atol, grad = gradients[grad], step_size = o.step_size,
      land = require("tide.ode.request").unsized(o.method, o.step_size),
    })
    for i = first + 1, last do states[i] = sol.ys[i - first + 1] * nodes[i].alpha end
    stats = sol.stats
  end
  if last < #nodes and not states[#nodes] then states[#nodes] = env.predict(states[last], nodes[last], "x0") end
  return states, stats, more
end

M.ode = {
  source = "Pan et al. 2024, AdjointDPM, section 3.2", order = 0, solve = solve,
  options = {method = "rk4", rtol = 1e-5, atol = 1e-5, step_size = 0},
}

return M
