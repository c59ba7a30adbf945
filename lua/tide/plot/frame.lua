-- What stands around the data: ticks, grid, spines, labels, titles, colour bar.

local theme = require "tide.plot.theme"
local font = require "tide.plot.font"
local ticks = require "tide.plot.ticks"
local scale = require "tide.plot.scale"
local legend = require "tide.plot.legend"

local floor, max, min = math.floor, math.max, math.min

local M = {}

-- Ticks -----------------------------------------------------------------------------------------

-- The user's own ticks, within the limits.
local function given_ticks(values, labels, lo, hi)
  local t = {values = {}, labels = {}, minor = {}}
  for i, v in ipairs(values) do
    if v >= min(lo, hi) and v <= max(lo, hi) then
      t.values[#t.values + 1] = v
      t.labels[#t.labels + 1] = tostring(labels and labels[i] or ticks.number(v, 6))
    end
  end
  return t
end

local function auto_ticks(view, n)
  local lo, hi = min(view[1], view[2]), max(view[1], view[2])
  return (view.kind == "log" and ticks.log or ticks.linear)(lo, hi, n)
end

local function widest(t, size)
  local w = 0
  for _, label in ipairs(t.labels) do w = max(w, font.width(label, size)) end
  return w
end

-- The ticks of a horizontal axis `length` pixels long, so few that their labels stand apart.
local function x_ticks(ax, length, s)
  local view, size = ax.xview, theme.tick_size * s
  local given = ax:option("xticks")
  if given then return given_ticks(given, ax:option("xticklabels"), view[1], view[2]) end
  local n = floor(2.5 + length / (95 * s))
  while true do
    local t = auto_ticks(view, n)
    if n <= 2 or #t.values * (widest(t, size) + 14 * s) <= length then return t end
    n = n - 1
  end
end

local function y_ticks(ax, length, s)
  local view, given = ax.yview, ax:option("yticks")
  if given then return given_ticks(given, ax:option("yticklabels"), view[1], view[2]) end
  return auto_ticks(view, floor(3 + length / (75 * s)))
end

-- Layout ----------------------------------------------------------------------------------------

local function label_space(text, s)
  return text and font.line_height(theme.label_size * s) + 2 * s or 0
end

local function tick_space(t, s)
  return #t.labels > 0 and widest(t, theme.tick_size * s) + (theme.tick_length + 5) * s or 2 * s
end

local function bar_ticks(bar, length, s)
  return ticks.linear(bar.lo, bar.hi > bar.lo and bar.hi or bar.lo + 1,
    floor(3 + length / (75 * s)))
end

local function right_space(ax, h, s)
  local right = 0
  if ax.twin_axes then
    right = tick_space(y_ticks(ax.twin_axes, h, s), s)
      + label_space(ax.twin_axes:option("ylabel"), s)
  end
  if ax.colorbar then
    right = right + 28 * s + tick_space(bar_ticks(ax.colorbar, h, s), s)
      + label_space(ax.colorbar.title, s)
  end
  if ax:option("legend") == "outside" then
    right = right + legend.measure(ax, s).w + 14 * s
  end
  return right
end

local function has_factor(ax, h, s)
  local twin = ax.twin_axes
  local bar = ax.colorbar
  return y_ticks(ax, h, s).factor or twin and y_ticks(twin, h, s).factor
    or bar and bar_ticks(bar, h, s).factor
end

--- The room that everything around a plot of w × h pixels takes: {left=, right=, top=, bottom=}.
function M.measure(ax, w, h, s)
  local tx, ty = x_ticks(ax, w, s), y_ticks(ax, h, s)
  local overhang = #tx.labels > 0 and font.width(tx.labels[#tx.labels], theme.tick_size * s) / 2
    or 0
  local bottom = #tx.labels > 0 and font.line_height(theme.tick_size * s)
    + (theme.tick_length + 1) * s or 2 * s
  local top = #ty.labels > 0 and 6 * s or 1
  if has_factor(ax, h, s) then top = font.line_height(theme.tick_size * s) + 2 * s end
  if ax:option("title") then top = top + font.cap_height(theme.title_size * s) + 6 * s end
  if tx.factor and not ax:option("xlabel") then
    bottom = bottom + font.line_height(theme.tick_size * s)
  end
  return {left = tick_space(ty, s) + label_space(ax:option("ylabel"), s),
    right = max(right_space(ax, h, s), min(overhang, 24 * s), 2), top = top,
    bottom = bottom + label_space(ax:option("xlabel"), s)}
end

-- Drawing ---------------------------------------------------------------------------------------

local function pixel(v) return floor(v + 0.5) end

-- A line on whole pixels.
local function hair(canvas, x0, y0, x1, y1, s, color)
  canvas:hair(x0, y0, x1, y1, max(1, floor(s)), color)
end

-- Grid lines at the ticks of both axes, or of the one named by `which`.
local function draw_grid(view, tx, ty, which)
  local box, s, c = view.box, view.s, view.canvas
  for _, pass in ipairs {"minor", "values"} do
    local color = pass == "minor" and theme.minor_grid or theme.grid
    for _, v in ipairs(which ~= "y" and tx[pass] or {}) do
      hair(c, view.x(v), box.y0, view.x(v), box.y1, s, color)
    end
    for _, v in ipairs(which ~= "x" and ty[pass] or {}) do
      hair(c, box.x0, view.y(v), box.x1, view.y(v), s, color)
    end
  end
end

local function draw_spines(view, all_sides, right)
  local box, s, c, t = view.box, view.s, view.canvas, max(1, floor(view.s))
  hair(c, box.x0, box.y1, box.x1 + t, box.y1, s, theme.spine)
  hair(c, box.x0, box.y0, box.x0, box.y1 + t, s, theme.spine)
  if all_sides then hair(c, box.x0, box.y0, box.x1 + t, box.y0, s, theme.spine) end
  if all_sides or right then hair(c, box.x1, box.y0, box.x1, box.y1 + t, s, theme.spine) end
end

local function draw_x_ticks(view, t)
  local box, s, c = view.box, view.s, view.canvas
  local len, size = theme.tick_length * s, theme.tick_size * s
  local y = box.y1 + len + 5 * s
  for i, v in ipairs(t.values) do
    local x = view.x(v)
    hair(c, x, box.y1, x, box.y1 + len, s, theme.spine)
    font.draw(c, x, y, t.labels[i], {size = size, color = theme.soft_ink, align = "center",
      valign = "top"})
  end
  for _, v in ipairs(t.minor) do
    local x = view.x(v)
    hair(c, x, box.y1, x, box.y1 + len / 2, s, theme.spine)
  end
  if t.factor then
    font.draw(c, box.x1, y + font.line_height(size) + s, t.factor, {size = size, align = "right",
      valign = "top", color = theme.soft_ink})
  end
end

-- Ticks and labels beside a vertical line at `x`, to the left (side −1) or right (side 1) of it.
local function draw_y_ticks(view, map, t, x, side)
  local s, c = view.s, view.canvas
  local len, size = theme.tick_length * s, theme.tick_size * s
  local align = side < 0 and "right" or "left"
  for i, v in ipairs(t.values) do
    local y = map(v)
    hair(c, min(x, x + side * len), y, max(x, x + side * len), y, s, theme.spine)
    font.draw(c, x + side * (len + 4 * s), y + 0.5, t.labels[i], {size = size, align = align,
      valign = "middle", color = theme.soft_ink})
  end
  for _, v in ipairs(t.minor) do
    local y, far = map(v), x + side * len / 2
    hair(c, min(x, far), y, max(x, far), y, s, theme.spine)
  end
  if t.factor then
    font.draw(c, x, view.box.y0 - 6 * s, t.factor, {size = size, color = theme.soft_ink,
      align = side < 0 and "left" or "right"})
  end
end

-- Text along a vertical axis, its letters' feet (side −1) or heads towards the plot.
local function draw_y_label(view, text, x)
  font.draw(view.canvas, x, (view.box.y0 + view.box.y1) / 2, text, {size = theme.label_size
    * view.s, color = theme.ink, align = "center", angle = 90})
end

local function draw_colorbar(view, bar, x)
  local box, s, c = view.box, view.s, view.canvas
  local x0, x1 = pixel(x + 14 * s), pixel(x + 28 * s)
  for y = box.y0, box.y1 - 1 do
    local k = floor((box.y1 - 0.5 - y) / (box.y1 - box.y0) * 255 + 0.5)
    c:rect(x0, y, x1, y + 1, bar.map[k + 1])
  end
  local hi = bar.hi > bar.lo and bar.hi or bar.lo + 1
  local t = bar_ticks(bar, box.y1 - box.y0, s)
  draw_y_ticks(view, scale.map("linear", bar.lo, hi, box.y1, box.y0), t, x1, 1)
  if bar.title then
    draw_y_label(view, bar.title, x1 + tick_space(t, s) + font.cap_height(theme.label_size * s)
      + 5 * s)
  end
end

local function draw_title(view, ax, outer)
  local title, s = ax:option("title"), view.s
  if not title then return end
  local up = outer.top - font.cap_height(theme.title_size * s)
  font.draw(view.canvas, view.box.x0, view.box.y0 - up, title, {size = theme.title_size * s,
    bold = true, color = theme.ink})
end

local function draw_labels(view, ax, tx, outer)
  local box, s, size = view.box, view.s, theme.label_size * view.s
  local xlabel, ylabel = ax:option("xlabel"), ax:option("ylabel")
  if xlabel then
    local y = box.y1 + (#tx.labels > 0 and font.line_height(theme.tick_size * s)
      + (theme.tick_length + 6) * s or 10 * s)
    font.draw(view.canvas, (box.x0 + box.x1) / 2, y, xlabel, {size = size, color = theme.ink,
      align = "center", valign = "top"})
  end
  if ylabel then
    -- labels of a column of plots stand on one line
    local x = box.x0 - (outer.left - label_space(ylabel, s)) - 6 * s
    draw_y_label(view, ylabel, x)
  end
end

local function draw_right(view, ax)
  local box, s = view.box, view.s
  local x, twin = box.x1, ax.twin_axes
  if twin then
    local t, map = y_ticks(twin, box.y1 - box.y0, s), view.twin.y
    draw_y_ticks(view, map, t, x, 1)
    x = x + tick_space(t, s)
    if twin:option("ylabel") then
      draw_y_label(view, twin:option("ylabel"), x + font.cap_height(theme.label_size * s) + 4 * s)
      x = x + label_space(true, s)
    end
  end
  if ax.colorbar then draw_colorbar(view, ax.colorbar, x) end
end

-- A view for the artists of `ax` in a rectangle.
local function new_view(ax, canvas, box, s)
  local xv, yv = ax.xview, ax.yview
  return {canvas = canvas, box = box, s = s, xlim = xv, ylim = yv, xkind = xv.kind,
    ykind = yv.kind, x = scale.map(xv.kind, xv[1], xv[2], box.x0, box.x1),
    y = scale.map(yv.kind, yv[1], yv[2], box.y1, box.y0)}
end

--- Draw axes into the rectangle `box`; `outer` has the room to its `left` and `top`.
function M.draw(ax, canvas, box, s, outer)
  local view = new_view(ax, canvas, box, s)
  local tx, ty = x_ticks(ax, box.x1 - box.x0, s), y_ticks(ax, box.y1 - box.y0, s)
  if ax:option("grid") then draw_grid(view, tx, ty, ax:option("grid")) end
  canvas:clip(box.x0, box.y0, box.x1, box.y1)
  for _, artist in ipairs(ax:sorted()) do artist:draw(view) end
  if ax.twin_axes then
    view.twin = new_view(ax.twin_axes, canvas, box, s)
    for _, artist in ipairs(ax.twin_axes:sorted()) do artist:draw(view.twin) end
  end
  canvas:unclip()
  draw_spines(view, ax:option("box"), ax.twin_axes)
  draw_x_ticks(view, tx)
  draw_y_ticks(view, view.y, ty, box.x0, -1)
  draw_labels(view, ax, tx, outer)
  draw_title(view, ax, outer)
  draw_right(view, ax)
  legend.draw(ax, view, right_space(ax, box.y1 - box.y0, s))
end

return M
