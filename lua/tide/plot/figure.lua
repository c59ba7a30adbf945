-- A figure: a grid of axes, laid out so that plots in one row and one column stand in line.

local options = require "tide.options"
local errors = require "tide.plot.errors"
local Canvas = require "tide.plot.canvas"
local Axes = require "tide.plot.axes"
local frame = require "tide.plot.frame"
local font = require "tide.plot.font"
local theme = require "tide.plot.theme"
local output = require "tide.plot.output"

local floor, max = math.floor, math.max

local Figure = {}
Figure.__index = Figure

--- A new figure. Options: width (900) and height (600) in pixels, rows (1) and cols (1) of axes,
--- title, pixel_ratio (1; 2 draws everything at twice the size, for dense screens).
function Figure.new(opts)
  local where = "plot.figure"
  local o = options.check(where, opts, {width = 900, height = 600, rows = 1, cols = 1,
    title = options.none, pixel_ratio = 1})
  errors.number(where, "width", o.width, 40, 20000)
  errors.number(where, "height", o.height, 40, 20000)
  errors.number(where, "rows", o.rows, 1, 100)
  errors.number(where, "cols", o.cols, 1, 100)
  errors.number(where, "pixel_ratio", o.pixel_ratio, 0.5, 8)
  local fig = setmetatable({options = o, list = {}}, Figure)
  for i = 1, o.rows * o.cols do fig.list[i] = Axes.new(fig) end
  return fig
end

--- The i-th axes (1, from the left, row after row), with options as in `ax:set`.
function Figure:axes(i, opts)
  if type(i) == "table" and opts == nil then i, opts = 1, i end
  local o = options.check("axes", opts, Axes.known_options)
  i = i or 1
  local ax = self.list[i]
  if not ax then
    errors.raise("axes: the figure has %d axes (rows × cols), number %s is not among them",
      #self.list, tostring(i))
  end
  Axes.apply(ax, o)
  return ax
end

-- The largest rooms of each row and column, given the size of a plot.
local function margins(fig, w, h, s)
  local rows, cols = {}, {}
  for i, ax in ipairs(fig.list) do
    local r, c = floor((i - 1) / fig.options.cols) + 1, (i - 1) % fig.options.cols + 1
    local m = frame.measure(ax, w, h, s)
    rows[r] = rows[r] or {top = 0, bottom = 0}
    cols[c] = cols[c] or {left = 0, right = 0}
    rows[r].top, rows[r].bottom = max(rows[r].top, m.top), max(rows[r].bottom, m.bottom)
    cols[c].left, cols[c].right = max(cols[c].left, m.left), max(cols[c].right, m.right)
  end
  return rows, cols
end

local function total(list, a, b)
  local sum = 0
  for _, m in ipairs(list) do sum = sum + m[a] + m[b] end
  return sum
end

-- The size of every plot and the rooms around them, from the top `top` downwards.
local function layout(fig, width, height, top, s)
  local o = fig.options
  local pad, gap = theme.pad * s, theme.gap * s
  local w, h = width / o.cols * 0.8, height / o.rows * 0.8
  local rows, cols
  for _ = 1, 3 do            -- ticks depend on the size, and the size on the ticks' labels
    rows, cols = margins(fig, w, h, s)
    w = (width - 2 * pad - gap * (o.cols - 1) - total(cols, "left", "right")) / o.cols
    h = (height - top - pad - gap * (o.rows - 1) - total(rows, "top", "bottom")) / o.rows
    w, h = max(w, 10), max(h, 10)
  end
  return rows, cols, w, h
end

--- Draw everything onto a new canvas and return it; `canvas:rgb()` gives its bytes.
function Figure:render()
  local o = self.options
  local s = o.pixel_ratio
  local width, height = floor(o.width * s + 0.5), floor(o.height * s + 0.5)
  local canvas = Canvas.new(width, height, theme.background)
  local top = theme.pad * s
  for _, ax in ipairs(self.list) do ax:resolve() end
  if o.title then top = top + font.line_height(theme.figure_title_size * s) + 8 * s end
  local rows, cols, w, h = layout(self, width, height, top, s)
  if o.title then
    local x = #self.list == 1 and theme.pad * s + cols[1].left or theme.pad * s
    font.draw(canvas, x, theme.pad * s + font.cap_height(theme.figure_title_size * s) + 2 * s,
      o.title, {size = theme.figure_title_size * s, bold = true, color = theme.ink})
  end
  local y = top
  for r, row in ipairs(rows) do
    local x = theme.pad * s
    for c, col in ipairs(cols) do
      local ax = self.list[(r - 1) * o.cols + c]
      local x0, y0 = x + col.left, y + row.top
      local box = ax:fit {x0 = floor(x0 + 0.5), y0 = floor(y0 + 0.5), x1 = floor(x0 + w + 0.5),
        y1 = floor(y0 + h + 0.5)}
      local outer = {left = col.left, top = row.top}
      if ax:option("aspect") == "equal" then      -- its box may have shrunk
        local own = frame.measure(ax, w, h, s)
        outer.left = own.left
        if box.y0 > floor(y0 + 0.5) then outer.top = own.top end
      end
      frame.draw(ax, canvas, box, s, outer)
      x = x0 + w + col.right + theme.gap * s
    end
    y = y + row.top + h + row.bottom + theme.gap * s
  end
  return canvas
end

--- Draw the figure and write it as a PNG. Returns the path, or nil and a message when the file
--- cannot be written.
function Figure:save(path)
  if type(path) ~= "string" then
    errors.raise("save: expected a path, got %s", errors.describe(path))
  end
  local canvas = self:render()
  return output.write(path, canvas.w, canvas.h, canvas:rgb())
end

return Figure
