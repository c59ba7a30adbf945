-- Mathematical functions in plain Lua, to double precision: what element-wise operations are checked against.

local M = {}

function M.log1p(x)
  local u = 1 + x
  if u == 1 then return x end
  if u == math.huge then return u end
  return math.log(u) * x / (u - 1)
end

function M.expm1(x)
  if math.abs(x) < 1e-5 then return x + x * x / 2 + x * x * x / 6 end
  local u = math.exp(x)
  if u == 1 then return x end
  if math.abs(x) > 1 then return u - 1 end
  return (u - 1) * x / math.log(u)
end

-- erf by its power series, erfc by its continued fraction (Abramowitz and Stegun 7.1.6, 7.1.14).
local function erf_series(x)
  local term, sum, n = x, x, 0
  repeat
    n = n + 1
    term = term * 2 * x * x / (2 * n + 1)
    sum = sum + term
  until math.abs(term) < 1e-18 * math.abs(sum)
  return 2 / math.sqrt(math.pi) * math.exp(-x * x) * sum
end

local function erfc_fraction(x)
  local f = 0
  for n = 120, 1, -1 do f = n / 2 / (x + f) end
  return math.exp(-x * x) / math.sqrt(math.pi) / (x + f)
end

function M.erf(x)
  if x ~= x or x == 0 then return x end
  if math.abs(x) < 2.5 then return erf_series(x) end
  return x > 0 and 1 - erfc_fraction(x) or erfc_fraction(-x) - 1
end

function M.erfc(x)
  if x ~= x then return x end
  if x < 2.5 then return 1 - M.erf(x) end
  return erfc_fraction(x)
end

function M.sigmoid(x) return 1 / (1 + math.exp(-x)) end
function M.softplus(x) return math.max(x, 0) + M.log1p(math.exp(-math.abs(x))) end
function M.sign(x) return x > 0 and 1 or x < 0 and -1 or x end

--- To the nearest whole number, ties to even.
function M.round(x)
  local f = math.floor(x)
  local rest = x - f
  if rest > 0.5 or (rest == 0.5 and f % 2 == 1) then return f + 1 end
  return f
end
function M.trunc(x) return x < 0 and math.ceil(x) or math.floor(x) end

return M
