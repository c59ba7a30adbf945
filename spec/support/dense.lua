-- Small dense matrices as tables of rows, for coefficients.

local M = {}

function M.identity(n, scale)
  local out = {}
  for i = 1, n do
    out[i] = {}
    for j = 1, n do out[i][j] = i == j and (scale or 1) or 0 end
  end
  return out
end

function M.product(a, b)
  local out = {}
  for i = 1, #a do
    out[i] = {}
    for j = 1, #b[1] do
      local sum = 0
      for k = 1, #b do sum = sum + a[i][k] * b[k][j] end
      out[i][j] = sum
    end
  end
  return out
end

function M.sum(a, b, scale)
  local out = {}
  for i = 1, #a do
    out[i] = {}
    for j = 1, #a[1] do out[i][j] = a[i][j] + (scale or 1) * b[i][j] end
  end
  return out
end

--- The inverse of a lower triangular matrix.
function M.lower_inverse(a)
  local n, out = #a, {}
  for i = 1, n do out[i] = {} end
  for j = 1, n do
    for i = 1, n do
      local sum = i == j and 1 or 0
      for k = j, i - 1 do sum = sum - a[i][k] * out[k][j] end
      out[i][j] = i < j and 0 or sum / a[i][i]
    end
  end
  return out
end

--- wᵀ·a
function M.row_times(w, a) return M.product({w}, a)[1] end

function M.row_sum(row)
  local sum = 0
  for _, v in ipairs(row) do sum = sum + v end
  return sum
end

return M
