-- What fills the plane: image, heatmap, contour, arrows, vector_field. Methods of the axes; see
-- curves.lua for what an artist is.

local options = require "tide.options"
local errors = require "tide.plot.errors"
local data = require "tide.plot.data"
local colors = require "tide.plot.colors"
local resample = require "tide.plot.resample"
local ticks = require "tide.plot.ticks"
local font = require "tide.plot.font"
local scale = require "tide.plot.scale"
local contours = require "tide.plot.contours"

local none = options.none
local M = {}

-- {x0, x1, y0, y1} from the user, or the cells' own numbers.
local function read_extent(extent, rows, cols, where)
  if extent == nil then return {0.5, cols + 0.5, 0.5, rows + 0.5} end
  extent = data.vector(extent, where, "extent")
  if #extent ~= 4 then
    errors.raise("%s: extent must be {x0, x1, y0, y1}, got %d numbers", where, #extent)
  end
  return extent
end

-- An artist of rows × cols cells over an extent. Row 1 lies at y0, or with `flip` at y1.
local function grid_artist(rows, cols, color, extent, flip, smooth)
  local a = {z = 0}
  local x0, x1, y0, y1 = extent[1], extent[2], extent[3], extent[4]
  function a.extend(_, bounds)
    bounds:stick("x", x0)
    bounds:stick("x", x1)
    bounds:stick("y", y0)
    bounds:stick("y", y1)
  end
  function a.draw(_, view)
    local ya, yb = y0, y1
    if flip then ya, yb = y1, y0 end
    resample.draw(view.canvas, view.x(x0), view.y(ya), view.x(x1), view.y(yb), rows, cols, color,
      smooth)
  end
  return a
end

--- Show an image, H×W or H×W×C with C = 1, 3 or 4; the first row is at the top, and pixel (i, j)
--- lies about x = j, y = i. Axes with an image keep the pixels square and show no ticks unless
--- asked to.
--- Options: range ({black, white}; guessed as {0, 1}, {0, 255} or {−1, 1}), colormap (for one
--- channel, "gray"), smooth (false), extent ({x0, x1, y0, y1}). Returns the axes.
function M.image(ax, pixels, opts)
  local where = "image"
  local o = options.check(where, opts, {range = none, colormap = "gray", smooth = false,
    extent = none})
  local image = data.image(pixels, where)
  local lo, hi = data.image_range(image)
  if o.range then lo, hi = o.range[1], o.range[2] end
  local map = o.colormap ~= "gray" and colors.colormap(o.colormap, where) or nil
  local extent = read_extent(o.extent, image.h, image.w, where)
  ax:add(grid_artist(image.h, image.w, resample.image_colors(image, lo, hi, map), extent,
    o.extent ~= nil, o.smooth))
  ax:default("aspect", "equal")
  ax:default("grid", false)
  ax:default("box", true)
  if not o.extent then
    ax:default("yreverse", true)
    ax:default("xticks", {})
    ax:default("yticks", {})
  end
  return ax
end

-- Numbers in the middle of the cells, dark or light as the cell asks for.
local function annotate(ax, rows, extent, color_of, format)
  local h, w = #rows, #rows[1]
  local a = {z = 5}
  function a.extend() end
  function a.draw(_, view)
    local dx, dy = (extent[2] - extent[1]) / w, (extent[4] - extent[3]) / h
    for i = 1, h do
      for j = 1, w do
        local v = rows[i][j]
        local c = color_of(v)
        if c then
          local ink = colors.lightness(c) > 0.62 and {0.12, 0.13, 0.15} or {1, 1, 1}
          font.draw(view.canvas, view.x(extent[1] + (j - 0.5) * dx),
            view.y(extent[3] + (i - 0.5) * dy), format and format:format(v) or ticks.number(v, 3),
            {size = 12 * view.s, align = "center", valign = "middle", color = ink})
        end
      end
    end
  end
  ax:add(a)
end

local function count_to(n)
  local list = {}
  for i = 1, n do list[i] = i end
  return list
end

--- A matrix as colours. Without `extent` it is shown as written: row 1 at the top, entry (i, j)
--- about x = j, y = i. With extent {x0, x1, y0, y1} it is a function on that rectangle, and row 1
--- lies at y0, the bottom. NaN cells stay white. Options: colormap ("viridis"), colorbar (true,
--- false or its title), range ({lo, hi}, that of the values), smooth (false), extent,
--- annotate (false; true or a format such as "%.2f" writes the numbers). Returns the axes.
function M.heatmap(ax, matrix, opts)
  local where = "heatmap"
  local o = options.check(where, opts, {colormap = "viridis", colorbar = true, range = none,
    smooth = false, extent = none, annotate = false})
  local rows, h, w = data.matrix(matrix, where, "the matrix")
  local flat = {}
  for i = 1, h do
    for j = 1, w do flat[#flat + 1] = rows[i][j] end
  end
  local lo, hi = data.range(flat)
  if o.range then lo, hi = o.range[1] or lo, o.range[2] or hi end
  lo, hi = lo or 0, hi or 1
  local map = colors.colormap(o.colormap, where)
  local color_of = colors.mapper(map, lo, hi)
  local extent = read_extent(o.extent, h, w, where)
  local function color(i, j)
    local c = color_of(rows[i][j])
    if c then return c[1], c[2], c[3] end
  end
  ax:add(grid_artist(h, w, color, extent, false, o.smooth))
  if o.annotate then
    annotate(ax, rows, extent, color_of, type(o.annotate) == "string" and o.annotate or nil)
  end
  if not o.extent then
    ax:default("yreverse", true)
    if w <= 12 then ax:default("xticks", count_to(w)) end
    if h <= 12 then ax:default("yticks", count_to(h)) end
  end
  ax:default("grid", false)
  ax:default("box", true)
  if o.colorbar then ax:set_colorbar(map, lo, hi, o.colorbar) end
  return ax
end

--- Lines of equal value of a matrix, which lies as in heatmap. Options: levels (8: about so many,
--- or a list of values), extent, color (else by value through colormap), colormap ("viridis"),
--- width (1.25), label. Returns the axes.
function M.contour(ax, matrix, opts)
  local where = "contour"
  local o = options.check(where, opts, {levels = 8, extent = none, color = none,
    colormap = "viridis", width = 1.25, label = none})
  local rows, h, w = data.matrix(matrix, where, "the matrix")
  local extent = read_extent(o.extent, h, w, where)
  local lo, hi = math.huge, -math.huge
  for i = 1, h do
    local a, b = data.range(rows[i])
    if a then lo, hi = math.min(lo, a), math.max(hi, b) end
  end
  if lo >= hi then lo, hi = 0, 1 end
  local levels = o.levels
  if type(levels) == "number" then levels = ticks.linear(lo, hi, levels).values
  else levels = data.vector(levels, where, "levels") end
  local color_of = colors.mapper(colors.colormap(o.colormap, where), lo, hi)
  local fixed = o.color and colors.parse(o.color, where)
  local a = {z = 2, label = o.label, color = fixed or color_of((lo + hi) / 2)}
  function a.extend(_, bounds)
    bounds:stick("x", extent[1])
    bounds:stick("x", extent[2])
    bounds:stick("y", extent[3])
    bounds:stick("y", extent[4])
  end
  function a.draw(_, view)
    for _, level in ipairs(levels) do
      local xs, ys = contours.trace(rows, level, extent)
      for i = 1, #xs do xs[i], ys[i] = view.x(xs[i]), view.y(ys[i]) end
      view.canvas:stroke(xs, ys, o.width * view.s, fixed or color_of(level))
    end
  end
  function a:key(canvas, x, y, width, s)
    canvas:stroke({x, x + width}, {y, y}, o.width * s, self.color)
  end
  if not o.extent then ax:default("yreverse", true) end
  ax:add(a)
  return ax
end

-- One arrow from (x, y) along (u, v), in pixels.
local function draw_arrow(canvas, x, y, u, v, width, color, alpha)
  local len = math.sqrt(u * u + v * v)
  if len <= 0.5 then return canvas:disc(x, y, width * 1.4, color, alpha) end
  local head = math.min(len * 0.55, 2.5 + width * 2.6)
  local nx, ny = u / len, v / len
  local tx, ty = x + u, y + v
  local bx, by, half = tx - nx * head, ty - ny * head, head * 0.42
  canvas:cover(x, y, tx - nx * head * 0.8, ty - ny * head * 0.8, width / 2)
  canvas:paint(color, alpha)
  canvas:fill({tx, bx - ny * half, bx + ny * half}, {ty, by + nx * half, by - nx * half}, color,
    alpha)
end

--- Arrows from (xs[i], ys[i]) along (us[i], vs[i]), in data units times `scale` (1).
--- Options: scale, label, color, width (1.5), alpha (1). Returns the axes.
function M.arrows(ax, xs, ys, us, vs, opts)
  local where = "arrows"
  local o = options.check(where, opts, {scale = 1, label = none, color = none, width = 1.5,
    alpha = 1})
  xs, ys = data.pair(xs, ys, where)
  us, vs = data.vector(us, where, "us"), data.vector(vs, where, "vs")
  data.same_length(where, "xs", xs, "us", us)
  data.same_length(where, "xs", xs, "vs", vs)
  local a = {z = 3, label = o.label, color = ax:next_color(o.color, where)}
  local ex, ey = {}, {}
  for i = 1, #xs do ex[i], ey[i] = xs[i] + us[i] * o.scale, ys[i] + vs[i] * o.scale end
  function a.extend(_, bounds)
    bounds:add(xs, ys)
    bounds:add(ex, ey)
  end
  function a:draw(view)
    for i = 1, #xs do
      local x, y = view.x(xs[i]), view.y(ys[i])
      local u, v = view.x(ex[i]) - x, view.y(ey[i]) - y
      if u == u and v == v then
        draw_arrow(view.canvas, x, y, u, v, o.width * view.s, self.color, o.alpha)
      end
    end
  end
  function a:key(canvas, x, y, w, s)
    draw_arrow(canvas, x, y, w, 0, o.width * s, self.color, 1)
  end
  ax:add(a)
  return ax
end

-- The field at the nodes of an nx × ny grid over the axes: lists of positions in pixels and of
-- displacements in pixels per unit of time.
local function sample_field(f, view, nx, ny)
  local box, list = view.box, {}
  local invx = scale.unmap(view.xkind, view.xlim[1], view.xlim[2], box.x0, box.x1)
  local invy = scale.unmap(view.ykind, view.ylim[1], view.ylim[2], box.y1, box.y0)
  for j = 1, ny do
    for i = 1, nx do
      local px = box.x0 + (i - 0.5) / nx * (box.x1 - box.x0)
      local py = box.y0 + (j - 0.5) / ny * (box.y1 - box.y0)
      local x, y = invx(px), invy(py)
      local u, v = f(x, y)
      local dx, dy = view.x(x + u * 1e-6) - px, view.y(y + v * 1e-6) - py
      local size = math.sqrt(dx * dx + dy * dy)
      if size == size then
        list[#list + 1] = {px, py, dx, dy, size, math.sqrt(u * u + v * v)}
      end
    end
  end
  return list
end

--- The vector field f(x, y) → u, v as arrows on a grid over the axes, all within their cell:
--- their length shows the speed (as its square root, so that slow parts stay visible), or is the
--- same with `normalize`. Options: n (20, along the longer side), normalize (false), colormap
--- (colours the arrows by speed), color ("#9aa3ad"), width (1.3), alpha (1). Returns the axes.
function M.vector_field(ax, f, opts)
  local where = "vector_field"
  local o = options.check(where, opts, {n = 20, normalize = false, colormap = none,
    color = "#9aa3ad", width = 1.3, alpha = 1})
  if type(f) ~= "function" then
    errors.raise("%s: expected a function (x, y) → u, v, got %s", where, errors.describe(f))
  end
  errors.number(where, "n", o.n, 2, 200)
  local map = o.colormap and colors.colormap(o.colormap, where)
  local a = {z = 1, color = colors.parse(o.color, where)}
  function a.extend() end
  function a:draw(view)
    local w, h = view.box.x1 - view.box.x0, view.box.y1 - view.box.y0
    local cell = math.max(w, h) / o.n
    local list = sample_field(f, view, math.max(1, math.floor(w / cell + 0.5)),
      math.max(1, math.floor(h / cell + 0.5)))
    local top, fastest = 0, 0
    for _, p in ipairs(list) do top, fastest = math.max(top, p[5]), math.max(fastest, p[6]) end
    local color_of = map and colors.mapper(map, 0, fastest)
    for _, p in ipairs(list) do
      local len = o.normalize and 0.72 * cell or cell * (0.15 + 0.75 * math.sqrt(p[5] / top))
      local k = p[5] > 0 and len / p[5] or 0
      local u, v = p[3] * k, p[4] * k
      draw_arrow(view.canvas, p[1] - u / 2, p[2] - v / 2, u, v, o.width * view.s,
        color_of and color_of(p[6]) or self.color, o.alpha)
    end
  end
  ax:add(a)
  return ax
end

return M
