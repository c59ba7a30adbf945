-- Lines of equal value on a grid, by marching squares.

local M = {}

-- Where the level lies between two corner values, as a fraction.
local function crossing(a, b, level)
  return (level - a) / (b - a)
end

-- The crossings of one cell's sides, in the order top, right, bottom, left, as fractions of the
-- cell {x, y}. a b are the upper corners, d c the lower ones.
local function crossings(a, b, c, d, level)
  local list = {}
  if (a < level) ~= (b < level) then list[#list + 1] = {crossing(a, b, level), 0} end
  if (b < level) ~= (c < level) then list[#list + 1] = {1, crossing(b, c, level)} end
  if (d < level) ~= (c < level) then list[#list + 1] = {crossing(d, c, level), 1} end
  if (a < level) ~= (d < level) then list[#list + 1] = {0, crossing(a, d, level)} end
  return list
end

--- Segments of the level line of `rows`, whose values stand in the middle of cells over `extent`
--- {x0, x1, y0, y1}: two lists of coordinates, segments separated by NaN. Cells with NaN are left
--- out.
function M.trace(rows, level, extent)
  local xs, ys = {}, {}
  local h, w = #rows, #rows[1]
  local dx, dy = (extent[2] - extent[1]) / w, (extent[4] - extent[3]) / h
  local function segment(i, j, p, q)
    for _, point in ipairs {p, q} do
      xs[#xs + 1] = extent[1] + (j - 0.5 + point[1]) * dx
      ys[#ys + 1] = extent[3] + (i - 0.5 + point[2]) * dy
    end
    xs[#xs + 1], ys[#ys + 1] = 0 / 0, 0 / 0
  end
  for i = 1, h - 1 do
    for j = 1, w - 1 do
      local a, b, c, d = rows[i][j], rows[i][j + 1], rows[i + 1][j + 1], rows[i + 1][j]
      local sum = a + b + c + d
      if sum - sum == 0 then
        local p = crossings(a, b, c, d, level)
        if #p == 2 then
          segment(i, j, p[1], p[2])
        elseif #p == 4 then           -- a saddle: its middle decides which corners belong together
          local joined = (sum / 4 < level) == (a < level)
          segment(i, j, p[1], p[joined and 2 or 4])
          segment(i, j, p[3], p[joined and 4 or 2])
        end
      end
    end
  end
  return xs, ys
end

return M
