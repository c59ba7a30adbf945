-- What a network may predict about x = α·x0 + σ·ε, and how one prediction becomes another: all are linear in the
-- prediction and x. With D the prediction of x0: v = α·ε − σ·D (Salimans and Ho 2022), flow = ε − D (rectified
-- flow, arXiv 2209.03003, where α + σ = 1).

local core = require "tide.core"
local message = require "tide.message"

local M = {}
local raise = message.raise

-- D = a·x + b·p and ε = c·x + d·p for a prediction p of each kind.
local parts = {
  epsilon = function(alpha, sigma) return 1 / alpha, -sigma / alpha, 0, 1 end,
  x0 = function(alpha, sigma) return 0, 1, 1 / sigma, -alpha / sigma end,
  v = function(alpha, sigma)
    local r = alpha * alpha + sigma * sigma
    return alpha / r, -sigma / r, sigma / r, alpha / r
  end,
  flow = function(alpha, sigma)
    local r = alpha + sigma
    return 1 / r, -sigma / r, 1 / r, alpha / r
  end,
}

-- The prediction of each kind from D = a·x + b·p and ε = c·x + d·p.
local wholes = {
  epsilon = function(_, _, _, _, c, d) return c, d end,
  x0 = function(_, _, a, b) return a, b end,
  v = function(alpha, sigma, a, b, c, d) return alpha * c - sigma * a, alpha * d - sigma * b end,
  flow = function(_, _, a, b, c, d) return c - a, d - b end,
}

--- The kinds: a set of names.
M.kinds = {epsilon = true, x0 = true, v = true, flow = true}

--- Raises unless `kind` is one of the kinds.
function M.check(fname, kind)
  if not M.kinds[kind] then
    raise("%s: unknown prediction %q, expected \"epsilon\", \"x0\", \"v\" or \"flow\"", fname, tostring(kind))
  end
  return kind
end

--- Numbers a, b such that a·x + b·p is the prediction of kind `to` where p is the one of kind `from`.
function M.coefficients(from, to, alpha, sigma)
  if from == to then return 0, 1 end
  return wholes[to](alpha, sigma, parts[from](alpha, sigma))
end

--- convert(p, x, {from, to, alpha, sigma}): the prediction p of kind `from` as one of kind `to`. alpha and sigma
--- are numbers, or tensors that broadcast against x.
function M.convert(p, x, from, to, alpha, sigma)
  M.check("convert", from)
  M.check("convert", to)
  local a, b = M.coefficients(from, to, alpha, sigma)
  if type(a) == "number" and type(b) == "number" then
    if a == 0 then return b == 1 and p or p * b end
    return core.lincomb {core.tensor({a, b}, "float64"), x, p}
  end
  return x * a + p * b
end

--- The prediction of a kind that belongs to the pair (x0, noise): what training aims at.
function M.target(kind, x0, noise, alpha, sigma)
  M.check("target", kind)
  if kind == "epsilon" then return noise end
  if kind == "x0" then return x0 end
  if kind == "v" then return noise * alpha - x0 * sigma end
  return noise - x0
end

return M
