-- A Brownian path that can be asked anywhere: the values follow from a seed and the time alone, in any order and any
-- number of times, by bisecting the interval with Brownian bridges. Beside W it knows the time integral of W, so that
-- both are consistent on every refinement (Foster, Lyons and Oberhauser 2020; Jelinčič, Foster and Kidger 2024).

local core = require "tide.core"
local message = require "tide.message"
local options = require "tide.options"

local M = {}

local raise = message.raise

local Path = {}
Path.__index = Path

-- Two standard normal draws that belong to node `index` of the tree.
local function draws(path, index)
  local generator = core.generator((path.seed * 2654435761 + index * 40503 + 12345) % 2 ^ 53)
  return generator:randn(path.shape, path.dtype), generator:randn(path.shape, path.dtype)
end

--- ode.brownian(shape, t0, t1, {seed = 0, dtype = "float32", depth = 20}): a path of independent Brownian motions of
--- that shape on [t0, t1], W(t0) = 0. It is resolved to (t1 − t0)/2^depth; within that it is a straight line.
function M.brownian(shape, t0, t1, opts)
  local o = options.check("ode.brownian", opts, {seed = 0, dtype = "float32", depth = 20})
  if type(t0) ~= "number" or type(t1) ~= "number" or t0 >= t1 then
    raise("ode.brownian: t0 = %s and t1 = %s, expected numbers with t0 < t1", tostring(t0), tostring(t1))
  end
  local path = setmetatable({shape = shape, t0 = t0, t1 = t1, seed = o.seed, dtype = o.dtype, depth = o.depth}, Path)
  local a, b = draws(path, 0)
  local h = t1 - t0
  path.whole = {w = a * math.sqrt(h), h = b * math.sqrt(h / 12)}
  path.zero = a * 0
  return path
end

-- Over an interval of length h: w its increment, hh = (1/h)∫(W − W(s) − (r − s)/h·w) dr. Gives those of both halves.
local function halves(path, index, h, node)
  if path.cached and path.cached[index] then return unpack(path.cached[index]) end
  local a, b = draws(path, index)
  local z, n = a * (math.sqrt(h) / 4), b * (math.sqrt(h / 12) / 2)
  local turn, rest = node.h * 1.5 + z, node.h * 0.25 - z * 0.5
  local left = {w = node.w * 0.5 + turn, h = rest + n}
  local right = {w = node.w * 0.5 - turn, h = rest - n}
  if index < 4096 then
    path.cached = path.cached or {}
    path.cached[index] = {left, right}
  end
  return left, right
end

-- ∫ of W from the interval's start, where W is w0, over an interval of length h.
local function integral(w0, node, h) return (w0 + node.w * 0.5 + node.h) * h end

--- W(t), and the integral of W from t0 to t.
function Path:at(t)
  if type(t) ~= "number" or t < self.t0 or t > self.t1 then
    raise("brownian: t is %s, expected a number in [%g, %g]", tostring(t), self.t0, self.t1)
  end
  local s, h, node, index = self.t0, self.t1 - self.t0, self.whole, 1
  local w, area = self.zero, self.zero
  for _ = 1, self.depth do
    if t == s then return w, area end
    if t == s + h then return w + node.w, area + integral(w, node, h) end
    local left, right = halves(self, index, h, node)
    h = h / 2
    if t < s + h then
      node, index = left, 2 * index
    else
      area = area + integral(w, left, h)
      w, s, node, index = w + left.w, s + h, right, 2 * index + 1
    end
  end
  local x = (t - s) / h
  return w + node.w * x, area + (w * x + node.w * (x * x / 2)) * h
end

--- The increment of W from s to t, and ∫(W(r) − W(s)) dr over it.
function Path:increment(s, t)
  local w0, a0 = self:at(s)
  local w1, a1 = self:at(t)
  return w1 - w0, a1 - a0 - w0 * (t - s)
end

return M
