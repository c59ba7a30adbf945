-- Sizes (in pixels, before the figure's pixel ratio) and colours of everything but the data.

local colors = require "tide.plot.colors"

return {
  tick_size = 12, label_size = 13, legend_size = 12, title_size = 15, figure_title_size = 18,
  line_width = 2, marker_size = 6,
  pad = 12,            -- around the figure
  gap = 24,            -- between neighbouring axes
  tick_length = 4,
  background = colors.parse "#ffffff",
  ink = colors.parse "#2b3038",
  soft_ink = colors.parse "#4d5560",
  spine = colors.parse "#8b929b",
  grid = colors.parse "#e4e7eb",
  minor_grid = colors.parse "#f1f3f5",
}
