local plot = require "tide.plot"
local Canvas = require "tide.plot.canvas"
local colors = require "tide.plot.colors"
local data = require "tide.plot.data"
local font = require "tide.plot.font"
local options = require "tide.options"
local scale = require "tide.plot.scale"
local ticks = require "tide.plot.ticks"

local BLACK, RED = {0, 0, 0}, {1, 0, 0}

-- What tensors look like to the library.
local function tensor(values)
  local t = setmetatable({}, {__index = {totable = function() return values end,
    size = function() return #values end}})
  return t
end

-- The mean darkness 0…1 of a rectangle of pixels.
local function darkness(canvas, x0, y0, x1, y1)
  local sum = 0
  for y = y0, y1 - 1 do
    for x = x0, x1 - 1 do sum = sum + 1 - canvas.pix[(y * canvas.w + x) * 3 + 1] end
  end
  return sum / ((x1 - x0) * (y1 - y0))
end

local function count_pixels(canvas, r, g, b)
  local n = 0
  for y = 0, canvas.h - 1 do
    for x = 0, canvas.w - 1 do
      local pr, pg, pb = canvas:pixel(x, y)
      if pr == r and pg == g and pb == b then n = n + 1 end
    end
  end
  return n
end

-- The message of an error and whether it names this file.
local function failure(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  assert.matches("plot_spec.lua:%d+: ", message)
  return (message:gsub("^.-:%d+: ", ""))
end

describe("ticks", function()
  it("stand at round numbers", function()
    assert.same({"0.0", "0.2", "0.4", "0.6", "0.8", "1.0"}, ticks.linear(0, 1, 6).labels)
    assert.same({"−2", "0", "2"}, ticks.linear(-3, 3, 3).labels)
    assert.same({0, 25, 50, 75, 100}, ticks.linear(0, 100, 4).values)
  end)

  it("say zero, not minus zero", function()
    for _, label in ipairs(ticks.linear(-0.3, 0.3, 6).labels) do
      assert.is_nil(label:match("^−0%.?0*$"))
    end
  end)

  it("abridge large numbers and factor out powers of ten", function()
    assert.same({"0", "10k", "20k", "30k"}, ticks.linear(0, 30000, 3).labels)
    local t = ticks.linear(0, 8e-5, 5)
    assert.same({"0", "2", "4", "6", "8"}, t.labels)
    assert.equal("×10⁻⁵", t.factor)
  end)

  it("are powers of ten on a logarithmic axis", function()
    local t = ticks.log(1e-3, 1, 8)
    assert.same({"10⁻³", "10⁻²", "10⁻¹", "10⁰"}, t.labels)
    assert.equal(24, #t.minor)
  end)

  it("leave out decades when there are many", function()
    local t = ticks.log(1e-20, 1, 6)
    assert.is_true(#t.values >= 3 and #t.values <= 6)
  end)

  it("fall back to round numbers within a decade", function()
    assert.is_true(#ticks.log(100, 110, 5).values >= 3)
    assert.same({"0.1", "0.2", "0.5", "1"}, ticks.log(0.09, 1.1, 6).labels)
  end)

  it("always lie within the limits and never repeat", function()
    for e = -12, 12, 3 do
      for _, span in ipairs {0.7, 1, 3.3, 9.99} do
        local lo, hi = 10 ^ e, 10 ^ e * (1 + span)
        for _, kind in ipairs {"linear", "log"} do
          local t = ticks[kind](lo, hi, 6)
          assert.is_true(#t.values >= 2, kind .. " " .. lo .. " " .. hi)
          for i, v in ipairs(t.values) do
            assert.is_true(v >= lo * (1 - 1e-6) and v <= hi * (1 + 1e-6))
            assert.is_true(i == 1 or t.labels[i] ~= t.labels[i - 1])
          end
        end
      end
    end
  end)

  it("write numbers as people do", function()
    assert.equal("−1.5", ticks.number(-1.5))
    assert.equal("2.5×10⁻⁷", ticks.number(2.5e-7))
    assert.equal("10⁹", ticks.number(1e9))
    assert.equal("∞", ticks.number(math.huge))
  end)
end)

describe("scales", function()
  it("map limits to pixels, linearly and logarithmically", function()
    local lin = scale.map("linear", 0, 10, 100, 200)
    assert.near(150, lin(5), 1e-9)
    local log = scale.map("log", 1e-4, 1, 0, 400)
    assert.near(300, log(0.1), 1e-9)
  end)

  it("give NaN where a value has no place", function()
    local log, lin = scale.map("log", 1, 10, 0, 1), scale.map("linear", 0, 1, 0, 1)
    for _, p in ipairs {log(0), log(-1), lin(0 / 0), lin(1 / 0)} do assert.is_true(p ~= p) end
  end)

  it("are inverted by unmap", function()
    for _, kind in ipairs {"linear", "log"} do
      local f, g = scale.map(kind, 2, 30, 400, 50), scale.unmap(kind, 2, 30, 400, 50)
      assert.near(7, g(f(7)), 1e-9)
    end
  end)

  it("leave out what is not finite or not positive when finding limits", function()
    local b = scale.bounds(false, true)
    b:add({1, 2, 0 / 0, 1 / 0}, {0, -3, 0.1, 10})
    assert.equal(1, b.x.lo)
    assert.equal(2, b.x.hi)
    assert.equal(0.1, b.y.lo)
    assert.equal(10, b.y.hi)
  end)

  it("keep a margin, but not below the foot of bars", function()
    local b = scale.bounds()
    b:add({0, 10}, {0, 10})
    b:stick("y", 0)
    local lo, hi = scale.limits(b.y, nil, 0.05)
    assert.equal(0, lo)
    assert.near(10.5, hi, 1e-9)
  end)

  it("have limits for one value and for none", function()
    for _, values in ipairs {{}, {0}, {5}, {-1e-9}} do
      local b = scale.bounds()
      b:add(values, values)
      local lo, hi = scale.limits(b.x, nil, 0.03)
      assert.is_true(lo < hi)
    end
  end)
end)

describe("the canvas", function()
  it("fills whole pixels exactly and halves by half", function()
    local c = Canvas.new(10, 10)
    c:rect(2, 2, 5.5, 4, RED)
    assert.same({255, 0, 0}, {c:pixel(2, 2)})
    assert.same({255, 0, 0}, {c:pixel(4, 3)})
    assert.same({255, 255, 255}, {c:pixel(6, 3)})
    assert.same({255, 255, 255}, {c:pixel(2, 4)})
    assert.near(0.5, c.pix[(2 * 10 + 5) * 3 + 2], 1e-9)
  end)

  it("covers the area of a polygon", function()
    local c = Canvas.new(100, 100)
    c:fill({10, 90, 50}, {15, 35, 95}, BLACK)
    local area = 0.5 * math.abs((90 - 10) * (95 - 15) - (50 - 10) * (35 - 15))
    assert.near(area, darkness(c, 0, 0, 100, 100) * 1e4, area * 1e-3)
  end)

  it("counts overlapping parts of a polygon once", function()
    local c = Canvas.new(40, 40)
    c:fill({5, 30, 30, 5, 5, 20, 20, 5}, {5, 5, 30, 30, 5, 5, 20, 20}, BLACK)
    assert.near(25 * 25, darkness(c, 0, 0, 40, 40) * 1600, 1e-6)
  end)

  it("draws lines of the width asked for, at any angle", function()
    for _, angle in ipairs {0, 17, 45, 80} do
      for _, width in ipairs {0.5, 1, 2, 5} do
        local c = Canvas.new(200, 200)
        local dx, dy = 80 * math.cos(math.rad(angle)), 80 * math.sin(math.rad(angle))
        c:stroke({100 - dx, 100 + dx}, {100 - dy, 100 + dy}, width, BLACK)
        local area = 160 * width + math.pi * width ^ 2 / 4
        assert.near(1, darkness(c, 0, 0, 200, 200) * 4e4 / area, 0.02)
      end
    end
  end)

  it("does not darken where a translucent stroke crosses itself", function()
    local c = Canvas.new(21, 21)
    c:stroke({2, 18, 0 / 0, 10.5, 10.5}, {10.5, 10.5, 0 / 0, 2, 18}, 3, BLACK, 0.5)
    assert.same({c:pixel(5, 10)}, {c:pixel(10, 10)})
    assert.same({128, 128, 128}, {c:pixel(10, 10)})
  end)

  it("draws nothing outside the clip rectangle", function()
    local c = Canvas.new(60, 60)
    c:clip(20, 20, 40, 40)
    c:stroke({-1e6, 1e6}, {-1e6, 1e6}, 4, BLACK)
    c:stroke({0, 60}, {30, 30}, 6, BLACK, 1, {4, 4})
    c:fill({-500, 500, 500, -500}, {25, -900, 900, 28}, RED)
    c:disc(40, 40, 30, BLACK)
    c:unclip()
    for _, r in ipairs {{0, 0, 60, 20}, {0, 40, 60, 60}, {0, 0, 20, 60}, {40, 0, 60, 60}} do
      for y = r[2], r[4] - 1 do
        for x = r[1], r[3] - 1 do assert.same({255, 255, 255}, {c:pixel(x, y)}) end
      end
    end
    assert.is_true(darkness(c, 20, 20, 40, 40) > 0.1)
  end)

  it("fills a clipped polygon as the whole one", function()
    local xs, ys = {-30, 70, 130, 20}, {10, -40, 90, 110}
    local whole, part = Canvas.new(80, 80), Canvas.new(80, 80)
    whole:fill(xs, ys, BLACK)
    part:clip(13, 17, 61, 57)
    part:fill(xs, ys, BLACK)
    for y = 17, 56 do
      for x = 13, 60 do assert.same({whole:pixel(x, y)}, {part:pixel(x, y)}) end
    end
  end)

  it("dashes evenly, also far out of the picture", function()
    local c = Canvas.new(100, 10)
    c:stroke({-1e9, 1e9}, {5, 5}, 2, BLACK, 1, {5, 5})
    assert.near(0.5, darkness(c, 0, 4, 100, 6), 0.06)
  end)

  it("leaves the mask clean", function()
    local c = Canvas.new(30, 30)
    c:stroke({1, 28}, {3, 22}, 3, BLACK)
    c:fill({-5, 28, 40}, {2, 28, 7}, RED)
    font.draw(c, 2, 20, "Wq", {size = 14})
    for i = 1, #c.mask do assert.equal(0, c.mask[i]) end
  end)

  it("gives its pixels as bytes", function()
    local c = Canvas.new(3, 2)
    c:rect(1, 0, 2, 1, {0, 128 / 255, 1})
    assert.equal("\255\255\255\0\128\255\255\255\255" .. ("\255"):rep(9), c:rgb())
  end)
end)

describe("text", function()
  it("has a glyph for ASCII and the field's symbols", function()
    for b = 32, 126 do assert.is_true(font.has(string.char(b)), string.char(b)) end
    local symbols = "λ θ σ ε α β μ ² ³ × · ≤ ≥ − → ∞ ∂ ‖ ⁰ ⁴ ⁹ ⁻ ₀ ₙ Δ Σ ∇ ± ≈ – … é ö ẋ"
    for s in symbols:gmatch("%S+") do
      assert.is_true(font.has(s), s)
    end
    assert.is_false(font.has("漢"))
  end)

  it("is as wide as it says and stands on its line", function()
    local c = Canvas.new(200, 40)
    font.draw(c, 10, 30, "HIH", {size = 20})
    local w = font.width("HIH", 20)
    assert.is_true(darkness(c, 10, 0, math.floor(10 + w), 40) > 0.05)
    assert.equal(0, darkness(c, 0, 0, 10, 40))
    assert.equal(0, darkness(c, math.ceil(10 + w), 0, 200, 40))
    assert.equal(0, darkness(c, 0, 30, 200, 40))
    assert.equal(0, darkness(c, 0, 0, 200, 30 - font.cap_height(20) - 1))
  end)

  it("turns by any angle without losing weight", function()
    local upright, turned = Canvas.new(120, 120), Canvas.new(120, 120)
    font.draw(upright, 60, 60, "gradient", {size = 16, align = "center"})
    font.draw(turned, 60, 60, "gradient", {size = 16, align = "center", angle = 90})
    local a, b = darkness(upright, 0, 0, 120, 120), darkness(turned, 0, 0, 120, 120)
    assert.near(1, a / b, 0.03)
  end)

  it("survives bytes that are not UTF-8", function()
    local c = Canvas.new(50, 20)
    font.draw(c, 2, 15, "a\255\128\195", {size = 12})
  end)
end)

describe("colours", function()
  it("are read from names, hexadecimal, tables and cycle numbers", function()
    assert.same({1, 1, 1}, colors.parse("white"))
    assert.same({1, 0, 0}, colors.parse("#f00"))
    assert.near(0.5, colors.parse("#00000080")[4], 0.01)
    assert.same({0.1, 0.2, 0.3}, colors.parse {0.1, 0.2, 0.3})
    assert.same(colors.nth(2), colors.parse(2))
    assert.matches("expected a colour", failure(function() colors.parse("bleu") end))
  end)

  it("come in maps with known ends that rise in lightness", function()
    for name, ends in pairs {viridis = {"#440154", "#fde725"}, magma = {"#000004", "#fcfdbf"},
        gray = {"#000000", "#ffffff"}, coolwarm = {"#3b4cc0", "#b40426"}} do
      local map = plot.colormap(name)
      assert.equal(256, #map)
      for ch = 1, 3 do
        assert.near(colors.parse(ends[1])[ch], map[1][ch], 1e-9)
        assert.near(colors.parse(ends[2])[ch], map[256][ch], 1e-9)
      end
      for i = 2, name ~= "coolwarm" and 256 or 1 do
        assert.is_true(colors.lightness(map[i]) > colors.lightness(map[i - 1]) - 2e-3)
      end
    end
    assert.same(plot.colormap("viridis")[1], plot.colormap("viridis_r")[256])
  end)
end)

describe("data", function()
  it("may be tables, nested tables or tensors", function()
    assert.same({1, 2, 3}, data.vector({1, 2, 3}, "f", "xs"))
    assert.same({1, 2, 3}, data.vector({{1}, {2}, {3}}, "f", "xs"))
    assert.same({1, 2, 3}, data.vector(tensor {1, 2, 3}, "f", "xs"))
    assert.same({{1, 2}, {3, 4}}, (data.matrix(tensor {{1, 2}, {3, 4}}, "f", "m")))
    assert.same({{1, 2}, {3, 4}}, (data.matrix({tensor {1, 2}, tensor {3, 4}}, "f", "m")))
    local image = data.image(tensor {{{1, 2, 3}, {4, 5, 6}}}, "f")
    assert.same({1, 2, 3}, {image.h, image.w, image.channels})
  end)

  it("say what is wrong with them", function()
    assert.equal('f: xs[2] must be a number, got the string "a"',
      failure(function() data.vector({1, "a"}, "f", "xs") end))
    assert.equal("f: xs must be a list of numbers or a tensor, got nothing",
      failure(function() data.vector(nil, "f", "xs") end))
    assert.equal("f: rows of m differ in length: row 1 has 2, row 2 has 1",
      failure(function() data.matrix({{1, 2}, {3}}, "f", "m") end))
    assert.equal("f: an image has 1, 3 or 4 channels, last, got 1×1×2",
      failure(function() data.image({{{1, 2}}}, "f") end))
  end)

  it("show images by a range that fits them", function()
    assert.same({0, 255}, {data.image_range {0, 17, 200}})
    assert.same({0, 1}, {data.image_range {0.2, 1.05}})
    assert.same({-1, 1}, {data.image_range {-0.9, 0.8}})
  end)
end)

describe("a figure", function()
  local blue = {29, 121, 214}

  local function small(opts)
    local fig = plot.figure {width = 300, height = 200}
    return fig, fig:axes(1, opts)
  end

  it("draws a line in the first colour of the cycle", function()
    local fig, ax = small()
    ax:line({0, 1, 2}, {0, 0, 0}, {width = 4})
    assert.is_true(count_pixels(fig:render(), blue[1], blue[2], blue[3]) > 300)
  end)

  it("takes tensors, single lists and columns of a matrix", function()
    local fig, ax = small()
    ax:line(tensor {1, 2, 3}, tensor {3, 1, 2}):line({4, 5, 6}):line({1, 2, 3}, {label = "a"})
    assert.equal(3, #ax.artists)
    ax:line({1, 2, 3}, tensor {{1, 2}, {3, 4}, {5, 6}}, {label = {"u", "v"}})
    assert.equal(5, #ax.artists)
    assert.equal("v", ax.artists[5].label)
    fig:render()
  end)

  it("breaks lines at NaN and infinity", function()
    local function blue_pixels(ys)
      local fig, ax = small {ylim = {-1, 1}}
      ax:line({1, 2, 3, 4, 5}, ys, {width = 3})
      return count_pixels(fig:render(), 29, 121, 214)
    end
    local whole = blue_pixels {0, 0, 0, 0, 0}
    for _, gap in ipairs {0 / 0, 1 / 0, -1 / 0} do
      assert.near(0.5, blue_pixels {0, 0, gap, 0, 0} / whole, 0.05)
    end
  end)

  it("draws a curve of many points like one of few", function()
    local function render(n)
      local xs, ys = {}, {}
      for i = 1, n do
        xs[i] = (i - 1) / (n - 1)
        ys[i] = math.sin(20 * xs[i])
      end
      local fig, ax = small()
      ax:line(xs, ys)
      return fig:render()
    end
    local a, b = render(2000), render(200000)
    local worst = 0
    for i = 1, #a.pix do worst = math.max(worst, math.abs(a.pix[i] - b.pix[i])) end
    assert.is_true(worst < 0.1, "differs by " .. worst)
  end)

  it("draws every kind of artist, also from nothing", function()
    local fig = plot.figure {width = 900, height = 900, rows = 4, cols = 4, title = "all"}
    local m = {{1, 2, 3}, {4, 0 / 0, 6}}
    fig:axes(1):scatter({1, 2, 3}, {1, 2, 3}, {color = {0, 1, 1}, label = {[0] = "a", "b"}})
    fig:axes(2):scatter({1, 2, 3, 4}, {1, 2, 3, 1}, {color = {0.1, 2, 3, 4}, colorbar = "c"})
    fig:axes(3):fill_between({1, 2, 3, 4}, 0, {1, 0 / 0, 3, 4}, {label = "band"})
    fig:axes(4):bar({"a", "b"}, {1, 2}):bar({3, 4}, {offset = 0.2})
    fig:axes(5):hist({1, 2, 2, 3, 0 / 0}, {density = true}):hist({})
    fig:axes(6):heatmap(m, {annotate = true, colorbar = "value"})
    fig:axes(7):heatmap(m, {extent = {0, 1, 0, 1}, smooth = true})
      :contour(m, {extent = {0, 1, 0, 1}})
    fig:axes(8):image({{{1, 0, 0}, {0, 1, 0}}, {{0, 0, 1}, {1, 1, 1}}})
    fig:axes(9):vector_field(function(x, y) return y, -x end, {colormap = "viridis"})
    fig:axes(10):arrows({0, 1}, {0, 1}, {1, 1}, {0, 1}, {label = "v"})
    fig:axes(11):errorbar({1, 2}, {1, 2}, 0.1):errorbar({1, 2}, {1, 2}, {{1, 1}, {2, 2}})
    fig:axes(12):hline(1):vline(2, {label = "here"}):text(1, 1, "λ", {angle = 30})
    fig:axes(13):line({1, 2}, {3, 4}, {label = "left", marker = "s"}):twin {ylabel = "right",
      yscale = "log"}:line({1, 2}, {5, 600}, {label = "right", dash = ":"})
    fig:axes(14, {xscale = "log", yscale = "log", legend = "outside"}):line({-1, 0, 10, 1000},
      {1, 2, 3, 4}, {label = "positive part"})
    fig:axes(15):line({}, {}, {label = "empty"}):scatter({}, {})
    fig:render()
  end)

  it("shows the pixels of an image where they belong", function()
    local fig, ax = small()
    ax:image({{{1, 0, 0}, {0, 1, 0}}, {{0, 0, 1}, {1, 1, 0}}})
    local c = fig:render()
    local x0, y0, x1, y1 = 300, 200, 0, 0
    for y = 0, 199 do
      for x = 0, 299 do
        local r, g, b = c:pixel(x, y)
        if r == 255 and g == 0 and b == 0 then
          x0, y0, x1, y1 = math.min(x, x0), math.min(y, y0), math.max(x, x1), math.max(y, y1)
        end
      end
    end
    assert.near(x1 - x0, y1 - y0, 2)             -- square pixels
    assert.same({0, 255, 0}, {c:pixel(x1 + 10, y0 + 5)})
    assert.same({0, 0, 255}, {c:pixel(x0 + 5, y1 + 10)})
    assert.same({255, 255, 0}, {c:pixel(x1 + 10, y1 + 10)})
  end)

  it("counts the values of a histogram in their bins", function()
    local _, ax = small()
    ax:hist({0, 0.1, 0.5, 1, 2, -1, 0 / 0}, {bins = {0, 0.5, 1}})
    local b = scale.bounds()
    ax.artists[1]:extend(b)
    assert.equal(2, b.y.hi)
    assert.equal(0, b.x.lo)
    assert.equal(1, b.x.hi)
  end)

  it("puts the legend where nothing is drawn", function()
    local fig, ax = small()
    local xs, ys = {}, {}
    for i = 1, 100 do xs[i], ys[i] = i, 1 - 1 / i end     -- leaves only the lower right free
    ax:line(xs, ys, {label = "a"})
    local c = fig:render()
    assert.is_true(darkness(c, 220, 100, 280, 170) > darkness(c, 60, 90, 120, 160))
  end)

  it("doubles everything with pixel_ratio = 2", function()
    local c = plot.figure {width = 200, height = 100, pixel_ratio = 2}:render()
    assert.same({400, 200}, {c.w, c.h})
  end)

  it("keeps units equal when asked to", function()
    local fig, ax = small {aspect = "equal"}
    ax:line({-1, 1}, {-1, 1})
    fig:render()
    local w = ax.xview[2] - ax.xview[1]
    assert.is_true(w > 2 * (ax.yview[2] - ax.yview[1]) * 0.6)
  end)

  it("hands finished pictures to the writer", function()
    local got
    plot.set_writer(function(path, w, h, bytes)
      got = {path, w, h, #bytes}
      return true
    end)
    local fig = plot.figure {width = 60, height = 50}
    assert.equal("a.png", fig:save "a.png")
    assert.same({"a.png", 60, 50, 60 * 50 * 3}, got)
    plot.set_writer(function() return nil, "disk full" end)
    local ok, message = fig:save "a.png"
    assert.is_nil(ok)
    assert.equal("disk full", message)
    plot.set_writer(nil)
  end)
end)

describe("image grids", function()
  it("place images row after row, magnified without blur", function()
    local red, blue = {{{255, 0, 0}}}, {{{0, 0, 255}}}
    local c = plot.image_grid({red, blue, blue}, {cols = 2, scale = 20, gap = 4})
    assert.equal(20 * 20, count_pixels(c, 255, 0, 0))
    assert.equal(2 * 20 * 20, count_pixels(c, 0, 0, 255))
  end)

  it("take tensors, captions, headings and colours", function()
    local images = tensor {{{0, 1}, {1, 0}}, {{1, 1}, {0, 0}}}
    local c = plot.image_grid(images, {labels = {"cat", 7}, label_colors = {"red", "ink"},
      title = "t", row_labels = {"r"}, col_labels = {"a", "b"}, colormap = "magma"})
    assert.is_true(c.w > 100 and c.h > 100)
  end)

  it("write a file when given a path", function()
    local path
    plot.set_writer(function(p) path = p return true end)
    plot.image_grid({{{0, 1}}}, {path = "grid.png"})
    plot.set_writer(nil)
    assert.equal("grid.png", path)
  end)
end)

describe("errors", function()
  local fig = plot.figure {}
  local ax = fig:axes(1)

  it("name the nearest option", function()
    assert.matches('^plot.figure: unknown option "widht", did you mean "width"%? %(expected one of .*height',
      failure(function() plot.figure {widht = 3} end))
    assert.matches('^line: unknown option "colour", did you mean "color"%?',
      failure(function() ax:line({1}, {1}, {colour = 1}) end))
    assert.matches('did you mean "yscale"', failure(function() fig:axes(1, {yscal = "log"}) end))
    assert.matches('did you mean "labels"', failure(function()
      plot.image_grid({{{1}}}, {lables = {}})
    end))
  end)

  it("say what was expected and what came", function()
    local cases = {
      [function() ax:line({1, 2}, {1}) end] = "line: xs and ys differ in length: 2 and 1",
      [function() ax:line("x") end] =
        'line: ys must be a list of numbers or a tensor, got the string "x"',
      [function() ax:line({1}, {1}, {width = -1}) end] = "line: width must be at least 0, got -1",
      [function() ax:line({1}, {1}, {alpha = 2}) end] =
        "line: alpha must be between 0 and 1, got 2",
      [function() ax:line({1}, {1}, {color = "bleu"}) end] = "line: expected a colour",
      [function() ax:line({1}, {1}, {marker = "q"}) end] = "line: marker must be one of",
      [function() ax:heatmap({1, 2}) end] = "heatmap: the matrix must be a matrix",
      [function() ax:heatmap({{1}}, {colormap = "jet"}) end] = "heatmap: colormap must be one of",
      [function() ax:hist({1}, {bins = 0}) end] = "hist: bins must be",
      [function() ax:vector_field(3) end] = "vector_field: expected a function",
      [function() ax:set {xscale = "logg"} end] = "axes: xscale must be one of",
      [function() ax:set {xlim = 3} end] = "axes: xlim must be {lo, hi}, got number 3",
      [function() fig:axes(2) end] = "axes: the figure has 1 axes",
      [function() fig:save() end] = "save: expected a path, got nothing",
      [function() plot.set_writer(1) end] = "plot.set_writer: expected a function",
      [function() plot.figure(7) end] = "plot.figure: options must be a table, got a number",
    }
    for f, message in pairs(cases) do
      assert.equal(message, failure(f):sub(1, #message))
    end
  end)

  it("refuse limits that a logarithmic axis cannot show", function()
    local f = plot.figure {}
    f:axes(1, {xscale = "log", xlim = {0, 10}}):line({1, 2}, {1, 2})
    assert.matches("a logarithmic axis needs positive limits", failure(function() f:render() end))
  end)
end)

describe("options", function()
  it("fill in defaults and leave the given table alone", function()
    local given = {a = 1}
    local o = options.check("f", given, {a = 0, b = 2, c = options.none})
    assert.same({a = 1, b = 2}, o)
    assert.same({a = 1}, given)
  end)
end)
