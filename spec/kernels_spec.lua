-- Results do not depend on the number of threads, to the last bit; nor on the instruction set, to rounding.

local helper = require "spec.helper"
local tide = require "tide"

-- Results of spec/support/kernel_run.lua: threads → name → {dtype, shape, bytes}; and what was used.
local function run(isa, threads)
  local file = os.tmpname()
  local out, status = helper.child(([[
    io.write(require "spec.support.kernel_run"(%q, {%s}))
  ]]):format(file, table.concat(threads, ", ")), {TIDE_ISA = isa})
  assert(status == 0, out)
  local results, names = {}, {}
  local f = assert(io.open(file, "rb"))
  for _, n in ipairs(threads) do results[n] = {} end
  for header in f:lines() do
    local n, name = header:match("^(%d+) threads: (.*)$")
    local dtype, shape, numel = f:read "*l", {}, 1
    for s in f:read("*l"):gmatch("%d+") do
      shape[#shape + 1] = tonumber(s)
      numel = numel * tonumber(s)
    end
    results[tonumber(n)][name] = {dtype = dtype, shape = shape, bytes = f:read(numel * (dtype == "float32"
      and 4 or 8))}
    if tonumber(n) == threads[1] then names[#names + 1] = name end
  end
  f:close()
  os.remove(file)
  return results, names, out
end

-- The largest gap relative to the largest element; NaN counts as no gap when both have it.
local function gap(a, b)
  local x = tide.frombytes(a.bytes, a.shape, a.dtype):double()
  local y = tide.frombytes(b.bytes, b.shape, b.dtype):double()
  local scale = math.max(1e-30, y:abs():max():item())
  return (x - y):abs():max():item() / scale
end

describe("kernels", function()
  local reference, names

  it("give the same bits for 1, 2 and 3 threads, with every instruction set", function()
    for _, isa in ipairs {"base", "avx2", "avx512"} do
      local results, list, used = run(isa, {1, 2, 3})
      local different = {}
      for _, name in ipairs(list) do
        for n = 2, 3 do
          if results[n][name].bytes ~= results[1][name].bytes then
            different[#different + 1] = ("%s with %d threads (%s)"):format(name, n, used)
          end
        end
      end
      assert.are.equal("", table.concat(different, "\n"))
      if isa == "base" then
        reference, names = results[1], list
      elseif used == isa then  -- a processor without it uses the best it has
        local far = {}
        for _, name in ipairs(names) do
          local tolerance = name:find("float64", 1, true) and 1e-12 or 2e-5
          local g = gap(results[1][name], reference[name])
          if g > tolerance or g ~= g then far[#far + 1] = ("%s: %.3g off (%s)"):format(name, g, used) end
        end
        assert.are.equal("", table.concat(far, "\n"))
      end
    end
    assert.is_true(#names > 80)
  end)

  -- Units of the last place of float32 against float64, over all magnitudes of both signs. Results below
  -- 2^-119 do not count: they or their factors are subnormal.
  it("reach the accuracy that vmath.h promises, with every instruction set", function()
    for _, isa in ipairs {"base", "avx2", "avx512"} do
      local out, status = helper.child([[
        local tide = require "tide"
        local size = tide.cat {(tide.linspace(-100, 7, 200001, "float64") * math.log(2)):exp(),
          tide.linspace(0, 20, 200001, "float64")}
        local x = tide.cat({size, -size}):float()
        local bounds = {exp = 2, tanh = 3, erf = 3, erfc = 4, sigmoid = 4, silu = 4, gelu = 4.5, softplus = 3.5}
        for name, bound in pairs(bounds) do
          local want, got = x:double()[name](x:double()), x[name](x):double()
          local exponent = (want:abs():clamp(2 ^ -126, 2 ^ 127):log() / math.log(2) - 1e-9):floor()
          local last = (exponent * math.log(2)):exp() * 2 ^ -23
          local counted = want:abs():ge(2 ^ -119):double() * want:abs():lt(2 ^ 127):double()
          local worst = tide.where(counted, (got - want):abs() / last, tide.zeros_like(want)):max():item()
          if not (worst <= bound) then io.write(name, " ", worst, " units\n") end
        end
        for _, name in ipairs {"exp", "tanh", "erf", "erfc", "sigmoid", "silu", "gelu"} do
          local odd = tide.tensor {0 / 0, 1 / 0, -1 / 0, 0, -0.0, 1e-42, 3e38, -3e38}
          local want, got = odd:double()[name](odd:double()):float(), odd[name](odd)
          for i = 1, odd.shape[1] do
            local a, b = want[i]:item(), got[i]:item()
            if not (a == b or a ~= a and b ~= b) and math.abs(a - b) > 3e-45 then
              io.write(name, " of ", odd[i]:item(), " is ", b, "\n")
            end
          end
        end
      ]], {TIDE_ISA = isa})
      assert.are.same({"", 0}, {out, status}, isa)
    end
  end)

  it("give the same random numbers with every instruction set", function()
    local bits = {}
    for _, isa in ipairs {"base", "avx2", "avx512"} do
      local out, status = helper.child([[
        local tide = require "tide"
        local g = tide.generator(42)
        local sum = 0
        local text = g:rand(1001):tobytes() .. g:rand(1001, "float64"):tobytes() .. g:randint(1, 1000,
          100):tobytes()
          .. g:randperm(100):tobytes() .. g:randn(1001):tobytes() .. g:randn(1001, "float64"):tobytes()
        for i = 1, #text do sum = (sum * 31 + text:byte(i)) % 2147483647 end
        io.write(sum)
      ]], {TIDE_ISA = isa})
      assert.are.equal(0, status, out)
      bits[#bits + 1] = out
    end
    assert.are.same({bits[1], bits[1], bits[1]}, bits)
  end)

  it("refuse an instruction set that does not exist, by using what there is", function()
    local out, status = helper.child([[io.write(require("tide").isa())]], {TIDE_ISA = "quantum"})
    assert.are.equal(0, status)
    assert.is_truthy(out:find("base", 1, true) or out:find("avx", 1, true) or out:find("neon", 1, true), out)
  end)
end)
