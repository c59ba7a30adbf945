-- Plots: learning curves, work-precision diagrams, phase portraits, heat maps, image grids; drawn
-- anti-aliased in plain Lua and written as PNG.
--
--   local plot = require "tide.plot"
--   local fig = plot.figure {width = 900, height = 600, title = "Training"}
--   fig:axes(1, {xlabel = "epoch", ylabel = "loss", yscale = "log"})
--     :line(epochs, losses, {label = "train"})
--   fig:save "loss.png"
--
-- Data are Lua tables of numbers, nested tables, or tensors. NaN and infinity leave gaps.

local Canvas = require "tide.plot.canvas"
local Figure = require "tide.plot.figure"
local colors = require "tide.plot.colors"
local errors = require "tide.plot.errors"
local output = require "tide.plot.output"

local M = {}

M.figure = Figure.new
M.image_grid = require "tide.plot.image_grid"
M.set_writer = output.set_writer

--- Write a canvas (of `figure:render()` or `image_grid`) as a PNG. Returns the path, or nil and a
--- message.
function Canvas:save(path)
  if type(path) ~= "string" then
    errors.raise("save: expected a path, got %s", errors.describe(path))
  end
  return output.write(path, self.w, self.h, self:rgb())
end

--- The k-th colour of the default cycle as {r, g, b} in 0…1.
M.color = colors.nth

--- A colour map by name as a list of 256 colours {r, g, b} in 0…1: "viridis", "magma", "plasma",
--- "coolwarm", "gray"; "_r" at the end reverses it.
function M.colormap(name) return (colors.colormap(name, "plot.colormap")) end

return M
