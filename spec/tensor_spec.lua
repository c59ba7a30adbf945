-- Tensors: construction, properties, views, broadcasting, element types, writing in place, memory.

local helper = require "spec.helper"
local tide = require "tide"

local function shape(t) return table.concat(t.shape, "×") end

describe("construction", function()
  it("fills with zeros, ones or a value, float32 unless said", function()
    assert.close(tide.zeros(2, 3), {{0, 0, 0}, {0, 0, 0}}, 0)
    assert.close(tide.ones({2}), {1, 1}, 0)
    assert.close(tide.full({2, 1}, 2.5), {{2.5}, {2.5}}, 0)
    assert.are.equal("float32", tide.zeros(2).dtype)
    for _, dtype in ipairs {"float32", "float64", "int64", "uint8"} do
      assert.are.equal(dtype, tide.zeros(2, dtype).dtype)
      assert.are.equal(dtype, tide.ones({2}, {dtype = dtype}).dtype)
      assert.close(tide.full({3}, 7, dtype), {7, 7, 7}, 0)
    end
    assert.are.equal("", shape(tide.zeros()))
    assert.are.equal("2×0×3", shape(tide.empty(2, 0, 3)))
  end)

  it("makes identities and ranges, both ends included as in Lua's for", function()
    assert.close(tide.eye(2), {{1, 0}, {0, 1}}, 0)
    assert.close(tide.eye(2, 3, "int64"), {{1, 0, 0}, {0, 1, 0}}, 0)
    assert.close(tide.arange(4), {1, 2, 3, 4}, 0)
    assert.close(tide.arange(2, 3, 0.25, "float64"), {2, 2.25, 2.5, 2.75, 3}, 0)
    assert.close(tide.arange(3, 1, -1, "int64"), {3, 2, 1}, 0)
    assert.are.equal(0, tide.arange(3, 1).numel)
    assert.are.equal(11, tide.arange(0, 1, 0.1).numel)
    assert.close(tide.linspace(-1, 1, 5), {-1, -0.5, 0, 0.5, 1}, 0)
    assert.close(tide.linspace(3, 9, 1), {3}, 0)
    assert.are.equal(0.3, tide.linspace(0.1, 0.3, 7, "float64")[-1]:item())
  end)

  it("takes nested tables, numbers and booleans, and gives nested tables back", function()
    local values = {{{1, 2}, {3, 4}}, {{5, 6}, {7, 8}}}
    local t = tide.tensor(values)
    assert.are.equal("2×2×2", shape(t))
    assert.are.same(values, t:totable())
    assert.are.same({{{1, 5}, {3, 7}}, {{2, 6}, {4, 8}}}, t:permute(3, 2, 1):totable())
    assert.are.equal(3, tide.tensor(3):totable())
    assert.close(tide.tensor({true, false}, "uint8"), {1, 0}, 0)
    assert.are.equal("0", shape(tide.tensor({})))
    assert.are.equal("2×0", shape(tide.tensor({{}, {}})))
    assert.are.same({{}, {}}, tide.zeros(2, 0):totable())
  end)

  it("copies and converts a tensor given to it", function()
    local x = tide.tensor({1.7, -1.7})
    local y = tide.tensor(x)
    y:fill_(0)
    assert.close(x, {1.7, -1.7}, 1e-6)
    assert.close(tide.tensor(x, "int64"), {1, -1}, 0)
  end)

  it("takes and gives raw bytes", function()
    local x = tide.tensor({{1, 258}, {3, 4}}, "int64")
    assert.are.equal("\1\0\0\0\0\0\0\0\2\1\0\0\0\0\0\0", x[1]:tobytes())
    assert.close(tide.frombytes(x:t():tobytes(), {2, 2}, "int64"), {{1, 3}, {258, 4}}, 0)
    assert.close(tide.frombytes("\0\127\255", {3}), {0, 127, 255}, 0)
  end)

  it("makes tensors like another", function()
    local x = tide.zeros(2, 3, "float64")
    for _, y in ipairs {tide.zeros_like(x), tide.ones_like(x), x:full_like(3), tide.empty_like(x)} do
      assert.are.equal("2×3 float64", shape(y) .. " " .. y.dtype)
    end
    assert.are.equal("int64", tide.ones_like(x, "int64").dtype)
  end)
end)

describe("properties", function()
  local x = tide.zeros(2, 3, 4)
  it("tell shape, sizes, number of dims and elements, type", function()
    assert.are.same({2, 3, 4}, x.shape)
    assert.are.same({3, 24, "float32"}, {x.ndim, x.numel, x.dtype})
    assert.are.same({2, 3, 4}, {x:size()})
    assert.are.same({2, 4, 3}, {x:size(1), x:size(-1), x:size(-2)})
    assert.are.equal(2, #x)
  end)

  it("tell what concerns gradients", function()
    assert.are.same({false, false}, {x.is_leaf, x.needs_grad})
    local w = tide.zeros(2):requires_grad()
    assert.are.same({true, true}, {w.is_leaf, w.needs_grad})
    assert.are.same({false, true}, {(w + 1).is_leaf, (w + 1).needs_grad})
    assert.is_nil(w.grad)
    w.grad = tide.ones(2)
    assert.close(w.grad, {1, 1}, 0)
    w.grad = nil
    assert.is_nil(w.grad)
  end)

  it("give the number of a tensor with one element", function()
    assert.are.equal(2.5, tide.full({1, 1}, 2.5):item())
  end)

  it("change the element type by :to and the short names", function()
    local t = tide.tensor({1.5, 300})
    assert.are.same({"float64", "float32", "int64", "uint8"},
      {t:double().dtype, t:double():float().dtype, t:long().dtype, t:byte().dtype})
    assert.close(t:long(), {1, 300}, 0)
    assert.close(t:byte(), {1, 255}, 0)
    assert.close(t:long():byte(), {1, 44}, 0)  -- whole numbers wrap
    assert.close(tide.tensor({300, -1, 0 / 0}, "uint8"), {255, 0, 0}, 0)
    assert.close((-t):byte(), {0, 0}, 0)
    assert.close(tide.tensor({0 / 0, 1e30, -1e30}):long(), {0, 2 ^ 63, -2 ^ 63}, 1e-15)
  end)
end)

describe("views", function()
  it("share memory with what they look at", function()
    local x = tide.zeros(3, 4)
    local views = {
      row = x[2], column = x[{{}, 3}], window = x[{{2, 3}, {1, 2}}], turned = x:t(), narrow = x:narrow(2, 2,
        2),
      reshaped = x:reshape(2, 6), selected = x:select(1, -1), squeezed = x:unsqueeze(1):squeeze(1),
        all = x[{}],
      detached = x:detach(), expanded = x:expand(2, 3, 4), view = x:view(12), flat = x:flatten(),
      permuted = x:permute(2, 1), chunk = x:chunk(2, 2)[2],
    }
    for name, v in pairs(views) do assert.is_true(v:shares_storage(x), name) end
    views.column:fill_(3)
    assert.close(x, {{0, 0, 3, 0}, {0, 0, 3, 0}, {0, 0, 3, 0}}, 0)
    views.turned[1] = 1
    assert.close(views.reshaped, {{1, 0, 3, 0, 1, 0}, {3, 0, 1, 0, 3, 0}}, 0)
  end)

  it("become copies where no view can do it", function()
    local x = tide.zeros(3, 4)
    assert.is_false(x:t():reshape(12):shares_storage(x))
    assert.is_false(x:t():contiguous():shares_storage(x))
    assert.is_true(x:contiguous():shares_storage(x))
    assert.is_false(x:clone():shares_storage(x))
    assert.is_true(x:t():is_contiguous() == false and x:is_contiguous())
  end)

  it("become copies of any layout, in any order of dims", function()
    for _, dtype in ipairs {"float32", "float64", "int64", "uint8"} do
      local x = tide.randint(0, 255, 5, 37, 3, 41):to(dtype)
      local source = helper.array.of(x)
      for _, p in ipairs {{1, 2, 3, 4}, {1, 4, 2, 3}, {4, 3, 2, 1}, {2, 1, 4, 3}, {1, 3, 4, 2}, {3, 4, 1, 2}} do
        local copy = x:permute(p):contiguous()
        assert.is_true(copy:is_contiguous())
        local shape_of, at = copy.shape, {}
        local expected = helper.array.new(shape_of, function(i)
          for d = 1, 4 do at[p[d]] = i[d] end
          return source:at(at)
        end)
        assert.close(copy, expected, 0)
        local back = tide.zeros(x.shape, dtype)
        back:permute(p):copy_(copy)
        assert.close(back, source, 0)
      end
      assert.close(x[{{1, -1, 2}, {3, 20, 3}}]:t():contiguous():t(), x[{{1, -1, 2}, {3, 20, 3}}], 0)
      local repeated = x[{{1}}]:expand(7, 37, 3, 41):permute(4, 2, 1, 3):contiguous()
      for i = 1, 7 do assert.close(repeated[{{}, {}, i}], x[1]:permute(3, 1, 2), 0) end
    end
  end)

  it("keep what they look at alive", function()
    local big = tide.ones(1000, 1000)
    local row = big[{7, {1, 3}}]
    big = nil  -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.close(row, {1, 1, 1}, 0)
    local small = tide.ones(5)[{{2, 3}}]
    collectgarbage()
    collectgarbage()
    for _ = 1, 100 do tide.zeros(5) end
    assert.close(small, {1, 1}, 0)
  end)

  it("take apart and put together again", function()
    local x = tide.arange(10):reshape(5, 2)
    local parts = x:split({2, 0, 3})
    assert.are.same({"2×2", "0×2", "3×2"}, {shape(parts[1]), shape(parts[2]), shape(parts[3])})
    assert.close(tide.cat(parts), x, 0)
    assert.close(tide.cat(x:chunk(3)), x, 0)
    assert.are.equal(3, #x:split(2))
    assert.close(tide.stack({x[1], x[2]}), x:narrow(1, 1, 2), 0)
    assert.are.equal("5×2×2", shape(tide.stack({x, x}, 2)))
    assert.are.equal("5×2×2", shape(tide.stack({x, x}, -1)))
    assert.close(tide.stack({x, x}, -1)[{{}, {}, 2}], x, 0)
  end)

  it("flip, tile, pad and turn triangles", function()
    local x = tide.tensor({{1, 2}, {3, 4}})
    assert.close(x:flip(1), {{3, 4}, {1, 2}}, 0)
    assert.close(x:flip {1, 2}, {{4, 3}, {2, 1}}, 0)
    assert.close(x:tile(1, 2), {{1, 2, 1, 2}, {3, 4, 3, 4}}, 0)
    assert.close(x:tile {2, 1, 1}, {{{1, 2}, {3, 4}}, {{1, 2}, {3, 4}}}, 0)
    assert.close(x:pad {[2] = {1, 0}}, {{0, 1, 2}, {0, 3, 4}}, 0)
    assert.close(x:pad {1}, {{0, 0}, {1, 2}, {3, 4}, {0, 0}}, 0)
    assert.close(x:tril(), {{1, 0}, {3, 4}}, 0)
    assert.close(x:triu(1), {{0, 2}, {0, 0}}, 0)
    assert.close(x:diag(), {1, 4}, 0)
    assert.close(tide.diag(tide.tensor({1, 2})), {{1, 0}, {0, 2}}, 0)
    local u, v = tide.meshgrid(tide.arange(2), tide.arange(3))
    assert.close(u * 10 + v, {{11, 12, 13}, {21, 22, 23}}, 0)
  end)
end)

describe("broadcasting", function()
  it("matches dims from the right and repeats size 1", function()
    local cases = {
      {{3, 1}, {4}, "3×4"}, {{}, {2, 2}, "2×2"}, {{2, 1, 3}, {5, 1}, "2×5×3"}, {{0, 3}, {1, 3}, "0×3"},
      {{1}, {0}, "0"}, {{1, 1, 1}, {1}, "1×1×1"},
    }
    for _, c in ipairs(cases) do
      assert.are.equal(c[3], shape(tide.zeros(c[1]) + tide.zeros(c[2])))
      assert.are.equal(c[3], shape(tide.zeros(c[2]) * tide.zeros(c[1])))
    end
  end)
end)

describe("element types", function()
  it("promote: tensors before 0-d tensors before numbers, then real before whole, then wide before narrow",
    function()
    local one = {}
    for _, d in ipairs {"float32", "float64", "int64", "uint8"} do
      one[d] = {tensor = tide.ones(2, d), point = tide.ones({}, d)}
    end
    local table_of = {  -- of two tensors with dims
      float32 = {float32 = "float32", float64 = "float64", int64 = "float32", uint8 = "float32"},
      float64 = {float32 = "float64", float64 = "float64", int64 = "float64", uint8 = "float64"},
      int64 = {float32 = "float32", float64 = "float64", int64 = "int64", uint8 = "int64"},
      uint8 = {float32 = "float32", float64 = "float64", int64 = "int64", uint8 = "uint8"},
    }
    for a, row in pairs(table_of) do
      for b, expected in pairs(row) do
        assert.are.equal(expected, (one[a].tensor + one[b].tensor).dtype, a .. " + " .. b)
        assert.are.equal(expected, (one[a].point + one[b].point).dtype, a .. " + " .. b .. ", 0-d")
        -- a 0-d tensor decides only that the result is real
        local real = a:find("float") or not b:find("float")
        assert.are.equal(real and a or b, (one[a].tensor + one[b].point).dtype, a .. " + 0-d " .. b)
      end
      assert.are.equal(a, (one[a].tensor + 1).dtype)
      assert.are.equal(a:find("float") and a or "float32", (one[a].tensor + 0.5).dtype)
      assert.are.equal(a, (one[a].point + 1).dtype)
      assert.are.equal(a:find("float") and a or "float32", (one[a].tensor / 2).dtype)
      assert.are.equal("uint8", one[a].tensor:gt(0).dtype)
      assert.are.equal(a:find("float") and a or "int64", one[a].tensor:sum().dtype)
    end
  end)

  it("keep their precision", function()
    local x = tide.tensor({1}, "float64")
    assert.are.equal(1 + 2 ^ -50, (x + 2 ^ -50):item())
    assert.are.equal(2 ^ 53 - 1, (tide.tensor({2 ^ 53}, "int64") - 1):item())
    assert.are.equal(0.1, (x * 0.1):item())
    assert.is_true((x:float() * 0.1):item() ~= 0.1)
  end)
end)

describe("writing in place", function()
  it("gives the tensor itself", function()
    local x = tide.ones(2)
    assert.are.equal(x, x:add_(1))
    assert.are.equal(x, x:copy_(tide.zeros(2)))
    assert.are.equal(x, x:fill_(2))
    assert.are.equal(x, x:zero_())
  end)

  it("keeps the tensor's own type and shape", function()
    local x = tide.ones(2, 3)
    x:add_(tide.ones(3, "float64")):mul_(3)
    assert.are.equal("float32", x.dtype)
    assert.close(x, {{6, 6, 6}, {6, 6, 6}}, 0)
    assert.fails_here(function() tide.ones(3):add_(tide.ones(2, 3)) end, "add_", "(2×3)", "(3)")
  end)

  it("refuses a real result in a whole tensor", function()
    local x = tide.ones(2, "int64")
    assert.fails_here(function() x:div_(2) end, "div_", "float32", "int64")
    assert.fails_here(function() x:add_(0.5) end, "add_", "int64")
    assert.close(x:add_(2), {3, 3}, 0)
  end)

  it("refuses elements that share memory", function()
    local x = tide.ones(1):expand(3)
    assert.fails_here(function() x:add_(1) end, "add_", "expanded", "clone")
    assert.fails_here(function() x:copy_(tide.zeros(3)) end, "copy", "expanded")
    assert.fails_here(function() x[1] = 5; x[{{1, 2}}] = 5 end, "expanded")
  end)

  it("computes as if the operands had been copied when they overlap", function()
    local x = tide.arange(300 * 300):reshape(300, 300)
    local expected = x + x:t()
    x:add_(x:t())
    assert.close(x, expected, 0)
    x:narrow(1, 2, 299):add_(x:narrow(1, 1, 299))
    assert.close(x, expected + tide.cat({tide.zeros(1, 300), expected:narrow(1, 1, 299)}), 0)
    local y = tide.arange(4)
    y:narrow(1, 2, 3):copy_(y:narrow(1, 1, 3))
    assert.close(y, {1, 1, 2, 3}, 0)
    local z = tide.arange(4):reshape(2, 2)
    z:copy_(z:t())
    assert.close(z, {{1, 3}, {2, 4}}, 0)
    local w = tide.arange(4)
    w:mul_(w)
    assert.close(w, {1, 4, 9, 16}, 0)
  end)
end)

describe("memory", function()
  it("is counted, and given back", function()
    local before = helper.live()
    local x = tide.zeros(1000, 1000)
    assert.is_true(tide.memory().live >= before + 4e6)
    x:free()
    assert.is_true(tide.memory().live < before + 1e5)
    assert.fails_here(function() return x + 1 end, "add", "no live tensor")
    assert.fails_here(function() return x.shape end, "freed")
    assert.fails_here(function() x:sum() end, "sum", "no live tensor")
    assert.fails_here(function() local _ = tostring(x) end, "freed")
    assert.is_true(tide.is_grad_enabled())
    x:free()  -- again: no harm
    x = nil  -- luacheck: ignore
    assert.are.equal(before, helper.live())
  end)

  it("reports its peak, and a trimmed cache holds nothing", function()
    tide.memory("reset")
    local live = tide.memory().live
    tide.zeros(500, 1000):free()
    local m = tide.memory()
    assert.is_true(m.peak >= live + 2e6 and m.live < m.peak)
    assert.is_true(tide.memory("trim").cached == 0)
    assert.fails_here(function() tide.memory("rest") end, "memory", "rest", "reset")
  end)

  it("of a huge tensor is refused, and nothing is lost", function()
    local before = helper.live()
    assert.fails_here(function() tide.zeros(2 ^ 30, 2 ^ 20) end, "memory")
    assert.fails_here(function() tide.zeros(2 ^ 40, 2 ^ 40, 2 ^ 40) end, "too large")
    assert.fails_here(function() tide.zeros(1):expand(2 ^ 40, 2 ^ 40) end, "too large")
    assert.are.equal(before, helper.live())
  end)
end)
