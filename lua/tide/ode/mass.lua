-- M y' = f for methods that take no mass matrix: y' = M⁻¹ f, where M is not singular.

local core = require "tide.core"
local is_tensor = require("tide.tensor").is_tensor

local M = {}

--- M⁻¹ of a float64 matrix, or of the numbers of a diagonal; nil where it is singular, nearly or quite.
function M.inverse(mass)
  if mass.ndim == 1 then
    local size = mass:abs()
    return size:min():item() > 1e-14 * size:max():item() and core.contiguous(1 / mass) or nil
  end
  local ok, inverse = pcall(core.inv, mass)
  if not ok or not inverse:isfinite():all():item() then return nil end
  local condition = mass:abs():sum(2):max():item() * inverse:abs():sum(2):max():item()
  return condition < 1e14 and inverse or nil
end

local function of_tensors(f, inverse, dtype)
  local by = core.contiguous(core.to(inverse.ndim == 2 and inverse:t() or inverse, dtype))
  return function(t, y, rows)
    local dy = f(t, y, rows)
    if not is_tensor(dy) then return dy end
    local flat = core.reshape(dy, {rows and rows.numel or 1, -1})
    return core.reshape(by.ndim == 2 and flat:matmul(by) or flat * by, dy.shape)
  end
end

-- Tables of numbers, or of what counts like them.
local function of_tables(f, inverse)
  local m, diagonal = inverse:totable(), inverse.ndim == 1
  return function(t, y)
    local dy = f(t, y)
    if type(dy) ~= "table" or #dy ~= #m then return dy end
    local out = {}
    for i = 1, #m do
      if diagonal then
        out[i] = dy[i] * m[i]
      else
        local sum = dy[1] * m[i][1]
        for j = 2, #m do sum = sum + dy[j] * m[i][j] end
        out[i] = sum
      end
    end
    return out
  end
end

--- M⁻¹ f for f as the core calls it, on states of that form (nil: tensors of that type; of a batch with the rows). f
--- itself without an inverse.
function M.solved(f, inverse, form, dtype)
  if not inverse then return f end
  if form == "table" then return of_tables(f, inverse) end
  if form == "number" then
    local m = inverse:sum():item()
    return function(t, y)
      local dy = f(t, y)
      return dy and dy * m
    end
  end
  return of_tensors(f, inverse, dtype)
end

return M
