-- Rooted trees and the order conditions of Runge–Kutta methods over them.
-- Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, II.2.

local M = {}

local by_order = {{{order = 1, gamma = 1}}}

-- Every multiset of trees from list[first…] of total order `rest`, as lists of children.
local function forests(list, first, rest, chosen, emit)
  if rest == 0 then return emit(chosen) end
  for i = first, #list do
    if list[i].order <= rest then
      chosen[#chosen + 1] = list[i]
      forests(list, i, rest - list[i].order, chosen, emit)
      chosen[#chosen] = nil
    end
  end
end

--- All rooted trees with n nodes: {order, gamma, its children in the array part}.
function M.of_order(n)
  if by_order[n] then return by_order[n] end
  local smaller, found = {}, {}
  for k = 1, n - 1 do
    for _, tree in ipairs(M.of_order(k)) do smaller[#smaller + 1] = tree end
  end
  forests(smaller, 1, n - 1, {}, function(children)
    local tree = {order = n, gamma = n}
    for i, child in ipairs(children) do
      tree[i] = child
      tree.gamma = tree.gamma * child.gamma
    end
    found[#found + 1] = tree
  end)
  by_order[n] = found
  return found
end

-- Φᵢ(tree) of every stage; `single`: the matrix at vertices with one child (Rosenbrock methods), else a.
local function elementary(tree, a, stages, single)
  local phi = {}
  for i = 1, stages do phi[i] = 1 end
  for _, child in ipairs(tree) do
    local inner, matrix = elementary(child, a, stages, single), #tree == 1 and single or a
    for i = 1, stages do
      local sum = 0
      for j = 1, stages do sum = sum + (matrix[i][j] or 0) * inner[j] end
      phi[i] = phi[i] * sum
    end
  end
  return phi
end

--- The greatest |Σ wᵢ Φᵢ(τ) − θ^n/γ(τ)| over the trees of order n; and what rounding of the coefficients may
--- contribute to it, 1e-15 of the sum with every number positive. `single` as for Rosenbrock methods, whose vertices
--- with one child take α + Γ (Hairer, Wanner, Solving ODEs II, IV.7).
function M.defect(n, a, w, theta, single)
  local worst, noise, positive = 0, 0, {}
  for i = 1, #w do
    positive[i] = {}
    for j = 1, #w do positive[i][j] = math.abs(a[i] and a[i][j] or 0) end
  end
  for _, tree in ipairs(M.of_order(n)) do
    local phi, size, sum, total = elementary(tree, a, #w, single), elementary(tree, positive, #w), 0, 0
    for i = 1, #w do
      sum = sum + w[i] * phi[i]
      total = total + math.abs(w[i]) * size[i]
    end
    worst = math.max(worst, math.abs(sum - (theta or 1) ^ n / tree.gamma))
    noise = math.max(noise, 1e-15 * total)
  end
  return worst, noise
end

-- Φᵢ(tree) for every choice of a matrix at each edge.
local function all_elementary(tree, matrices, stages)
  local out = {{}}
  for i = 1, stages do out[1][i] = 1 end
  for _, child in ipairs(tree) do
    local longer = {}
    for _, inner in ipairs(all_elementary(child, matrices, stages)) do
      for _, a in ipairs(matrices) do
        for _, phi in ipairs(out) do
          local next = {}
          for i = 1, stages do
            local sum = 0
            for j = 1, stages do sum = sum + (a[i][j] or 0) * inner[j] end
            next[i] = phi[i] * sum
          end
          longer[#longer + 1] = next
        end
      end
    end
    out = longer
  end
  return out
end

--- The greatest defect of an additive method of several matrices with the weights w: the conditions of each and those
--- that couple them (Kennedy, Carpenter 2003, section 2).
function M.additive_defect(n, matrices, w)
  local worst = 0
  for _, tree in ipairs(M.of_order(n)) do
    for _, phi in ipairs(all_elementary(tree, matrices, #w)) do
      local sum = 0
      for i = 1, #w do sum = sum + w[i] * phi[i] end
      worst = math.max(worst, math.abs(sum - 1 / tree.gamma))
    end
  end
  return worst
end

return M
