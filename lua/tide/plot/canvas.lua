-- A picture in memory and the anti-aliased rasteriser that draws on it.
--
-- Shapes are drawn in two stages. First they leave their coverage (0…1 a pixel) in `mask`; then the
-- mask is painted in one colour and cleared. A stroke of many segments takes the maximum of their
-- coverages, so that joins are round and translucent strokes do not darken where they cross
-- themselves. A polygon leaves signed areas, whose running sum along a row is its exact coverage.
--
-- Pixels hold the square of the intensity, which is close to light and needs no table to
-- convert: edges between any two colours then look equally wide. Translucency, on the other hand,
-- mixes the intensities themselves, because that keeps the hue.
--
-- Coordinates are pixels, (0,0) the upper left corner of the picture, y downwards; the pixel in
-- column i and row j has its centre at (i + ½, j + ½).

local floor, sqrt, abs, min, max = math.floor, math.sqrt, math.abs, math.min, math.max
local unpack = unpack or rawget(table, "unpack")

local Canvas = {}
Canvas.__index = Canvas

--- A canvas of `width` × `height` pixels filled with `color`, {r, g, b} in 0…1 (default white).
function Canvas.new(width, height, color)
  local c = setmetatable({w = width, h = height, stride = width + 2}, Canvas)
  local r, g, b = 1, 1, 1
  if color then r, g, b = color[1] ^ 2, color[2] ^ 2, color[3] ^ 2 end
  local pix, mask, lo, hi = {}, {}, {}, {}
  for i = 1, width * height * 3, 3 do
    pix[i], pix[i + 1], pix[i + 2] = r, g, b
  end
  for i = 1, c.stride * height do mask[i] = 0 end
  for y = 0, height do lo[y], hi[y] = width + 2, -1 end
  c.pix, c.mask, c.lo, c.hi = pix, mask, lo, hi     -- lo, hi: the touched columns of each row
  c.first, c.last = height, -1                      -- the touched rows
  return c:unclip()
end

--- Draw only within columns x0 ≤ i < x1 and rows y0 ≤ j < y1 (rounded to whole pixels).
function Canvas:clip(x0, y0, x1, y1)
  self.cx0, self.cy0 = max(0, floor(x0 + 0.5)), max(0, floor(y0 + 0.5))
  self.cx1, self.cy1 = min(self.w, floor(x1 + 0.5)), min(self.h, floor(y1 + 0.5))
  return self
end

function Canvas:unclip()
  self.cx0, self.cy0, self.cx1, self.cy1 = 0, 0, self.w, self.h
  return self
end

--- The colour of a pixel as three numbers in 0…255.
function Canvas:pixel(x, y)
  local i = (y * self.w + x) * 3 + 1
  local p = self.pix
  return floor(sqrt(p[i]) * 255 + 0.5), floor(sqrt(p[i + 1]) * 255 + 0.5),
    floor(sqrt(p[i + 2]) * 255 + 0.5)
end

--- All pixels as a string of width × height × 3 bytes, row by row.
function Canvas:rgb()
  local pix, n = self.pix, self.w * 3
  local rows, row, char = {}, {}, string.char
  for y = 0, self.h - 1 do
    local at = y * n
    for i = 1, n do row[i] = floor(sqrt(pix[at + i]) * 255 + 0.5) end
    local parts = {}
    for i = 1, n, 3000 do
      parts[#parts + 1] = char(unpack(row, i, min(i + 2999, n)))
    end
    rows[y + 1] = table.concat(parts)
  end
  return table.concat(rows)
end

-- Painting ------------------------------------------------------------------------------------

local function touch(c, y, xa, xb)
  if y < c.first then c.first = y end
  if y > c.last then c.last = y end
  if xa < c.lo[y] then c.lo[y] = xa end
  if xb > c.hi[y] then c.hi[y] = xb end
end

-- Mix one row of the mask into the pixels and clear it. With `sum` the mask holds signed areas.
local function paint_row(c, y, r, g, b, alpha, sum)
  local pix, mask = c.pix, c.mask
  local total, right = 0, c.cx1 - 1
  local r2, g2, b2 = r * r, g * g, b * b
  local m, p = y * c.stride + 1, y * c.w * 3 + 1
  for x = c.lo[y], c.hi[y] do
    local a = mask[m + x]
    mask[m + x] = 0
    if sum then
      total = total + a
      a = min(abs(total), 1)
    end
    if a > 0.002 and x <= right then
      local i = p + x * 3
      local pr, pg, pb = pix[i], pix[i + 1], pix[i + 2]
      if alpha < 1 then
        local sr, sg, sb = sqrt(pr), sqrt(pg), sqrt(pb)
        r2, g2, b2 = sr + (r - sr) * alpha, sg + (g - sg) * alpha, sb + (b - sb) * alpha
        r2, g2, b2 = r2 * r2, g2 * g2, b2 * b2
      end
      pix[i] = pr + (r2 - pr) * a
      pix[i + 1] = pg + (g2 - pg) * a
      pix[i + 2] = pb + (b2 - pb) * a
    end
  end
end

local function paint(c, color, alpha, sum)
  local r, g, b = color[1], color[2], color[3]
  alpha = (alpha or 1) * (color[4] or 1)
  for y = c.first, c.last do
    if c.lo[y] <= c.hi[y] then paint_row(c, y, r, g, b, alpha, sum) end
    c.lo[y], c.hi[y] = c.w + 2, -1
  end
  c.first, c.last = c.h, -1
end

--- Paint what `cover` has left in the mask.
function Canvas:paint(color, alpha)
  paint(self, color, alpha, false)
end

-- Strokes -------------------------------------------------------------------------------------

--- Leave the coverage of a segment of half-width `r` with round ends in the mask. Its edge is a
--- ramp as wide as a pixel seen along the segment, which keeps its weight the same at all angles.
function Canvas:cover(x0, y0, x1, y1, r)
  local dx, dy = x1 - x0, y1 - y0
  local len2 = dx * dx + dy * dy
  local inv = len2 > 0 and 1 / len2 or 0
  local soft = len2 > 0 and 0.5 * (abs(dx) + abs(dy)) / sqrt(len2) or 0.6
  local reach, full, steep = r + soft, min(1, r / soft), 0.5 / soft
  local left, right = min(x0, x1) - reach, max(x0, x1) + reach
  local slope, half = 0, 1e9          -- of the strip around the whole line, cut by a row
  if abs(dy) > 1e-9 then
    slope, half = dx / dy, reach * sqrt(len2) / abs(dy)
  end
  local mask, reach2 = self.mask, reach * reach
  local cx0, cx1 = self.cx0, self.cx1
  for y = max(self.cy0, floor(min(y0, y1) - reach)),
      min(self.cy1 - 1, floor(max(y0, y1) + reach)) do
    local py = y + 0.5 - y0
    local mid = x0 + py * slope
    local xa = max(cx0, floor(max(left, mid - half)))
    local xb = min(cx1 - 1, floor(min(right, mid + half)))
    if xa <= xb then
      touch(self, y, xa, xb)
      local m = y * self.stride + 1
      for x = xa, xb do
        local px = x + 0.5 - x0
        local t = max(0, min(1, (px * dx + py * dy) * inv))
        local ex, ey = px - t * dx, py - t * dy
        local d2 = ex * ex + ey * ey
        if d2 < reach2 then
          local a = min(full, (reach - sqrt(d2)) * steep)
          if a > mask[m + x] then mask[m + x] = a end
        end
      end
    end
  end
end

-- The part of a segment within the clip rectangle grown by `pad`, as its range of the parameter
-- (0…1), or nothing.
local function visible(c, x0, y0, x1, y1, pad)
  local t0, t1 = 0, 1
  local function side(d, room)      -- keep d·t ≤ room
    if d > 0 then t1 = min(t1, room / d)
    elseif d < 0 then t0 = max(t0, room / d)
    elseif room < 0 then t1 = -1 end
  end
  local dx, dy = x1 - x0, y1 - y0
  side(-dx, x0 - (c.cx0 - pad))
  side(dx, c.cx1 + pad - x0)
  side(-dy, y0 - (c.cy0 - pad))
  side(dy, c.cy1 + pad - y0)
  if t0 <= t1 then return t0, t1 end
end

-- Cover the dashes of one segment; `phase` is the length already run through the pattern, which
-- is a list {on, off, on, off, …} of total length `period`. Returns the new phase.
local function cover_dashes(c, x0, y0, x1, y1, r, pattern, period, phase)
  local len = sqrt((x1 - x0) ^ 2 + (y1 - y0) ^ 2)
  local ta, tb = visible(c, x0, y0, x1, y1, 2 * r + period)
  if not ta or len == 0 then return phase + len end
  local ux, uy = (x1 - x0) / len, (y1 - y0) / len
  local s = ta * len
  local at = (phase + s) % period
  local k = 1
  while at >= pattern[k] and k < #pattern do
    at, k = at - pattern[k], k + 1
  end
  while s < tb * len do
    local e = min(s + max(pattern[k] - at, 1e-3), len)
    if k % 2 == 1 then c:cover(x0 + ux * s, y0 + uy * s, x0 + ux * e, y0 + uy * e, r) end
    s, at, k = e, 0, k % #pattern + 1
  end
  return phase + len
end

--- Draw the polyline through (xs[i], ys[i]) with round joins and ends. A NaN breaks it; a point
--- between two breaks becomes a dot. `dash` is a list of lengths {on, off, …} in pixels.
function Canvas:stroke(xs, ys, width, color, alpha, dash)
  local r = width / 2
  local pattern, period, phase
  if dash then
    pattern, period, phase = {}, 0, 0
    for i, d in ipairs(dash) do       -- the round ends take one width from each gap
      pattern[i] = max(0, i % 2 == 1 and d - width or d + width)
      period = period + pattern[i]
    end
    if period < 0.5 then pattern = nil end
  end
  local px, py, alone
  for i = 1, #xs do
    local x, y = xs[i], ys[i]
    if x ~= x or y ~= y then
      if alone then self:cover(px, py, px, py, r) end
      px, alone = nil, nil
    elseif not px then
      px, py, alone = x, y, true
    else
      if pattern then
        phase = cover_dashes(self, px, py, x, y, r, pattern, period, phase)
      else
        local ta, tb = visible(self, px, py, x, y, r + 2)
        if ta then
          local dx, dy = x - px, y - py
          self:cover(px + ta * dx, py + ta * dy, px + tb * dx, py + tb * dy, r)
        end
      end
      px, py, alone = x, y, nil
    end
  end
  if alone then self:cover(px, py, px, py, r) end
  self:paint(color, alpha)
end

--- Draw a horizontal or vertical line about (x0, y0)–(x1, y1), `t` whole pixels thick and sharp.
function Canvas:hair(x0, y0, x1, y1, t, color, alpha)
  if x0 == x1 then
    local x = floor(x0 - t / 2 + 0.5)
    self:rect(x, y0, x + t, y1, color, alpha)
  else
    local y = floor(y0 - t / 2 + 0.5)
    self:rect(x0, y, x1, y + t, color, alpha)
  end
end

--- A filled disc of diameter `d`.
function Canvas:disc(x, y, d, color, alpha)
  self:cover(x, y, x, y, d / 2)
  self:paint(color, alpha)
end

-- Polygons ------------------------------------------------------------------------------------

-- Leave the signed area to the right of an edge within one row, x0…x1 inside the clip columns.
local function edge_in_row(c, y, x0, x1, dy)
  local mask, m = c.mask, y * c.stride + 1
  local left, right = min(x0, x1), max(x0, x1)
  local i, last = floor(left), floor(right)
  touch(c, y, i, last + 1)
  if i == last then
    local mean = (left + right) / 2 - i
    mask[m + i] = mask[m + i] + dy * (1 - mean)
    mask[m + i + 1] = mask[m + i + 1] + dy * mean
    return
  end
  local rate = dy / (right - left)
  while left < right do               -- one column after another
    local stop = min(i + 1, right)
    local part, mean = rate * (stop - left), (left + stop) / 2 - i
    mask[m + i] = mask[m + i] + part * (1 - mean)
    mask[m + i + 1] = mask[m + i + 1] + part * mean
    left, i = stop, i + 1
  end
end

-- An edge whose y lie within the clip rows and y0 < y1; columns beyond the clip fold onto its rim.
local function edge(c, x0, y0, x1, y1, sign)
  local slope = (x1 - x0) / (y1 - y0)
  local lo, hi = c.cx0, c.cx1
  for y = floor(y0), min(floor(y1), c.cy1 - 1) do
    local ya, yb = max(y0, y), min(y1, y + 1)
    if yb > ya then
      local xa, xb = x0 + (ya - y0) * slope, x0 + (yb - y0) * slope
      if min(xa, xb) >= lo and max(xa, xb) <= hi then
        edge_in_row(c, y, xa, xb, sign * (yb - ya))
      elseif max(xa, xb) <= lo or min(xa, xb) >= hi then
        local x = max(lo, min(hi, xa))
        edge_in_row(c, y, x, x, sign * (yb - ya))
      else                            -- crosses the rim within the row: up to three pieces
        local cuts = {ya, yb}
        for _, rim in ipairs {lo, hi} do
          local cut = y0 + (rim - x0) / slope
          if cut > ya and cut < yb then table.insert(cuts, #cuts, cut) end
        end
        table.sort(cuts)
        for k = 1, #cuts - 1 do
          local pa = max(lo, min(hi, x0 + (cuts[k] - y0) * slope))
          local pb = max(lo, min(hi, x0 + (cuts[k + 1] - y0) * slope))
          edge_in_row(c, y, pa, pb, sign * (cuts[k + 1] - cuts[k]))
        end
      end
    end
  end
end

--- Fill the closed polygon through (xs[i], ys[i]); overlapping parts count once.
function Canvas:fill(xs, ys, color, alpha)
  local n = #xs
  local top, bottom = self.cy0, self.cy1
  local x0, y0 = xs[n], ys[n]
  for i = 1, n do
    local x1, y1 = xs[i], ys[i]
    local ax, ay, bx, by, sign = x0, y0, x1, y1, 1
    if y0 > y1 then ax, ay, bx, by, sign = x1, y1, x0, y0, -1 end
    if ay < bottom and by > top and ay < by then
      local slope = (bx - ax) / (by - ay)
      if ay < top then ax, ay = ax + (top - ay) * slope, top end
      if by > bottom then bx, by = bx + (bottom - by) * slope, bottom end
      edge(self, ax, ay, bx, by, sign)
    end
    x0, y0 = x1, y1
  end
  paint(self, color, alpha, true)
end

--- Fill a rectangle; fractional sides are anti-aliased.
function Canvas:rect(x0, y0, x1, y1, color, alpha)
  if x0 > x1 then x0, x1 = x1, x0 end
  if y0 > y1 then y0, y1 = y1, y0 end
  x0, x1 = max(x0, self.cx0), min(x1, self.cx1)
  y0, y1 = max(y0, self.cy0), min(y1, self.cy1)
  if x0 >= x1 or y0 >= y1 then return end
  self:fill({x0, x1, x1, x0}, {y0, y0, y1, y1}, color, alpha)
end

return Canvas
