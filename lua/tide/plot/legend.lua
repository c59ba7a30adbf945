-- The legend: what it holds, how large it is, and where it hides least.

local theme = require "tide.plot.theme"
local font = require "tide.plot.font"

local floor, max = math.floor, math.max

local M = {}

local KEY, GAP, PAD, MARGIN = 24, 8, 9, 9

local function entries(ax)
  local list = {}
  for _, axes in ipairs {ax, ax.twin_axes} do
    for _, artist in ipairs(axes.artists) do
      if artist.label then list[#list + 1] = artist end
    end
  end
  return list
end

--- {w=, h=, row=, entries=} in pixels.
function M.measure(ax, s)
  local size, widest = theme.legend_size * s, 0
  local list = entries(ax)
  for _, a in ipairs(list) do widest = max(widest, font.width(tostring(a.label), size)) end
  local row = floor(size * 1.6 + 0.5)
  return {entries = list, row = row, w = floor(widest + (KEY + GAP + 2 * PAD) * s + 0.5),
    h = #list * row + floor(2 * PAD * s - (row - size) * 0.7)}
end

-- How much is drawn under a rectangle: the share of pixels darker than the grid.
local function ink_under(canvas, x0, y0, w, h)
  local pix, count = canvas.pix, 0
  for y = max(0, y0), math.min(canvas.h, y0 + h) - 1, 2 do
    for x = max(0, x0), math.min(canvas.w, x0 + w) - 1, 2 do
      local i = (y * canvas.w + x) * 3 + 1
      if pix[i] < 0.76 or pix[i + 1] < 0.76 or pix[i + 2] < 0.76 then count = count + 1 end
    end
  end
  return count
end

-- Places as fractions of the free room, in order of preference; only the named can be asked for.
local places = {
  {1, 0, "top right"}, {0, 0, "top left"}, {1, 1, "bottom right"}, {0, 1, "bottom left"},
  {1, 0.5, "right"}, {0, 0.5, "left"}, {0.5, 0, "top"}, {0.5, 1, "bottom"},
  {0.75, 0}, {0.25, 0}, {0.75, 1}, {0.25, 1}, {1, 0.25}, {1, 0.75}, {0, 0.25}, {0, 0.75},
}

local function position(view, m, fx, fy)
  local box, d = view.box, floor(MARGIN * view.s)
  return floor(box.x0 + d + (box.x1 - box.x0 - 2 * d - m.w) * fx + 0.5),
    floor(box.y0 + d + (box.y1 - box.y0 - 2 * d - m.h) * fy + 0.5)
end

local function place(view, m, wanted)
  local best, best_x, best_y
  for i, p in ipairs(places) do
    local x, y = position(view, m, p[1], p[2])
    if p[3] == wanted then return x, y end
    local cost = ink_under(view.canvas, x - 3, y - 3, m.w + 6, m.h + 6)
    if i > 4 then cost = cost + m.w * m.h / 400 end      -- corners look best
    if not best or cost < best then best, best_x, best_y = cost, x, y end
  end
  return best_x, best_y
end

--- Draw the legend of `ax`; `room` is the width of what stands to the right of the plot.
function M.draw(ax, view, room)
  local wanted = ax:option("legend")
  if not wanted then return end
  local s, canvas = view.s, view.canvas
  local m = M.measure(ax, s)
  if #m.entries == 0 then return end
  local x, y
  if wanted == "outside" then
    x, y = floor(view.box.x1 + room - m.w), view.box.y0
  else
    x, y = place(view, m, wanted)
    local t = max(1, floor(s))
    canvas:rect(x, y, x + m.w, y + m.h, theme.background, 0.88)
    for _, edge in ipairs {{0, 0, m.w, t}, {0, m.h - t, m.w, m.h}, {0, t, t, m.h - t},
        {m.w - t, t, m.w, m.h - t}} do
      canvas:rect(x + edge[1], y + edge[2], x + edge[3], y + edge[4], theme.grid)
    end
  end
  for i, a in ipairs(m.entries) do
    local mid = floor(y + PAD * s + (i - 1) * m.row + theme.legend_size * s / 2) + 0.5
    a:key(canvas, x + PAD * s, mid, KEY * s, s)
    font.draw(canvas, x + (PAD + KEY + GAP) * s, mid, tostring(a.label), {
      size = theme.legend_size * s, color = theme.ink, valign = "middle"})
  end
end

return M
