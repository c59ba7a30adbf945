-- tide.plot: figures as PNG.

local look = "label: string? | for the legend\ncolor: color? | the next of the cycle by default"
local axes = [[
xlabel: string? | under the axis
ylabel: string? | beside the axis
title: string? | above
xscale: string = "linear" | or "log"
yscale: string = "linear" | or "log"
xlim: number[]? | {lo, hi}, either may be nil
ylim: number[]? | {lo, hi}, either may be nil
xticks: number[]? | positions
yticks: number[]? | positions
xticklabels: string[]? | names of the positions
yticklabels: string[]? | names of the positions
grid: boolean|string = true | or "x", "y": lines at the ticks of that axis
legend: string|boolean = "auto" | where it hides least; false; "top right" …; "outside"
aspect: string? | "equal": one unit is as long in x as in y
yreverse: boolean? | y grows downwards
box: boolean? | a frame on all four sides]]
local function chart(example)
  return "local ax = plot.figure({width = 200, height = 150}):axes(1)\n" .. example
end

return {
  title = "tide.plot",
  text = "Figures drawn anti-aliased and written as PNG. Data are tables of numbers, nested tables or "
    .. "tensors; NaN and infinity leave gaps. A colour is a name, \"#rrggbb\", {r, g, b} in 0 … 1, or a "
    .. "number in the default cycle.",

  {
    title = "Figures",
    {"plot.figure", "opts: options? -> figure", "A new figure with a grid of axes.",
      options = [[
width: integer = 900 | pixels
height: integer = 600 | pixels
rows: integer = 1 | of axes
cols: integer = 1 | of axes
title: string? | above all
pixel_ratio: number = 1 | 2 draws everything at twice the size]],
      example = [[
local fig = plot.figure {width = 300, height = 200, title = "Training"}
fig:axes(1, {xlabel = "epoch", ylabel = "loss", yscale = "log"}):line({1, 0.5, 0.3}, {label = "train"})
local path = os.tmpname()
assert(fig:save(path))
os.remove(path)]]},
    {"Figure:axes", "i: integer = 1, opts: table? -> axes",
      "The i-th axes, from the left, row after row; options as Axes:set."},
    {"Figure:render", "-> canvas", "Draws everything onto a new canvas."},
    {"Figure:save", "path: string -> string?, string?",
      "Draws and writes a PNG; the path, or nil and a message."},
    {"plot.image_grid", "images: tensor|table, opts: options? -> canvas",
      "Many small images (a list, N×H×W or N×H×W×C) in one picture.",
      options = [[
cols: integer? | about a square by default
scale: number? | pixels for each pixel of an image; about 96 a side by default
labels: table? | a caption under each
label_colors: color|color[]? | of the captions
size: number = 12 | of the text
title: string? | above
row_labels: string[]? | at the left
col_labels: string[]? | above
gap: number? | pixels between
range: number[]? | {black, white}; guessed
colormap: string = "gray" | for one channel
smooth: boolean = false | interpolate
path: string? | writes a PNG there]],
      example = "plot.image_grid(tide.rand(4, 5, 5), {labels = {1, 2, 3, 4}})"},
    {"Canvas:save", "path: string -> string?, string?", "Writes a PNG; the path, or nil and a message."},
    {"Canvas:rgb", "-> string", "All pixels, width × height × 3 bytes."},
    {"Canvas:pixel", "x: integer, y: integer -> integer, integer, integer",
      "The colour of a pixel (from 0), 0 … 255."},
    {"plot.color", "k: integer -> number[]", "The k-th colour of the default cycle, {r, g, b} in 0 … 1.",
      example = "#plot.color(1) --> 3"},
    {"plot.colormap", "name: string -> number[][]",
      "256 colours of \"viridis\", \"magma\", \"plasma\", \"coolwarm\" or \"gray\"; \"_r\" at the end "
        .. "reverses.",
      example = "#plot.colormap \"viridis\" --> 256"},
    {"plot.set_writer", "f: function?",
      "Lets f(path, width, height, bytes) write pictures; nil goes back to the core's PNG writer."},
  },

  {
    title = "Axes",
    text = "Every method that draws returns the axes, so calls chain. ys alone are drawn over 1, 2, 3, ….",
    {"Axes:set", "opts: options -> axes", "Changes options.", options = axes,
      example = chart "ax:set {xlabel = \"t\", grid = \"y\"}"},
    {"Axes:twin", "opts: options? -> axes", "A second y axis at the right, sharing x.",
      options = "ylabel: string? | beside it\nyscale: string? | or \"log\"\nylim: number[]? | {lo, "
        .. "hi}\nyticks: number[]? | positions\nyticklabels: string[]? | names"},
    {"Axes:line", "xs: numbers, ys: numbers|matrix, opts: options? -> axes",
      "A line through points; a matrix of #xs rows draws one line for each column.",
      options = look .. [[

width: number = 2 | pixels; 0 is none
dash: boolean|string|number[]? | true, "dashed", "dotted", "dashdot" or lengths
marker: string? | "o", "s", "^", …
size: number = 7 | of markers
every: integer = 1 | a marker each so many points
alpha: number = 1 | opacity]],
      example = chart "ax:line({0, 1, 2}, {1, 4, 9}, {label = \"squares\", marker = \"o\"})"},
    {"Axes:scatter", "xs: numbers, ys: numbers, opts: options? -> axes",
      "Separate points; a list of whole numbers as color makes classes, other numbers go through the colour "
        .. "map.",
      options = look .. [[

colormap: string? | "viridis"
colorbar: boolean|string = false | true, or its title
size: number|numbers = 6 | pixels
marker: string = "o" | its form
alpha: number = 0.85 | opacity
edge: color? | of a rim]], example = chart "ax:scatter(tide.randn(20), tide.randn(20))"},
    {"Axes:errorbar", "xs: numbers, ys: numbers, errs: number|numbers|table, opts: options? -> axes",
      "Points with vertical error bars, {lower, upper} or one list.",
      options = look .. "\nwidth: number = 1.5 | of the bars\ncap: number = 6 | of the end strokes\nmarker: "
        .. "string = \"o\" | its form\nsize: number = 6 | pixels\nline: boolean = false | join the points",
      example = chart "ax:errorbar({1, 2}, {3, 4}, 0.5)"},
    {"Axes:fill_between", "xs: numbers, lo: number|numbers, hi: number|numbers, opts: options? -> axes",
      "The band between two curves.",
      options = look .. "\nalpha: number = 0.25 | opacity",
      example = chart "ax:fill_between({1, 2, 3}, 0, {1, 2, 1})"},
    {"Axes:bar", "xs: numbers|string[], heights: numbers, opts: options? -> axes",
      "Bars over positions or names.",
      options = look .. "\nwidth: number = 0.7 | in data units\noffset: number = 0 | sideways, for "
        .. "groups\nalpha: number = 1 | opacity",
      example = chart "ax:bar({\"euler\", \"rk4\"}, {3, 5})"},
    {"Axes:hist", "values: numbers, opts: options? -> axes", "A histogram.",
      options = look .. "\nbins: string|integer|number[] = \"auto\" | how many, or their edges\nrange: "
        .. "number[]? | {lo, hi}\ndensity: boolean = false | area 1\nalpha: number = 0.85 | opacity",
      example = chart "ax:hist(tide.randn(100), {bins = 10})"},
    {"Axes:hline", "y: number, opts: options? -> axes", "A horizontal line across the axes.",
      options = "label: string? | for the legend\ncolor: color = \"gray\" | of the line\nwidth: number = "
        .. "1.25 | pixels\ndash: boolean|string = \"dashed\" | as Axes:line\nalpha: number = 1 | opacity"},
    {"Axes:vline", "x: number, opts: table? -> axes", "A vertical line across the axes; options as hline."},
    {"Axes:text", "x: number, y: number, s: string, opts: options? -> axes", "Text at a point of the data.",
      options = [[
color: color? | ink
size: number = 12 | pixels
bold: boolean = false | heavy
align: string = "left" | "center", "right"
valign: string = "baseline" | "middle", "top"
angle: number = 0 | degrees
dx: number = 0 | pixels to the right
dy: number = 0 | pixels upwards]], example = chart "ax:line({1, 2}):text(1, 1, \"start\", {dy = 6})"},
    {"Axes:image", "pixels: matrix, opts: options? -> axes",
      "An image, H×W or H×W×C, its first row at the top; pixel (i, j) is about x = j, y = i.",
      options = "range: number[]? | {black, white}; guessed\ncolormap: string = \"gray\" | for one "
        .. "channel\nsmooth: boolean = false | interpolate\nextent: number[]? | {x0, x1, y0, y1}",
      example = chart "ax:image(tide.rand(8, 8, 3))"},
    {"Axes:heatmap", "matrix: matrix, opts: options? -> axes",
      "A matrix as colours; with an extent, a function on that rectangle, row 1 at the bottom.",
      options = "colormap: string = \"viridis\" | see plot.colormap\ncolorbar: boolean|string = true | or "
        .. "its title\nrange: number[]? | that of the values\nsmooth: boolean = false | "
        .. "interpolate\nextent: number[]? | {x0, x1, y0, y1}\nannotate: boolean|string = false | write the "
        .. "numbers, in a format",
      example = chart "ax:heatmap(tide.rand(4, 4), {annotate = \"%.1f\"})"},
    {"Axes:contour", "matrix: matrix, opts: options? -> axes",
      "Lines of equal value of a matrix, which lies as in heatmap.",
      options = "levels: integer|number[] = 8 | about so many, or values\nextent: number[]? | {x0, x1, y0, "
        .. "y1}\ncolor: color? | by value by default\ncolormap: string = \"viridis\" | see "
        .. "plot.colormap\nwidth: number = 1.25 | pixels\nlabel: string? | for the legend",
      example = chart "ax:contour(tide.rand(5, 5), {levels = 3})"},
    {"Axes:arrows", "xs: numbers, ys: numbers, us: numbers, vs: numbers, opts: options? -> axes",
      "Arrows from (x, y) along (u, v), in data units.",
      options = "scale: number = 1 | factor of their length\n" .. look .. "\nwidth: number = 1.5 | "
        .. "pixels\nalpha: number = 1 | opacity",
      example = chart "ax:arrows({0}, {0}, {1}, {1})"},
    {"Axes:vector_field", "f: function, opts: options? -> axes",
      "f(x, y) → u, v as arrows on a grid over the axes; their length shows the root of the speed.",
      options = "n: integer = 20 | along the longer side\nnormalize: boolean = false | arrows of one "
        .. "length\ncolormap: string? | by speed\ncolor: color = \"#9aa3ad\" | without a colour map\nwidth: "
        .. "number = 1.3 | pixels\nalpha: number = 1 | opacity",
      example = chart "ax:set({xlim = {-1, 1}, ylim = {-1, 1}}):vector_field(function(x, y) return y, -x "
        .. "end)"},
  },
}
