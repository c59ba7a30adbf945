-- Functions of plain numbers that lose no digits near 0.

local M = {}
local exp, log = math.exp, math.log

--- e^z − 1 (Kahan's correction of the rounding in e^z).
function M.expm1(z)
  local u = exp(z)
  if u == 1 then return z end
  if u - 1 == -1 or u == math.huge then return u - 1 end
  return (u - 1) * z / log(u)
end

--- log(1 + z), in the same way.
function M.log1p(z)
  local u = 1 + z
  if u == 1 then return z end
  return log(u) * z / (u - 1)
end

--- log(1 + e^z).
function M.softplus(z)
  if z > 0 then return z + M.log1p(exp(-z)) end
  return M.log1p(exp(z))
end

--- (e^z − 1)/z − 1 = z/2 + z²/6 + …; by its series where the difference would lose digits.
function M.phi(z)
  if math.abs(z) > 0.5 then return M.expm1(z) / z - 1 end
  return M.series(z, 1)
end

--- z^n/(n+1)! summed from n = first on.
function M.series(z, first)
  local term, sum = 1, 0
  for k = 1, first do term = term * z / (k + 1) end
  for k = first + 1, first + 60 do
    sum = sum + term
    term = term * z / (k + 1)
    if math.abs(term) <= 1e-18 * math.abs(sum) then break end
  end
  return sum
end

--- ∫₀ʰ zⁿ e^z dz, by a series of positive terms (h > 0).
function M.moment(n, h)
  local power, sum = h ^ (n + 1), 0
  for k = 0, 1000 do
    local term = power / (n + 1 + k)
    sum = sum + term
    if term <= 1e-18 * sum then break end
    power = power * h / (k + 1)
  end
  return sum
end

return M
