-- Every operation of the table against its slow twin, and every derivative against central differences.

local helper = require "spec.helper"
local array = helper.array
local draw = require "spec.support.draw"
local examples = require "spec.support.examples"
local tide = require "tide"

local operations = tide.operations()
local names = {}
for name in pairs(operations) do names[#names + 1] = name end
table.sort(names)

local function is_real(x) return tide.is_tensor(x) and (x.dtype == "float32" or x.dtype == "float64") end

-- f of every tensor of an argument list, tables of tensors included.
local function map_tensors(args, f)
  local out = {}
  for i = 1, #args do
    local a = args[i]
    if tide.is_tensor(a) then out[i] = f(a, i)
    elseif type(a) == "table" and tide.is_tensor(a[1]) then
      out[i] = {}
      for k, t in ipairs(a) do out[i][k] = f(t, i, k) end
    else out[i] = a end
  end
  return out
end

-- The pairs {got, expected} of an example's call.
local function compared(e, args, results)
  local plain, pairs_ = map_tensors(args, array.of), {}
  local expected
  if e.check then
    for i, y in ipairs(results) do results[i] = array.of(y) end
    return e.check(plain, results)
  elseif e.elementwise then
    expected = {array.map(e.elementwise, unpack(plain))}
  else
    expected = {e.twin(unpack(plain))}
  end
  for i, y in ipairs(expected) do pairs_[i] = {results[i], y} end
  return pairs_
end

local function tolerance(e, dtype)
  if dtype == "float32" then return e.tol32 or math.max(2e-5, e.tol or 0) end
  return e.tol or 1e-11
end

local function check_values(name, number, e, dtype)
  local args = e.args(draw(number, dtype))
  for style, f in pairs {straight = function(x) return x end, awkward = helper.awkward} do
    local got = {tide[name](unpack(map_tensors(args, f)))}
    assert.are.equal(operations[name].results, #got)
    for i, pair in ipairs(compared(e, args, got)) do
      local why = helper.difference(pair[1], pair[2], tolerance(e, dtype))
      if why then
        error(("%s, example %d, result %d, %s, %s operands: %s"):format(name, number, i, dtype, style, why),
          0)
      end
    end
  end
end

describe("the table of operations", function()
  it("has an example of every operation", function()
    local missing = {}
    for _, name in ipairs(names) do
      if not examples[name] or #examples[name] == 0 then missing[#missing + 1] = name end
    end
    assert.are.equal("", table.concat(missing, " "))
  end)

  it("has an operation for every example", function()
    for name in pairs(examples) do assert.is_truthy(operations[name], name) end
  end)

  it("says of every operation what it takes and does", function()
    for name, o in pairs(operations) do
      assert.is_truthy(#o.signature > 0 and #o.doc > 0, name)
    end
  end)
end)

describe("the value of", function()
  for _, name in ipairs(names) do
    it(name .. " is its slow twin's", function()
      for number, e in ipairs(examples[name] or {}) do
        for _, dtype in ipairs {"float64", "float32"} do check_values(name, number, e, dtype) end
      end
    end)
  end
end)

describe("the derivative of", function()
  -- f as a function of its real operands alone, giving the results that carry a gradient.
  local function of_operands(name, e, args)
    local operands = {}
    local function is_operand(x, i, place)
      local constant = e.constant
      if type(constant) == "function" then constant = constant(i, place) else constant = constant
        and constant[i] end
      return is_real(x) and not constant
    end
    map_tensors(args, function(x, i, place)
      if is_operand(x, i, place) then operands[#operands + 1] = x end
      return x
    end)
    local op = e.through and e.through(tide[name]) or tide[name]
    local function f(...)
      local given, k = {...}, 0
      local slots = map_tensors(args, function(x, i, place)
        if not is_operand(x, i, place) then return x end
        k = k + 1
        return given[k]
      end)
      local results = {op(unpack(slots))}
      return unpack(results, 1, e.grad_results or #results)
    end
    return f, operands
  end

  for _, name in ipairs(names) do
    if operations[name].differentiable then
      it(name .. " is right, and its derivative's too", function()
        for number, e in ipairs(examples[name] or {}) do
          local f, operands = of_operands(name, e, e.args(draw(number + 100, "float64")))
          if e.grad ~= false and #operands > 0 then
            local ok, why = tide.gradcheck(f, operands, {raise = false})
            if not ok then error(("%s, example %d: %s"):format(name, number, why), 0) end
          end
        end
      end)
    else
      it(name .. " does not exist, so its results carry no gradient", function()
        local e = examples[name] and examples[name][1]
        local args = map_tensors(e.args(draw(1, "float64")), function(x)
          return is_real(x) and x:detach():requires_grad() or x
        end)
        for _, y in ipairs {tide[name](unpack(args))} do assert.is_false(y.needs_grad) end
      end)
    end
  end
end)

describe("element-wise operations", function()
  it("write over their first operand when their name ends in an underscore", function()
    for _, name in ipairs(names) do
      if operations[name].elementwise then
        for number, e in ipairs(examples[name]) do
          local args = e.args(draw(number, "float64"))
          local y = tide[name](unpack(args))
          local x = args[1]
          if table.concat(x.shape, ",") == table.concat(y.shape, ",") and x.dtype == "float64" then
            for _, target in ipairs {x:clone(), helper.awkward(x)} do
              local result = target[name .. "_"](target, unpack(args, 2))
              assert.are.equal(target, result)
              assert.close(target, y:double(), 0)
            end
          end
        end
      end
    end
  end)

  it("give the same for flat rows and for every path of strides", function()
    local r = draw(5, "float32")
    for _, n in ipairs {1, 2, 15, 16, 17, 63, 64, 65, 255, 257, 1000, 4097, 70001} do
      local a, b = r.real({n}), r.real({n})
      local wide = tide.stack({a, b}, 2)
      assert.close(wide[{{}, 1}] + wide[{{}, 2}], a + b, 0)
      assert.close((a:reshape(n, 1) * b:reshape(1, n)[{{}, {1, math.min(n, 3)}}])[{{}, 1}], a * b[1], 0)
    end
  end)

  it("take no options where an empty table is no list", function()
    local x, k = tide.ones(1, 4, 4, 1), tide.ones(3, 3, 1, 2)
    assert.are.same({1, 2, 2, 2}, x:conv2d(k, {}).shape)
    assert.are.same({1, 2, 2, 2}, x:conv2d(k, nil, 1, {}).shape)
    assert.are.same({4, 4}, x[1]:squeeze():relu({}).shape)
    assert.are.equal(0, tide.ones(1):reshape({}).ndim)
  end)

  it("keep NaN and infinity", function()
    local inf, nan = math.huge, 0 / 0
    local x = tide.tensor({nan, inf, -inf, 0, -0}, "float64")
    local function values(t) return t:totable() end
    assert.close(x:isnan(), {1, 0, 0, 0, 0}, 0)
    assert.close(x:isinf(), {0, 1, 1, 0, 0}, 0)
    assert.close(x:isfinite(), {0, 0, 0, 1, 1}, 0)
    assert.close(x:relu(), {nan, inf, 0, 0, 0}, 0)
    assert.close(x:exp(), {nan, inf, 0, 1, 1}, 0)
    assert.close(x:tanh(), {nan, 1, -1, 0, 0}, 0)
    assert.close(x:sigmoid(), {nan, 1, 0, 0.5, 0.5}, 0)
    assert.close(x:softplus(), {nan, inf, 0, math.log(2), math.log(2)}, 1e-15)
    assert.close(x:abs():log(), {nan, inf, inf, -inf, -inf}, 0)
    assert.close((-x:abs()):sqrt(), {nan, nan, nan, 0, 0}, 0)
    assert.close(x:maximum(1), {nan, inf, 1, 1, 1}, 0)
    assert.close(x:minimum(1), {nan, 1, -inf, 0, 0}, 0)
    assert.close(x:eq(x), {0, 1, 1, 1, 1}, 0)
    assert.close(x:clamp(-1, 1), {nan, 1, -1, 0, 0}, 0)
    assert.close(x:float():erf():double(), {nan, 1, -1, 0, 0}, 0)
    assert.close(x:sin(), {nan, nan, nan, 0, 0}, 0)
    assert.are.equal(2, #values(x:max():reshape(1)) + 1)
    assert.is_true(x:max():item() ~= x:max():item())
    assert.is_true(x:sum():item() ~= x:sum():item())
  end)

  it("follow Lua in mod and floor_div, and give 0 for integers divided by 0", function()
    local a = tide.tensor({7, -7, 7, -7, 5, -5, 0}, "int64")
    local b = tide.tensor({3, 3, -3, -3, 5, 0, 0}, "int64")
    assert.close(a:mod(b):narrow(1, 1, 5), {1, 2, -2, -1, 0}, 0)
    assert.close(a:floor_div(b), {2, -3, -3, 2, 1, 0, 0}, 0)
    assert.close(tide.tensor({5.5, -5.5}) % 2, {1.5, 0.5}, 0)
  end)

  it("compute in the range's corners", function()
    local x = tide.tensor({-800, -50, -1e-9, 1e-9, 50, 800}, "float64")
    assert.close(x:sigmoid(), {0, 1 / (1 + math.exp(50)), 0.5 - 2.5e-10, 0.5 + 2.5e-10, 1, 1}, 1e-15)
    assert.close(x:softplus(), {0, math.exp(-50), math.log(2) - 5e-10, math.log(2) + 5e-10, 50, 800}, 1e-15)
    assert.close(x:tanh(), {-1, -1, -1e-9, 1e-9, 1, 1}, 1e-15)
    assert.close(x:log_sigmoid(), {-800, -50, -math.log(2) - 5e-10, -math.log(2) + 5e-10, -math.exp(-50), 0},
      1e-15)
    assert.close(x:erf(), {-1, -1, -2e-9 / math.sqrt(math.pi), 2e-9 / math.sqrt(math.pi), 1, 1}, 1e-15)
    assert.close(tide.tensor({20}, "float64"):erfc():log(), {-403.569342}, 1e-8)
    assert.close(tide.tensor({1e10, -1e10}, "float64"):sin(), {math.sin(1e10), math.sin(-1e10)}, 1e-9)
    assert.close(tide.tensor({-2, -2}, "float64") ^ tide.tensor({3, 2}, "float64"), {-8, 4}, 1e-15)
  end)

  it("compute integers and bytes as such", function()
    local big = tide.tensor({2 ^ 52, -2 ^ 52}, "int64")
    assert.close(big + 1 - big, {1, 1}, 0)
    assert.are.equal("int64", (big + 1).dtype)
    local bytes = tide.tensor({0, 1, 200, 255}, "uint8")
    assert.are.equal("uint8", (bytes + bytes).dtype)
    assert.close(bytes + bytes, {0, 2, 144, 254}, 0)
    assert.close(bytes:exp(), {1, math.exp(1), math.huge, math.huge}, 1e-6)
    assert.are.equal("float32", (bytes / 2).dtype)
    assert.close(bytes / 2, {0, 0.5, 100, 127.5}, 0)
    assert.close(bytes:gt(100), {0, 0, 1, 1}, 0)
    assert.close(bytes:maximum(7), {7, 7, 200, 255}, 0)
    for _, name in ipairs(names) do  -- every operation of integers says the same as in float64, or refuses
      local list = examples[name]
      if operations[name].elementwise and list.f then
        local x = tide.tensor({1, 2, 3, 1}, "int64")
        local args = {x}
        for i = 2, select(2, operations[name].signature:gsub(",", "")) + 1 do args[i] = x:flip() * i end
        local reals = {}
        for i, a in ipairs(args) do reals[i] = a:double() end
        local why = helper.difference(tide[name](unpack(args)):double(), tide[name](unpack(reals)):double(),
          2e-5)
        if why then error(name .. ": " .. why, 0) end
      end
    end
  end)
end)
