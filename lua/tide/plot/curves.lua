-- What is drawn with points and lines: line, scatter, errorbar, hline, vline, text.
--
-- Each function here is a method of the axes. It checks its arguments, and adds an artist: a table
-- with `extend(bounds)`, `draw(view)` and, for the legend, `label` and `key(canvas, x, y, w, s)`.
-- A view is {canvas=, x=, y=, box=, s=}: the maps to pixels, the plot's rectangle, and the
-- pixel ratio by which all sizes are multiplied.

local options = require "tide.options"
local errors = require "tide.plot.errors"
local data = require "tide.plot.data"
local colors = require "tide.plot.colors"
local markers = require "tide.plot.markers"
local theme = require "tide.plot.theme"
local font = require "tide.plot.font"

local none = options.none
local M = {}

local dashes = {dashed = {6, 4}, dotted = {0.1, 3.5}, dashdot = {7, 3.5, 0.1, 3.5}, solid = false}
local short_dashes = {["--"] = "dashed", [":"] = "dotted", ["-."] = "dashdot", ["-"] = "solid"}

-- A dash pattern in pixels for width 1…2 from a name or a list of lengths.
local function dash_pattern(dash, where)
  if dash == nil or dash == false then return nil end
  if dash == true then return dashes.dashed end
  if type(dash) == "table" then return data.vector(dash, where, "dash") end
  local name = short_dashes[dash] or dash
  errors.one_of(where, "dash", name, {"solid", "dashed", "dotted", "dashdot"})
  return dashes[name] or nil
end

local function scaled(pattern, f)
  if not pattern then return nil end
  local out = {}
  for i, d in ipairs(pattern) do out[i] = d * f end
  return out
end

local function to_pixels(view, xs, ys)
  local px, py = {}, {}
  for i = 1, #xs do px[i], py[i] = view.x(xs[i]), view.y(ys[i]) end
  return px, py
end

-- Of many points within one pixel column keep first, lowest, highest and last. The drawn line is
-- the same, and a curve of a million points as quick as one of a thousand. Only for rising x.
local function thin(px, py)
  local ox, oy, n = {}, {}, #px
  local i = 1
  while i <= n do
    local column, j = math.floor(px[i] * 2), i
    local lo, hi = i, i
    while j < n and math.floor(px[j + 1] * 2) == column and py[j + 1] == py[j + 1] do
      j = j + 1
      if py[j] < py[lo] then lo = j end
      if py[j] > py[hi] then hi = j end
    end
    local keep = {i, math.min(lo, hi), math.max(lo, hi), j}
    for k = 1, 4 do
      if k == 1 or keep[k] ~= keep[k - 1] then
        ox[#ox + 1], oy[#oy + 1] = px[keep[k]], py[keep[k]]
      end
    end
    i = j + 1
  end
  return ox, oy
end

local function rising(xs)
  for i = 2, #xs do
    local ordered = xs[i] >= xs[i - 1]      -- NaN is not
    if not ordered then return false end
  end
  return true
end

local function draw_markers(view, px, py, a)
  local every = a.every or 1
  for i = 1, #px, every do
    markers.draw_rimmed(view.canvas, a.marker, px[i], py[i], a.size * view.s, a.color,
      theme.background, view.s)
  end
end

local function line_artist(xs, ys, a)
  function a.extend(_, bounds) bounds:add(xs, ys) end
  function a:draw(view)
    local px, py = to_pixels(view, xs, ys)
    if self.width > 0 then
      local lx, ly = px, py
      if #xs > 4000 and rising(xs) then lx, ly = thin(px, py) end
      local width = self.width * view.s
      view.canvas:stroke(lx, ly, width, self.color, self.alpha, scaled(self.dash,
        view.s * math.max(1, self.width / 2)))
    end
    if self.marker then draw_markers(view, px, py, self) end
  end
  function a:key(canvas, x, y, w, s)
    if self.width > 0 then
      canvas:stroke({x, x + w}, {y, y}, math.min(self.width, 3) * s, self.color, self.alpha,
        scaled(self.dash, s * math.max(1, self.width / 2)))
    end
    if self.marker then
      markers.draw_rimmed(canvas, self.marker, x + w / 2, y, math.min(self.size, 9) * s,
        self.color, theme.background, s)
    end
  end
  return a
end

-- The columns of a matrix of `n` rows, or nil when `ys` is not one.
local function columns(ys, n)
  if type(ys) ~= "table" or type(ys[1]) ~= "table" or #ys ~= n or #ys[1] < 2 then return nil end
  local list = {}
  for j = 1, #ys[1] do
    list[j] = {}
    for i = 1, n do list[j][i] = ys[i][j] end
  end
  return list
end

--- A line through points: `ax:line(xs, ys, o)` or `ax:line(ys, o)` over 1, 2, 3, …. A matrix of
--- `#xs` rows draws one line for each column. NaN and infinity break the line.
--- Options: label (a list of them for columns), color, width (2 pixels; 0 is none),
--- dash (true, "dashed", "dotted", "dashdot" or a list of lengths), marker ("o", "s", "^", …),
--- size (of markers, 7), every (a marker each so many points, 1), alpha (1). Returns the axes.
function M.line(ax, xs, ys, opts)
  local where = "line"
  xs, ys, opts = data.shift(xs, ys, opts)
  local o = options.check(where, opts, {label = none, color = none, width = theme.line_width,
    dash = none, marker = none, size = 7, every = 1, alpha = 1})
  errors.number(where, "width", o.width, 0)
  errors.number(where, "size", o.size, 0)
  errors.number(where, "every", o.every, 1)
  errors.number(where, "alpha", o.alpha, 0, 1)
  local dash, marker = dash_pattern(o.dash, where), markers.resolve(o.marker, where)
  local plain = data.plain(ys)
  local list = xs ~= nil and ys ~= nil and columns(plain, #data.vector(xs, where, "xs"))
  for k, column in ipairs(list or {plain == nil and none or plain}) do
    local x, y = data.pair(xs, column ~= none and column or nil, where)
    local label = o.label
    if type(label) == "table" then label = label[k] elseif k > 1 then label = nil end
    ax:add(line_artist(x, y, {label = label, color = ax:next_color(o.color, where),
      width = o.width, dash = dash, marker = marker, size = o.size, every = o.every,
      alpha = o.alpha, z = 3}))
  end
  return ax
end

-- Colours of single points: classes (whole numbers), values for a colour map, or colours.
-- Returns a list of colours, the classes found and the range of the values.
local function point_colors(o, n, where)
  local list = data.plain(o.color)
  if #list ~= n then
    errors.raise("%s: color must be one colour or one for each of the %d points, got %d", where, n,
      #list)
  end
  local out, classes, whole = {}, {}, true
  for i = 1, n do
    if type(list[i]) ~= "number" then
      for j = 1, n do out[j] = colors.parse(list[j], where) end
      return out
    end
    whole = whole and list[i] % 1 == 0 and o.colormap == nil
  end
  if whole then
    local first = math.min(1, data.range(list) or 1)      -- classes may count from zero
    for i = 1, n do
      local k = list[i] - first + 1
      out[i] = colors.nth(k)
      classes[list[i]] = out[i]
    end
    return out, classes
  end
  local lo, hi = data.range(list)
  local map = colors.colormap(o.colormap or "viridis", where)
  local color = colors.mapper(map, lo or 0, hi or 1)
  for i = 1, n do out[i] = color(list[i]) or theme.grid end
  return out, nil, {map = map, lo = lo or 0, hi = hi or 1}
end

local function scatter_artist(xs, ys, a)
  function a.extend(_, bounds) bounds:add(xs, ys) end
  function a:draw(view)
    for i = 1, #xs do
      local x, y, size = view.x(xs[i]), view.y(ys[i]), self.sizes[i] * view.s
      local color = self.colors and self.colors[i] or self.color
      if self.edge then
        markers.draw_rimmed(view.canvas, self.marker, x, y, size, color, self.edge, view.s)
      else
        markers.draw(view.canvas, self.marker, x, y, size, color, self.alpha)
      end
    end
  end
  function a:key(canvas, x, y, w, s)
    markers.draw(canvas, self.marker, x + w / 2, y, math.min(math.max(self.sizes[1] or 6, 5), 10)
      * s, self.color, math.max(self.alpha, 0.6))
  end
  return a
end

-- An artist that draws nothing: an entry in the legend.
local function legend_entry(label, color, marker, size)
  local a = scatter_artist({}, {}, {label = label, color = color, marker = marker, alpha = 1,
    sizes = {size}, z = 4})
  return a
end

--- Separate points. `color` is one colour, or a list with one entry a point: whole numbers are
--- classes in the colours of the cycle, other numbers go through `colormap` ("viridis", with a
--- colour bar if `colorbar` is true or its title), anything else is read as colours.
--- Options: label (with classes: a table class → name), color, colormap, colorbar, size (6 pixels,
--- or one a point), marker ("o"), alpha (0.85), edge (colour of a rim). Returns the axes.
function M.scatter(ax, xs, ys, opts)
  local where = "scatter"
  xs, ys, opts = data.shift(xs, ys, opts)
  local o = options.check(where, opts, {label = none, color = none, colormap = none,
    colorbar = false, size = theme.marker_size, marker = "circle", alpha = 0.85, edge = none})
  errors.number(where, "alpha", o.alpha, 0, 1)
  xs, ys = data.pair(xs, ys, where)
  local a = {marker = markers.resolve(o.marker, where), alpha = o.alpha, z = 4,
    sizes = data.broadcast(o.size, #xs, where, "size"),
    edge = o.edge and colors.parse(o.edge, where)}
  local classes, bar
  if o.color == nil or colors.is_color(o.color) then
    a.color = ax:next_color(o.color, where)
  else
    a.colors, classes, bar = point_colors(o, #xs, where)
    a.color = a.colors[1]
  end
  if bar and o.colorbar then
    ax:set_colorbar(bar.map, bar.lo, bar.hi, o.colorbar)
  end
  if type(o.label) ~= "table" then a.label = o.label end
  ax:add(scatter_artist(xs, ys, a))
  if classes and type(o.label) == "table" then
    local keys = {}
    for k in pairs(classes) do keys[#keys + 1] = k end
    table.sort(keys)
    for _, k in ipairs(keys) do
      if o.label[k] then ax:add(legend_entry(o.label[k], classes[k], a.marker, a.sizes[1])) end
    end
  end
  return ax
end

--- Points with vertical error bars: `errs` is one number, a list of them, or {lower, upper} lists
--- of distances. Options: label, color, width (1.5), cap (width of the end strokes, 6 pixels),
--- marker ("o"), size (6), line (false; true joins the points). Returns the axes.
function M.errorbar(ax, xs, ys, errs, opts)
  local where = "errorbar"
  local o = options.check(where, opts, {label = none, color = none, width = 1.5, cap = 6,
    marker = "circle", size = 6, line = false})
  xs, ys = data.pair(xs, ys, where)
  errs = data.plain(errs)
  local split = type(errs) == "table" and type(errs[1]) == "table" and #errs == 2
  local below = data.broadcast(split and errs[1] or errs, #xs, where, "errs")
  local above = split and data.broadcast(errs[2], #xs, where, "errs") or below
  local lo, hi = {}, {}
  for i = 1, #xs do lo[i], hi[i] = ys[i] - below[i], ys[i] + above[i] end
  local a = line_artist(xs, ys, {label = o.label, color = ax:next_color(o.color, where),
    width = o.line and theme.line_width or 0, marker = markers.resolve(o.marker, where),
    size = o.size, alpha = 1, z = 4})
  local draw_line = a.draw
  function a.extend(_, bounds)
    bounds:add(xs, lo)
    bounds:add(xs, hi)
  end
  function a:draw(view)
    local cap, canvas = o.cap / 2 * view.s, view.canvas
    for i = 1, #xs do
      local x, y0, y1 = view.x(xs[i]), view.y(lo[i]), view.y(hi[i])
      if y0 ~= y0 then y0 = view.box.y1 end         -- reaches zero on a logarithmic axis
      if x == x and y1 == y1 then
        canvas:stroke({x, x, 0 / 0, x - cap, x + cap, 0 / 0, x - cap, x + cap},
          {y0, y1, 0 / 0, y0, y0, 0 / 0, y1, y1}, o.width * view.s, self.color, 0.9)
      end
    end
    draw_line(self, view)
  end
  ax:add(a)
  return ax
end

local rule_options = {label = none, color = "gray", width = 1.25, dash = "dashed", alpha = 1}

local function rule(ax, where, o, axis, v)
  errors.number(where, axis, v)
  if v == nil then errors.raise("%s: expected a number, got nothing", where) end
  local a = line_artist({}, {}, {label = o.label, color = colors.parse(o.color, where),
    width = o.width, dash = dash_pattern(o.dash, where), alpha = o.alpha, z = 2})
  function a.extend(_, bounds)
    if axis == "x" then bounds:add({v}, nil) else bounds:add(nil, {v}) end
  end
  function a:draw(view)
    local box, p = view.box, math.floor(view[axis](v)) + 0.5      -- sharp, as the grid
    local xs, ys = {p, p}, {box.y0, box.y1}
    if axis == "y" then xs, ys = {box.x0, box.x1}, {p, p} end
    view.canvas:stroke(xs, ys, self.width * view.s, self.color, self.alpha,
      scaled(self.dash, view.s))
  end
  ax:add(a)
end

--- A horizontal line across the axes at `y`. Options: label, color ("gray"), width (1.25), dash
--- ("dashed"), alpha (1). Returns the axes.
function M.hline(ax, y, opts)
  local o = options.check("hline", opts, rule_options)
  rule(ax, "hline", o, "y", y)
  return ax
end

--- A vertical line across the axes at `x`; options as hline. Returns the axes.
function M.vline(ax, x, opts)
  local o = options.check("vline", opts, rule_options)
  rule(ax, "vline", o, "x", x)
  return ax
end

--- Text at a point of the data. Options: color, size (12 pixels), bold, align ("left" | "center" |
--- "right"), valign ("baseline" | "middle" | "top"), angle (degrees), dx, dy (an offset in pixels,
--- dy upwards). Returns the axes.
function M.text(ax, x, y, s, opts)
  local where = "text"
  local o = options.check(where, opts, {color = "ink", size = 12, bold = false, align = "left",
    valign = "baseline", angle = 0, dx = 0, dy = 0})
  if type(x) ~= "number" or type(y) ~= "number" then
    errors.raise("%s: expected numbers x, y and a string, got %s, %s", where, errors.describe(x),
      errors.describe(y))
  end
  errors.one_of(where, "align", o.align, {"left", "center", "right"})
  errors.one_of(where, "valign", o.valign, {"baseline", "middle", "top", "bottom"})
  local color, a = colors.parse(o.color, where), {z = 6}
  function a.extend(_, bounds) bounds:add({x}, {y}) end
  function a.draw(_, view)
    local px, py = view.x(x), view.y(y)
    if px ~= px or py ~= py then return end
    font.draw(view.canvas, px + o.dx * view.s, py - o.dy * view.s, tostring(s), {
      size = o.size * view.s, bold = o.bold, color = color, align = o.align, valign = o.valign,
      angle = o.angle})
  end
  ax:add(a)
  return ax
end

return M
