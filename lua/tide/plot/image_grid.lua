-- Many small images with captions in one picture.

local options = require "tide.options"
local errors = require "tide.plot.errors"
local data = require "tide.plot.data"
local colors = require "tide.plot.colors"
local Canvas = require "tide.plot.canvas"
local font = require "tide.plot.font"
local theme = require "tide.plot.theme"
local resample = require "tide.plot.resample"
local output = require "tide.plot.output"

local max, ceil, floor = math.max, math.ceil, math.floor
local none = options.none

local defaults = {cols = none, scale = none, labels = none, label_colors = none, size = 12,
  title = none, row_labels = none, col_labels = none, gap = none, range = none, colormap = "gray",
  smooth = false, path = none}

local function read_images(images, where)
  images = data.plain(images)
  if type(images) ~= "table" or #images == 0 then
    errors.raise("%s: expected a list of images, got %s", where, errors.describe(images))
  end
  local list = {}
  for i = 1, #images do list[i] = data.image(images[i], where) end
  return list
end

-- One range for all images, so that their brightness compares.
local function common_range(list, given)
  if given then return given[1], given[2] end
  local all = {}
  for i, image in ipairs(list) do
    local lo, hi = data.range(image)
    all[2 * i - 1], all[2 * i] = lo or 0, hi or 0
  end
  return data.image_range(all)
end

local function caption(o, i)
  local label = o.labels and o.labels[i]
  return label ~= nil and tostring(label) or nil
end

local function widest(labels, size, bold)
  local w = 0
  for _, label in pairs(labels or {}) do w = max(w, font.width(tostring(label), size, bold)) end
  return w
end

-- Sizes in pixels of a cell and what stands around the grid.
local function measure(list, o)
  local w, h = 0, 0
  for _, image in ipairs(list) do w, h = max(w, image.w), max(h, image.h) end
  local scale = o.scale or max(1, floor(96 / max(w, h) + 0.5))
  local line = floor(o.size * 1.75 + 0.5)
  local m = {scale = scale, image_w = floor(w * scale + 0.5), image_h = floor(h * scale + 0.5),
    gap = o.gap or max(4, floor(w * scale * 0.06 + 0.5)), line = line}
  m.cell_w = max(m.image_w, ceil(widest(o.labels, o.size)) + 2)
  m.cell_h = m.image_h + (o.labels and line or 0)
  m.left = 10 + (o.row_labels and ceil(widest(o.row_labels, o.size, true)) + 10 or 0)
  m.top = 10 + (o.col_labels and line or 0)
    + (o.title and font.line_height(theme.title_size) + 6 or 0)
  return m
end

local function draw_image(canvas, image, x, y, m, o, lo, hi, map)
  local w, h = image.w * m.scale, image.h * m.scale
  x, y = floor(x + (m.cell_w - w) / 2 + 0.5), floor(y + (m.image_h - h) / 2 + 0.5)
  resample.draw(canvas, x, y, x + w, y + h, image.h, image.w,
    resample.image_colors(image, lo, hi, map), o.smooth)
end

local function draw_headings(canvas, o, m, rows, cols)
  if o.title then
    font.draw(canvas, m.left, 12 + font.cap_height(theme.title_size), o.title, {
      size = theme.title_size, bold = true, color = theme.ink})
  end
  for c = 1, o.col_labels and cols or 0 do
    font.draw(canvas, m.left + (c - 1) * (m.cell_w + m.gap) + m.cell_w / 2, m.top - o.size * 0.6,
      tostring(o.col_labels[c] or ""), {size = o.size, bold = true, align = "center",
      color = theme.ink})
  end
  for r = 1, o.row_labels and rows or 0 do
    font.draw(canvas, m.left - 10, m.top + (r - 1) * (m.cell_h + m.gap) + m.image_h / 2,
      tostring(o.row_labels[r] or ""), {size = o.size, bold = true, align = "right",
      valign = "middle", color = theme.ink})
  end
end

--- Draw images (a list or a tensor N×H×W or N×H×W×C) side by side, row after row. Options: cols
--- (about a square), scale (pixels for each pixel of an image; about 96 pixels a side), labels (a
--- caption under each), label_colors (one colour or a list), size (of the text, 12), title,
--- row_labels, col_labels, gap (pixels), range ({black, white}; one for all, guessed), colormap
--- ("gray"), smooth (false), path (writes a PNG there). Returns the canvas, which also has
--- `save(path)`, or nil and a message when the file at `path` cannot be written.
return function(images, opts)
  local where = "plot.image_grid"
  local o = options.check(where, opts, defaults)
  errors.number(where, "cols", o.cols, 1)
  errors.number(where, "scale", o.scale, 0.01)
  for _, name in ipairs {"labels", "row_labels", "col_labels"} do o[name] = data.plain(o[name]) end
  local list = read_images(images, where)
  local m = measure(list, o)
  local cols = math.min(o.cols or ceil(math.sqrt(#list * 1.4)), #list)
  local rows = ceil(#list / cols)
  local map = o.colormap ~= "gray" and colors.colormap(o.colormap, where) or nil
  local lo, hi = common_range(list, o.range)
  local one_color = o.label_colors and colors.is_color(o.label_colors) and o.label_colors
  local canvas = Canvas.new(m.left + cols * (m.cell_w + m.gap) - m.gap + 10,
    m.top + rows * (m.cell_h + m.gap) - m.gap + 10, theme.background)
  for i, image in ipairs(list) do
    local x = m.left + (i - 1) % cols * (m.cell_w + m.gap)
    local y = m.top + floor((i - 1) / cols) * (m.cell_h + m.gap)
    draw_image(canvas, image, x, y, m, o, lo, hi, map)
    if caption(o, i) then
      local color = one_color or o.label_colors and o.label_colors[i]
      font.draw(canvas, x + m.cell_w / 2, y + m.image_h + m.line - 5, caption(o, i), {
        size = o.size, align = "center",
        color = color and colors.parse(color, where) or theme.ink})
    end
  end
  draw_headings(canvas, o, m, rows, cols)
  if o.path then
    local ok, message = output.write(o.path, canvas.w, canvas.h, canvas:rgb())
    if not ok then return nil, message end
  end
  return canvas
end
