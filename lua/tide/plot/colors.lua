-- Colours: how they are written, the default cycle, and colour maps.

local errors = require "tide.plot.errors"

local M = {}

-- Distinct also for readers with deuteranopia or protanopia: any two of the first five stay at
-- least 25 apart in CIELAB when either is simulated (Machado et al. 2009), of all eight 16.
M.cycle = {"#1d79d6", "#f6862f", "#1f9e78", "#a92781", "#58b8ea", "#5f35a0", "#806400", "#9aa2ab"}

M.named = {
  black = "#000000", white = "#ffffff", ink = "#2b3038", gray = "#808790", grey = "#808790",
  lightgray = "#d5d9de", blue = "#1d79d6", orange = "#f6862f", teal = "#1f9e78",
  magenta = "#a92781", cyan = "#58b8ea", purple = "#5f35a0", gold = "#806400", red = "#d02f2f",
  green = "#2f9e44", yellow = "#f2c230", pink = "#f28cb1", brown = "#8a5a35",
}

local function from_hex(s)
  local h = s:match("^#(%x+)$")
  if not h then return nil end
  if #h == 3 then h = h:gsub("%x", "%0%0") end
  if #h ~= 6 and #h ~= 8 then return nil end
  local c = {}
  for pair in h:gmatch("%x%x") do c[#c + 1] = tonumber(pair, 16) / 255 end
  return c
end

--- The k-th colour of the cycle (k = 1, 2, …), as {r, g, b} in 0…1.
function M.nth(k)
  return from_hex(M.cycle[(k - 1) % #M.cycle + 1])
end

local function is_rgb(v)
  if #v ~= 3 and #v ~= 4 then return false end
  for i = 1, #v do
    local x = v[i]
    if type(x) ~= "number" or not (x >= 0 and x <= 1) then return false end
  end
  return true
end

--- Whether `v` reads as one colour.
function M.is_color(v)
  if type(v) == "string" then return M.named[v] ~= nil or from_hex(v) ~= nil end
  if type(v) == "table" then return is_rgb(v) end
  return type(v) == "number" and v >= 1 and v % 1 == 0
end

--- {r, g, b} or {r, g, b, a} in 0…1 from a name, "#rgb", "#rrggbb", "#rrggbbaa", a table of
--- three or four numbers in 0…1, or the number of a colour of the cycle. Raises on others.
function M.parse(v, where)
  if not M.is_color(v) then
    errors.raise('%s: expected a colour (a name, "#rrggbb", {r, g, b} in 0…1 or a cycle number), '
      .. "got %s", where or "plot", errors.describe(v))
  end
  if type(v) == "string" then return from_hex(M.named[v] or v) end
  if type(v) == "number" then return M.nth(v) end
  return {v[1], v[2], v[3], v[4]}
end

-- Colour maps: a few colours at equal distances, joined by a smooth curve.
local anchors = {
  viridis = "440154 482878 3e4a89 31688e 26828e 1f9e89 35b779 6dcd59 b4de2c fde725",
  magma = "000004 180f3e 451077 721f81 9f2f7f cd4071 f1605d fd9567 fec98d fcfdbf",
  plasma = "0d0887 47039f 7301a8 9c179e bd3786 d8576b ed7953 fa9e3b fdc926 f0f921",
  coolwarm = "3b4cc0 628aea 8db0fe b8d0f9 dddddd f5c4ad f49a7b de604d b40426",
  gray = "000000 ffffff",
}

M.colormaps = {"viridis", "magma", "plasma", "coolwarm", "gray"}

local function catmull_rom(p0, p1, p2, p3, t)
  return p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3
    + t * (3 * (p1 - p2) + p3 - p0)))
end

local function build(list)
  local points = {}
  for hex in list:gmatch("%x+") do points[#points + 1] = from_hex("#" .. hex) end
  local n, map = #points, {}
  local function at(i) return points[math.max(1, math.min(n, i))] end
  for k = 0, 255 do
    local u = k / 255 * (n - 1)
    local i = math.min(math.floor(u), n - 2)
    local c = {}
    for ch = 1, 3 do
      local a, b = at(i + 1)[ch], at(i + 2)[ch]
      local before = i > 0 and at(i)[ch] or 2 * a - b
      local after = i < n - 2 and at(i + 3)[ch] or 2 * b - a
      c[ch] = math.max(0, math.min(1, catmull_rom(before, a, b, after, u - i)))
    end
    map[k + 1] = c
  end
  return map
end

local built = {}

--- A colour map by name ("_r" at the end reverses it) as a list of 256 colours {r, g, b}.
function M.colormap(name, where)
  if built[name] then return built[name] end
  local base, reversed = tostring(name):gsub("_r$", "")
  if type(name) ~= "string" or not anchors[base] then
    errors.one_of(where or "plot", "colormap", name, M.colormaps)
  end
  local map = build(anchors[base])
  if reversed == 1 then
    local back = {}
    for i = 1, 256 do back[i] = map[257 - i] end
    map = back
  end
  built[name] = map
  return map
end

--- A function from values to colours of the map, lo…hi over its whole length; nil for NaN.
function M.mapper(map, lo, hi)
  local scale = hi > lo and 255 / (hi - lo) or 0
  return function(v)
    if v ~= v then return nil end
    local k = math.max(0, math.min(255, (v - lo) * scale))
    return map[math.floor(k + 0.5) + 1]
  end
end

--- Perceived lightness 0…1, to choose between dark and light text on a colour.
function M.lightness(c)
  return math.sqrt(0.299 * c[1] ^ 2 + 0.587 * c[2] ^ 2 + 0.114 * c[3] ^ 2)
end

return M
