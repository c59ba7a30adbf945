-- The shapes that mark single points.

local errors = require "tide.plot.errors"

local M = {}

-- Corners about the origin for a marker of size 1 (y downwards).
local polygons = {
  square = {-0.46, -0.46, 0.46, -0.46, 0.46, 0.46, -0.46, 0.46},
  diamond = {0, -0.66, 0.66, 0, 0, 0.66, -0.66, 0},
  triangle = {0, -0.66, 0.62, 0.44, -0.62, 0.44},
  down = {0, 0.66, 0.62, -0.44, -0.62, -0.44},
  star = {},
}

for k = 0, 9 do
  local r, a = k % 2 == 0 and 0.66 or 0.28, (k / 5 - 0.5) * math.pi
  table.insert(polygons.star, r * math.cos(a))
  table.insert(polygons.star, r * math.sin(a))
end

-- Strokes {x0, y0, x1, y1} for a marker of size 1.
local strokes = {
  cross = {{-0.4, -0.4, 0.4, 0.4}, {-0.4, 0.4, 0.4, -0.4}},
  plus = {{-0.5, 0, 0.5, 0}, {0, -0.5, 0, 0.5}},
}

local short = {o = "circle", s = "square", D = "diamond", ["^"] = "triangle", v = "down",
  ["*"] = "star", x = "cross", ["+"] = "plus"}

M.names = {"circle", "square", "diamond", "triangle", "down", "star", "cross", "plus"}

--- The full name of a marker; true is a circle, nil and false are none. Raises on others.
function M.resolve(name, where)
  if not name then return nil end
  if name == true then return "circle" end
  name = short[name] or name
  return errors.one_of(where, "marker", name, M.names)
end

--- Draw a marker of `size` pixels about (x, y).
function M.draw(canvas, name, x, y, size, color, alpha)
  if x ~= x or y ~= y then return end
  if name == "circle" then return canvas:disc(x, y, size, color, alpha) end
  if strokes[name] then
    for _, s in ipairs(strokes[name]) do
      canvas:cover(x + s[1] * size, y + s[2] * size, x + s[3] * size, y + s[4] * size, size * 0.11)
    end
    return canvas:paint(color, alpha)
  end
  local xs, ys, p = {}, {}, polygons[name]
  for i = 1, #p, 2 do
    xs[#xs + 1], ys[#ys + 1] = x + p[i] * size, y + p[i + 1] * size
  end
  canvas:fill(xs, ys, color, alpha)
end

--- A marker with a rim of another colour around it.
function M.draw_rimmed(canvas, name, x, y, size, color, rim, rim_width)
  if not strokes[name] then M.draw(canvas, name, x, y, size + 2 * rim_width, rim) end
  M.draw(canvas, name, x, y, size, color)
end

return M
