-- What is drawn with filled shapes: fill_between, bar, hist. Methods of the axes; see curves.lua.

local options = require "tide.options"
local errors = require "tide.plot.errors"
local data = require "tide.plot.data"

local none = options.none
local M = {}

local function patch_key(a, canvas, x, y, w, s)
  canvas:rect(x + w * 0.12, y - 5 * s, x + w * 0.88, y + 5 * s, a.color, a.alpha)
end

--- Fill the band between two curves; `lo` and `hi` may be numbers. NaN breaks the band.
--- Options: label, color (that of the last line), alpha (0.25). Returns the axes.
function M.fill_between(ax, xs, lo, hi, opts)
  local where = "fill_between"
  local o = options.check(where, opts, {label = none, color = none, alpha = 0.25})
  errors.number(where, "alpha", o.alpha, 0, 1)
  xs = data.vector(xs, where, "xs")
  lo = data.broadcast(lo, #xs, where, "lo")
  hi = data.broadcast(hi, #xs, where, "hi")
  local a = {label = o.label, alpha = o.alpha, color = ax:last_color(o.color, where), z = 1,
    key = patch_key}
  function a.extend(_, bounds)
    bounds:add(xs, lo)
    bounds:add(xs, hi)
  end
  local function flush(view, px, top, bottom)
    local n = #px
    local ys = {}
    for i = 1, n do ys[i], px[2 * n + 1 - i], ys[2 * n + 1 - i] = top[i], px[i], bottom[i] end
    if n > 1 then view.canvas:fill(px, ys, a.color, a.alpha) end
  end
  function a.draw(_, view)
    local px, top, bottom = {}, {}, {}
    for i = 1, #xs do
      local x, y0, y1 = view.x(xs[i]), view.y(lo[i]), view.y(hi[i])
      if y0 ~= y0 and lo[i] <= 0 then y0 = view.box.y1 end    -- below a logarithmic axis
      if x ~= x or y0 ~= y0 or y1 ~= y1 then
        flush(view, px, top, bottom)
        px, top, bottom = {}, {}, {}
      else
        px[#px + 1], top[#top + 1], bottom[#bottom + 1] = x, y1, y0
      end
    end
    flush(view, px, top, bottom)
  end
  ax:add(a)
  return ax
end

-- Rectangles between the edges left[i], right[i] from zero (or the floor of a logarithmic axis) up
-- to heights[i]; `space` pixels stay free between neighbours.
local function boxes(left, right, heights, a, space)
  a.z, a.key = 1, patch_key
  function a.extend(_, bounds)
    bounds:add(left, heights)
    bounds:add(right, nil)
    if not bounds.y.log then bounds:stick("y", 0) end
  end
  function a:draw(view)
    local foot = view.y(0)
    if foot ~= foot then foot = view.box.y1 end
    for i = 1, #heights do
      local x0, x1, y = view.x(left[i]), view.x(right[i]), view.y(heights[i])
      if y == y and x0 == x0 and x1 == x1 then
        local gap = math.min(space * view.s, math.abs(x1 - x0) / 4)
        x0, x1 = math.min(x0, x1), math.max(x0, x1)
        if gap > 0 then      -- whole pixels, so that all gaps look the same
          x0, x1 = math.floor(x0 + 0.5), math.floor(x1 + 0.5) - math.max(1, math.floor(gap + 0.5))
        end
        view.canvas:rect(x0, y, math.max(x1, x0 + 1), foot, self.color, self.alpha)
      end
    end
  end
  return a
end

--- Bars over positions or names: `ax:bar({"euler", "rk4"}, {3, 5})`, `ax:bar(xs, heights)`,
--- `ax:bar(heights)`. Options: label, color, width (0.7, in data units), offset (0: shifts the bars
--- sideways, to stand groups next to each other), alpha (1). Returns the axes.
function M.bar(ax, xs, heights, opts)
  local where = "bar"
  xs, heights, opts = data.shift(xs, heights, opts)
  local o = options.check(where, opts, {label = none, color = none, width = 0.7, offset = 0,
    alpha = 1})
  errors.number(where, "width", o.width, 0)
  errors.number(where, "offset", o.offset)
  if type(xs) == "table" and type(xs[1]) == "string" then
    local names, at = xs, {}
    for i = 1, #names do at[i] = i end
    ax:categories(names)
    xs = at
  end
  xs, heights = data.pair(xs, heights, where)
  local left, right = {}, {}
  for i = 1, #xs do
    left[i], right[i] = xs[i] + o.offset - o.width / 2, xs[i] + o.offset + o.width / 2
  end
  ax:add(boxes(left, right, heights, {label = o.label, alpha = o.alpha,
    color = ax:next_color(o.color, where)}, 0))
  return ax
end

-- The number of bins by Freedman and Diaconis: their width is twice the interquartile range over
-- the cube root of n.
local function bin_count(sorted, lo, hi)
  local n = #sorted
  local spread = sorted[math.ceil(n * 0.75)] - sorted[math.ceil(n * 0.25)]
  if spread <= 0 then return 20 end
  return math.max(5, math.min(100, math.ceil((hi - lo) / (2 * spread / n ^ (1 / 3)))))
end

-- The edges of the bins.
local function bin_edges(bins, values, range, where)
  if type(bins) == "table" then return data.vector(bins, where, "bins") end
  table.sort(values)
  local lo, hi = values[1] or 0, values[#values] or 1
  if range then lo, hi = range[1], range[2] end
  if lo == hi then lo, hi = lo - 0.5, hi + 0.5 end
  if bins == "auto" then bins = #values > 0 and bin_count(values, lo, hi) or 10 end
  if type(bins) ~= "number" or bins < 1 then
    errors.raise('%s: bins must be a number of at least 1, a list of edges or "auto", got %s',
      where, errors.describe(bins))
  end
  local edges = {}
  for i = 0, bins do edges[i + 1] = lo + (hi - lo) * i / bins end
  return edges
end

-- How many values fall between each two edges (the last bin includes its upper edge).
local function count(values, edges)
  local counts, n = {}, #edges - 1
  for i = 1, n do counts[i] = 0 end
  for _, v in ipairs(values) do
    if v >= edges[1] and v <= edges[n + 1] then
      local a, b = 1, n                       -- bisection: edges need not be equidistant
      while a < b do
        local mid = math.ceil((a + b) / 2)
        if v >= edges[mid] then a = mid else b = mid - 1 end
      end
      counts[a] = counts[a] + 1
    end
  end
  return counts
end

--- A histogram. Values that are not finite are left out. Options: bins ("auto", a number or a list
--- of edges), range ({lo, hi}, that of the values), density (false; true makes the area 1), label,
--- color, alpha (0.85). Returns the axes.
function M.hist(ax, values, opts)
  local where = "hist"
  local o = options.check(where, opts, {bins = "auto", range = none, density = false, label = none,
    color = none, alpha = 0.85})
  local finite = {}
  for _, v in ipairs(data.vector(values, where, "values")) do
    if v - v == 0 then finite[#finite + 1] = v end
  end
  local edges = bin_edges(o.bins, finite, o.range, where)
  local heights, left, right, total = count(finite, edges), {}, {}, 0
  for i = 1, #heights do
    left[i], right[i], total = edges[i], edges[i + 1], total + heights[i]
  end
  if o.density and total > 0 then
    for i = 1, #heights do heights[i] = heights[i] / total / (right[i] - left[i]) end
  end
  ax:add(boxes(left, right, heights, {label = o.label, alpha = o.alpha,
    color = ax:next_color(o.color, where)}, 1))
  return ax
end

return M
