-- One plot of a figure: its options, its list of artists, and the limits they ask for.

local options = require "tide.options"
local errors = require "tide.plot.errors"
local colors = require "tide.plot.colors"
local scale = require "tide.plot.scale"

local none = options.none

local Axes = {}
Axes.__index = Axes

for _, module in ipairs {"curves", "areas", "fields"} do
  for name, method in pairs(require("tide.plot." .. module)) do Axes[name] = method end
end

local known = {
  xlabel = none, ylabel = none, title = none, xscale = none, yscale = none, xlim = none,
  ylim = none, grid = none, legend = none, aspect = none, box = none, xticks = none,
  yticks = none, xticklabels = none, yticklabels = none, yreverse = none,
}

local legend_places = {"auto", "top right", "top left", "bottom right", "bottom left", "right",
  "left", "top", "bottom", "outside"}

local function check_limits(name, lim)
  if type(lim) ~= "table" then
    errors.raise("axes: %s must be {lo, hi}, got %s", name, errors.describe(lim))
  end
  errors.number("axes", name .. "[1]", lim[1])
  errors.number("axes", name .. "[2]", lim[2])
end

-- Check the options in `o` and store them.
local function apply(ax, o)
  for _, name in ipairs {"xscale", "yscale"} do
    if o[name] ~= nil then errors.one_of("axes", name, o[name], {"linear", "log"}) end
  end
  for _, name in ipairs {"xlim", "ylim"} do
    if o[name] ~= nil then check_limits(name, o[name]) end
  end
  for _, name in ipairs {"xticks", "yticks", "xticklabels", "yticklabels"} do
    if o[name] ~= nil and type(o[name]) ~= "table" then
      errors.raise("axes: %s must be a list, got %s", name, errors.describe(o[name]))
    end
  end
  if o.legend and o.legend ~= true then
    errors.one_of("axes", "legend", o.legend, legend_places)
  end
  if o.grid ~= nil and type(o.grid) ~= "boolean" then
    errors.one_of("axes", "grid", o.grid, {"x", "y"})
  end
  if o.aspect ~= nil then errors.one_of("axes", "aspect", o.aspect, {"auto", "equal"}) end
  for key, value in pairs(o) do ax.options[key] = value end
end

function Axes.new(figure)
  return setmetatable({figure = figure, options = {}, defaults = {xscale = "linear",
    yscale = "linear", grid = true, legend = "auto", aspect = "auto"}, artists = {},
    colors_used = 0}, Axes)
end

--- Change options: xlabel, ylabel, title; xscale, yscale ("linear" | "log"); xlim, ylim ({lo, hi},
--- either may be nil); xticks, yticks (positions), xticklabels, yticklabels; grid (true, or "x",
--- "y": lines at the ticks of that axis only);
--- legend ("auto": where it hides least, false, "top right" …, "outside"); aspect ("equal": one
--- unit is as long in x as in y); yreverse (y grows downwards); box (a frame on all four sides).
--- Returns the axes.
function Axes:set(opts)
  apply(self, options.check("axes", opts, known))
  return self
end

Axes.known_options, Axes.apply = known, apply

-- For artists -----------------------------------------------------------------------------------

function Axes:add(artist)
  artist.order = #self.artists + 1
  self.artists[artist.order] = artist
end

--- The value of an option: the user's, else what an artist has asked for, else the default.
function Axes:option(name)
  local v = self.options[name]
  if v == nil then v = self.defaults[name] end
  return v
end

--- An option's value unless the user sets it.
function Axes:default(name, value)
  self.defaults[name] = value
end

--- The colour `given`, or the next one of the cycle.
function Axes:next_color(given, where)
  local owner = self.host or self           -- twin axes share one cycle
  local c
  if given ~= nil then
    c = colors.parse(given, where)
  else
    owner.colors_used = owner.colors_used + 1
    c = colors.nth(owner.colors_used)
  end
  self.color = c
  return c
end

--- The colour `given`, or that of what was drawn last.
function Axes:last_color(given, where)
  if given ~= nil or not self.color then return self:next_color(given, where) end
  return self.color
end

--- Name the positions 1, 2, … of the x axis.
function Axes:categories(names)
  local at = {}
  for i = 1, #names do at[i] = i end
  self:default("xticks", at)
  self:default("xticklabels", names)
  self:default("grid", "y")
end

--- Show a colour bar at the right; `title` is its label, or true for none.
function Axes:set_colorbar(map, lo, hi, title)
  self.colorbar = {map = map, lo = lo, hi = hi, title = type(title) == "string" and title or nil}
end

--- A second y axis at the right, sharing x: `ax:twin{ylabel =, yscale =, ylim =}` returns axes.
function Axes:twin(opts)
  local o = options.check("twin", opts, {ylabel = none, yscale = none, ylim = none, yticks = none,
    yticklabels = none})
  if self.host then errors.raise("twin: these axes are a twin themselves") end
  if not self.twin_axes then
    self.twin_axes = Axes.new(self.figure)
    self.twin_axes.host = self
  end
  apply(self.twin_axes, o)
  return self.twin_axes
end

-- For the figure --------------------------------------------------------------------------------

local function limit_bounds(ax)
  local host = ax.host or ax
  local b = scale.bounds(host:option("xscale") == "log", ax:option("yscale") == "log")
  for _, artist in ipairs(ax.artists) do artist:extend(b) end
  return b
end

local function checked(name, kind, lo, hi)
  if kind == "log" and (lo <= 0 or hi <= 0) then
    errors.raise("axes: a logarithmic axis needs positive limits, %s is {%g, %g}", name, lo, hi)
  end
  return {lo, hi, kind = kind}
end

--- Compute the limits of both axes: `xview` and `yview` are {lo, hi, kind=}.
function Axes:resolve()
  local b = limit_bounds(self)
  local twin = self.twin_axes
  if twin then
    local t = limit_bounds(twin)
    b.x.sticky = b.x.sticky or t.x.sticky
    if t.x.lo then b:add({t.x.lo, t.x.hi}, nil) end
    local lo, hi = scale.limits(t.y, twin.options.ylim, 0.05)
    twin.yview = checked("ylim", twin:option("yscale"), lo, hi)
  end
  local x0, x1 = scale.limits(b.x, self.options.xlim, 0.03)
  local y0, y1 = scale.limits(b.y, self.options.ylim, 0.05)
  if self:option("yreverse") and not self.options.ylim then y0, y1 = y1, y0 end
  self.xview = checked("xlim", self:option("xscale"), x0, x1)
  self.yview = checked("ylim", self:option("yscale"), y0, y1)
  if twin then twin.xview = self.xview end
end

-- Whether anything must fill its box to the rim, so that the box and not the limits must give way.
local function is_image(ax)
  for _, artist in ipairs(ax.artists) do
    if artist.z == 0 then return true end
  end
  return false
end

--- Fit a rectangle {x0, y0, x1, y1} to equal units: images shrink it, other plots get wider limits.
function Axes:fit(box)
  if self:option("aspect") ~= "equal" then return box end
  local w, h = box.x1 - box.x0, box.y1 - box.y0
  local xv, yv = self.xview, self.yview
  local ux, uy = w / math.abs(xv[2] - xv[1]), h / math.abs(yv[2] - yv[1])
  local unit = math.min(ux, uy)
  if is_image(self) or self.options.xlim or self.options.ylim then
    local dw, dh = (w - w * unit / ux) / 2, (h - h * unit / uy) / 2
    return {x0 = math.floor(box.x0 + dw + 0.5), x1 = math.floor(box.x1 - dw + 0.5),
      y0 = math.floor(box.y0 + dh + 0.5), y1 = math.floor(box.y1 - dh + 0.5)}
  end
  local function widen(view, factor)
    local mid, half = (view[1] + view[2]) / 2, (view[2] - view[1]) / 2 * factor
    view[1], view[2] = mid - half, mid + half
  end
  widen(xv, ux / unit)
  widen(yv, uy / unit)
  return box
end

--- The artists from back to front.
function Axes:sorted()
  local list = {}
  for i, a in ipairs(self.artists) do list[i] = a end
  table.sort(list, function(a, b)
    if a.z ~= b.z then return a.z < b.z end
    return a.order < b.order
  end)
  return list
end

return Axes
