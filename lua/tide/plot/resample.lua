-- Drawing a grid of colours onto a rectangle of pixels, at any magnification.

local floor, ceil, max, min, abs = math.floor, math.ceil, math.max, math.min, math.abs

local M = {}

-- For every pixel of one axis from `p0` to `p1` (first to last edge of `n` cells; p0 > p1 flips),
-- which cells it shows and with what weights: {first pixel, {cell, weight, cell, weight, …}, …}.
-- A pixel averages over what it covers; with `smooth`, cells blend into their neighbours.
local function weights(p0, p1, n, smooth, clip0, clip1)
  local rate = n / (p1 - p0)
  local lo, hi = min(p0, p1), max(p0, p1)
  local first, last = max(floor(lo), clip0), min(ceil(hi), clip1) - 1
  local list = {}
  for p = first, last do
    local a, b = (max(p, lo) - p0) * rate, (min(p + 1, hi) - p0) * rate
    if a > b then a, b = b, a end
    local w = {}
    if smooth and b - a < 1 then
      local mid = max(0.5, min(n - 0.5, (a + b) / 2)) - 0.5
      local i = min(floor(mid), n - 1)
      w = {i + 1, 1 - (mid - i), min(i + 2, n), mid - i}
    else
      for i = max(0, floor(a + 1e-9)), min(n, ceil(b - 1e-9)) - 1 do
        w[#w + 1] = i + 1
        w[#w + 1] = (min(b, i + 1) - max(a, i)) / (b - a)
      end
    end
    list[#list + 1] = w
  end
  return first, list
end

-- The mean colour of the cells of two weight lists, and the weight of those that have one.
local function mix(color, wy, wx)
  local r, g, b, total = 0, 0, 0, 0
  for j = 1, #wy, 2 do
    for i = 1, #wx, 2 do
      local w = wy[j + 1] * wx[i + 1]
      local cr, cg, cb = color(wy[j], wx[i])
      if cr then
        r, g, b, total = r + w * cr * cr, g + w * cg * cg, b + w * cb * cb, total + w
      end
    end
  end
  return r, g, b, total
end

--- Draw `rows` × `cols` cells over the rectangle from (x0, y0), the outer corner of cell (1, 1), to
--- (x1, y1), the outer corner of the last. `color(i, j)` gives r, g, b in 0…1, or nothing
--- for a cell that stays empty.
function M.draw(canvas, x0, y0, x1, y1, rows, cols, color, smooth)
  if abs(x1 - x0) < 1e-6 or abs(y1 - y0) < 1e-6 then return end
  local fx, wx = weights(x0, x1, cols, smooth, canvas.cx0, canvas.cx1)
  local fy, wy = weights(y0, y1, rows, smooth, canvas.cy0, canvas.cy1)
  local pix, w = canvas.pix, canvas.w
  for j = 1, #wy do
    local at = ((fy + j - 1) * w + fx) * 3 + 1
    for i = 1, #wx do
      local r, g, b, a = mix(color, wy[j], wx[i])
      if a > 0 then
        a = min(a, 1)
        pix[at] = pix[at] * (1 - a) + r
        pix[at + 1] = pix[at + 1] * (1 - a) + g
        pix[at + 2] = pix[at + 2] * (1 - a) + b
      end
      at = at + 3
    end
  end
end

--- A function (i, j) → r, g, b in 0…1 for an image as read by data.image. Values lo…hi become
--- 0…1; one channel goes through `map` if given; a fourth channel mixes with white.
function M.image_colors(image, lo, hi, map)
  local w, n = image.w, image.channels
  local scale = hi > lo and 1 / (hi - lo) or 1
  local function at(k)
    local v = (image[k] - lo) * scale
    return v ~= v and 0 or max(0, min(1, v))
  end
  return function(i, j)
    local k = ((i - 1) * w + j - 1) * n + 1
    if n == 1 then
      local v = at(k)
      if not map then return v, v, v end
      local c = map[floor(v * 255 + 0.5) + 1]
      return c[1], c[2], c[3]
    end
    local r, g, b = at(k), at(k + 1), at(k + 2)
    if n == 4 then
      local a = at(k + 3)
      r, g, b = r * a + 1 - a, g * a + 1 - a, b * a + 1 - a
    end
    return r, g, b
  end
end

return M
