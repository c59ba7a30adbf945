-- Text: glyphs laid out along a line and drawn as strokes.
--
-- The strokes are fitted to the pixels vertically: baseline, x-height and capital height fall on
-- whole pixels, so that horizontal strokes are sharp, while horizontal spacing stays exact.

local glyphs = require "tide.plot.glyphs"

local floor, max, cos, sin, rad = math.floor, math.max, math.cos, math.sin, math.rad

local M = {}

local REGULAR = 8.6                   -- the nominal stroke width, in hundredths of the size
local CURVE = 0.58                    -- a little squarer than a circle (0.5523)
local SMALL = 0.66                    -- size of super- and subscripts

-- Paths -----------------------------------------------------------------------------------------

local function add_cubic(line, x0, y0, x1, y1, x2, y2, x3, y3)
  for k = 1, 8 do
    local t = k / 8
    local s = 1 - t
    local a, b, c, d = s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t
    line[#line + 1] = a * x0 + b * x1 + c * x2 + d * x3
    line[#line + 1] = a * y0 + b * y1 + c * y2 + d * y3
  end
end

-- A path as a list of polylines {x1, y1, x2, y2, …}; a dot is a polyline of one point.
local function compile(path)
  local lines, line, x, y = {}, nil, 0, 0
  for command, args in path:gmatch("([MLCDhv])([^MLCDhv]*)") do
    local n = {}
    for number in args:gmatch("[-%d.]+") do n[#n + 1] = tonumber(number) end
    local ex, ey = n[#n - 1], n[#n]
    if command == "M" or command == "D" then
      line = {ex, ey}
      lines[#lines + 1] = line
    elseif command == "L" then
      line[#line + 1], line[#line + 2] = ex, ey
    elseif command == "C" then
      add_cubic(line, x, y, n[1], n[2], n[3], n[4], ex, ey)
    elseif command == "h" then
      add_cubic(line, x, y, x + (ex - x) * CURVE, y, ex, ey + (y - ey) * CURVE, ex, ey)
    else
      add_cubic(line, x, y, x, y + (ey - y) * CURVE, ex + (x - ex) * CURVE, ey, ex, ey)
    end
    x, y = ex, ey
  end
  return lines
end

local function with_accent(base, accent)
  local glyph = glyphs.glyphs[base]
  local lines = compile(glyph[2])
  local lift = base:find("%u") and 20 or 0
  for _, line in ipairs(compile(glyphs.accents[accent])) do
    for i = 1, #line, 2 do
      line[i], line[i + 1] = line[i] + glyph[1] / 2, line[i + 1] + lift
    end
    lines[#lines + 1] = line
  end
  return {advance = glyph[1], lines = lines, scale = 1, rise = 0}
end

local missing = {advance = 50, lines = compile("M9,0 L41,0 L41,64 L9,64 L9,0"), scale = 1, rise = 0}

local cache = {}

-- {advance=, lines=, scale=, rise=} of a character, in units of the font.
local function lookup(char)
  local found = cache[char]
  if found then return found end
  local name = glyphs.same[char] or char
  local small = glyphs.superscripts[name] or glyphs.subscripts[name]
  local glyph = glyphs.glyphs[small or name]
  if small then
    found = {advance = glyph[1] * SMALL, lines = compile(glyph[2]), scale = SMALL,
      rise = glyphs.superscripts[name] and 30 or -14}
  elseif glyphs.accented[name] then
    found = with_accent(glyphs.accented[name]:match("^(%S+) (%S+)$"))
  elseif glyph then
    found = {advance = glyph[1], lines = compile(glyph[2]), scale = 1, rise = 0}
  else
    found = missing
  end
  cache[char] = found
  return found
end

-- The characters of a UTF-8 string (stray bytes count as characters of their own).
local function characters(s)
  return s:gmatch("[%z\1-\127\192-\255][\128-\191]*")
end

--- Whether every character of `s` has a glyph.
function M.has(s)
  for char in characters(s) do
    if lookup(char) == missing then return false end
  end
  return true
end

-- Metrics ---------------------------------------------------------------------------------------

local function stroke_width(size, bold)
  -- a little heavier than in proportion when small
  return bold and 0.108 * size + 0.3 or 0.074 * size + 0.28
end

--- Width of a line of text in pixels.
function M.width(s, size, bold)
  local total = 0
  for char in characters(s) do
    total = total + lookup(char).advance + (bold and 2.5 or 0)
  end
  return total * size / 100
end

--- Height of a capital above the baseline in pixels, whole because of the fitting.
function M.cap_height(size)
  return floor((glyphs.cap_height + REGULAR) * size / 100 + 0.5)
end

--- Distance between lines in pixels.
function M.line_height(size)
  return floor(size * 1.3 + 0.5)
end

-- Drawing ---------------------------------------------------------------------------------------

-- A function from font units to pixels above the baseline.
local function fitting(size, width)
  local unit = size / 100
  local x_raw, cap_raw = glyphs.x_height * unit, glyphs.cap_height * unit
  local x_fit = max(floor(x_raw + width + 0.5) - width, x_raw * 0.8)
  local cap_fit = max(floor(cap_raw + width + 0.5) - width, x_fit + 1)
  local lower, upper = x_fit / x_raw, (cap_fit - x_fit) / (cap_raw - x_raw)
  local half = width / 2
  return function(y)
    y = y * unit
    if y < 0 then return y + half end
    if y <= x_raw then return y * lower + half end
    if y <= cap_raw then return x_fit + (y - x_raw) * upper + half end
    return cap_fit + (y - cap_raw) + half
  end
end

local function draw_glyph(canvas, glyph, pen, place, fit, unit, width)
  local scale, rise = glyph.scale, glyph.rise * unit
  for _, line in ipairs(glyph.lines) do
    local r = width / 2 * (scale < 1 and 0.86 or 1)
    local function at(i)
      return place(pen + line[i] * unit * scale, fit(line[i + 1]) * scale + rise)
    end
    local x0, y0 = at(1)
    if #line == 2 then canvas:cover(x0, y0, x0, y0, r * 1.25) end
    for i = 3, #line, 2 do
      local x1, y1 = at(i)
      canvas:cover(x0, y0, x1, y1, r)
      x0, y0 = x1, y1
    end
  end
end

--- Draw one line of text. Options: size in pixels (12), color {r, g, b}, bold, alpha,
--- align "left" | "center" | "right", valign "baseline" | "middle" | "top" | "bottom" (of the
--- capitals; "bottom" is the baseline), angle in degrees, counter-clockwise.
function M.draw(canvas, x, y, s, o)
  local size = o.size or 12
  local width, unit = stroke_width(size, o.bold), size / 100
  local shift = ({left = 0, center = 0.5, right = 1})[o.align or "left"] * M.width(s, size, o.bold)
  local up = ({middle = 0.5, top = 1})[o.valign] or 0
  up = up * M.cap_height(size)
  local angle = o.angle or 0
  local c, d = cos(rad(angle)), sin(rad(angle))
  local fit = fitting(size, width)
  -- where the pen starts; upright and quarter-turned text stands on whole pixels
  local ox, oy = x - shift * c + up * d, y + shift * d + up * c
  if angle == 0 then oy = floor(oy + 0.5) end
  if angle == 90 then ox, c, d = floor(ox + 0.5), 0, 1 end
  local function place(u, v) return ox + u * c - v * d, oy - u * d - v * c end
  local pen = 0
  for char in characters(s) do
    local glyph = lookup(char)
    draw_glyph(canvas, glyph, pen, place, fit, unit, width)
    pen = pen + (glyph.advance + (o.bold and 2.5 or 0)) * unit
  end
  canvas:paint(o.color or {0, 0, 0}, o.alpha)
end

return M
