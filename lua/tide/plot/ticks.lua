-- Where the ticks of an axis stand and what they say.
--
-- A set of ticks is {values =, labels =, minor =, factor =}: positions in data units, one string
-- each, positions of unlabelled ticks, and a common factor ("×10⁻⁴") where labels leave one out.

local floor, ceil, abs, max, min = math.floor, math.ceil, math.abs, math.max, math.min

local M = {}

local function log10(x) return math.log(x) / math.log(10) end

local digits = {["-"] = "⁻", ["0"] = "⁰", ["1"] = "¹", ["2"] = "²", ["3"] = "³", ["4"] = "⁴",
  ["5"] = "⁵", ["6"] = "⁶", ["7"] = "⁷", ["8"] = "⁸", ["9"] = "⁹"}

--- "10ⁿ" for a whole n.
function M.power(n)
  return "10" .. ("%.0f"):format(n):gsub(".", digits)
end

--- A number with a true minus sign and without superfluous digits, at most `places` significant
--- ones (4); very large and very small ones as m×10ⁿ.
function M.number(v, places)
  if v ~= v then return "nan" end
  if v == math.huge or v == -math.huge then return v > 0 and "∞" or "−∞" end
  local s = ("%." .. (places or 4) .. "g"):format(v)
  local mantissa, exponent = s:match("^(.-)e(.*)$")
  if exponent then
    s = (mantissa == "1" and "" or mantissa .. "×") .. M.power(tonumber(exponent))
  end
  return (s:gsub("^%-", "−"))
end

--- The smallest of 1, 2, 2.5, 5 times a power of ten that cuts `range` into at most `n` parts.
function M.step(range, n)
  local raw = range / max(n, 1)
  local unit = 10 ^ floor(log10(raw) + 1e-9)
  for _, m in ipairs {1, 2, 2.5, 5, 10} do
    local fits = m * unit >= raw * (1 - 1e-9)
    if fits and (m ~= 2.5 or unit >= 10 or unit < 0.5) then return m * unit end
  end
end

-- The number of decimals that tell multiples of `step` apart.
local function decimals(step)
  local d = 0
  while d < 12 and abs(step * 10 ^ d - floor(step * 10 ^ d + 0.5)) > 1e-6 * step * 10 ^ d do
    d = d + 1
  end
  return d
end

local function fixed(v, d)
  local s = ("%." .. d .. "f"):format(v)
  if tonumber(s) == 0 then s = ("%." .. d .. "f"):format(0) end
  return (s:gsub("^%-", "−"))
end

-- What labels of values up to `largest` in steps of `step` leave out: a divisor, the suffix that
-- each label then takes, and the common factor shown once.
local function abridge(largest, step)
  if largest >= 1e9 or largest < 1e-3 then
    local n = floor(log10(largest) + 1e-9)
    return 10 ^ n, "", "×" .. M.power(n)
  end
  if largest >= 1e6 and step >= 1e4 then return 1e6, "M" end
  if largest >= 1e4 and step >= 1e2 then return 1e3, "k" end
  return 1, ""
end

--- Ticks at round numbers within lo…hi, at most about `n`.
function M.linear(lo, hi, n)
  local step = M.step(hi - lo, n)
  local first, last = ceil(lo / step - 1e-6), floor(hi / step + 1e-6)
  local values, labels = {}, {}
  local divisor, suffix, factor = abridge(max(abs(first), abs(last), 1) * step, step)
  local d = decimals(step / divisor)
  for k = first, last do
    values[#values + 1] = k * step
    labels[#labels + 1] = fixed(k * step / divisor, d) .. (k == 0 and "" or suffix)
  end
  return {values = values, labels = labels, minor = {}, factor = factor}
end

-- A multiple of a power of ten on an axis that shows few decades.
local function plain_or_power(m, e)
  if e >= -3 and e <= 3 then return M.number(m * 10 ^ e) end
  return (m == 1 and "" or ("%.0f×"):format(m)) .. M.power(e)
end

-- Labels at 1, 2, 5 or 1, 3 times powers of ten, for one or two decades.
local function dense_log(lo, hi, n, multiples)
  local values, labels, minor = {}, {}, {}
  for e = floor(log10(lo) - 1e-9), ceil(log10(hi) + 1e-9) do
    for m = 1, 9 do
      local v = m * 10 ^ e
      if v >= lo * (1 - 1e-9) and v <= hi * (1 + 1e-9) then
        if multiples[m] then
          values[#values + 1], labels[#labels + 1] = v, plain_or_power(m, e)
        else
          minor[#minor + 1] = v
        end
      end
    end
  end
  if #values >= 2 and #values <= n then return {values = values, labels = labels, minor = minor} end
end

-- One label for every `stride` decades.
local function decades(lo, hi, n)
  local first, last = ceil(log10(lo) - 1e-9), floor(log10(hi) + 1e-9)
  local stride = max(1, ceil((last - first + 1) / max(n, 1)))
  local values, labels, minor = {}, {}, {}
  for e = first - 1, last do
    if e % stride == 0 and e >= first then
      values[#values + 1], labels[#labels + 1] = 10 ^ e, M.power(e)
    elseif e >= first then
      minor[#minor + 1] = 10 ^ e
    end
    for m = 2, stride == 1 and last - first < 9 and 9 or 1 do
      local v = m * 10 ^ e
      if v >= lo and v <= hi then minor[#minor + 1] = v end
    end
  end
  return {values = values, labels = labels, minor = minor}
end

--- Ticks of a logarithmic axis from lo to hi (both positive).
function M.log(lo, hi, n)
  local span = log10(hi / lo)
  if span < 0.5 then
    return M.linear(lo, hi, min(n, 6))
  elseif span < 2.2 then
    local ticks = dense_log(lo, hi, min(n, 8), {true, true, nil, nil, true})
      or dense_log(lo, hi, n, {true, nil, true})
    if ticks then return ticks end
  end
  local ticks = decades(lo, hi, min(n, 10))
  return #ticks.values >= 2 and ticks or M.linear(lo, hi, n)
end

return M
