-- GMRES on tensors: linear systems whose matrix is known by its products alone. Saad and Schultz 1986, restarted.

local M = {}

local function dot(a, b) return (a * b):sum():item() end

-- Applies the rotations so far to a new column h, adds the one that clears its last entry, and turns the right side g.
local function rotate(h, rotations, g, j)
  for i = 1, j - 1 do
    local c, s = rotations[i].c, rotations[i].s
    h[i], h[i + 1] = c * h[i] + s * h[i + 1], -s * h[i] + c * h[i + 1]
  end
  local r = math.sqrt(h[j] * h[j] + h[j + 1] * h[j + 1])
  local c, s = r == 0 and 1 or h[j] / r, r == 0 and 0 or h[j + 1] / r
  rotations[j] = {c = c, s = s}
  h[j], h[j + 1] = r, 0
  g[j], g[j + 1] = c * g[j], -s * g[j]
end

-- x + Σ y_j basis_j with the triangular system's solution y.
local function combined(x, basis, columns, g, m)
  local y = {}
  for i = m, 1, -1 do
    local sum = g[i]
    for j = i + 1, m do sum = sum - columns[j][i] * y[j] end
    y[i] = columns[i][i] == 0 and 0 or sum / columns[i][i]
  end
  for j = 1, m do x = x + basis[j] * y[j] end
  return x
end

-- At most `most` iterations from x with residual r of norm beta; gives x and how many.
local function cycle(apply, x, r, beta, most, target)
  local basis, columns, rotations, g = {r / beta}, {}, {}, {beta}
  for j = 1, most do
    local w, h = apply(basis[j]), {}
    for i = 1, j do  -- twice is enough
      h[i] = dot(w, basis[i])
      w = w - basis[i] * h[i]
    end
    for i = 1, j do
      local more = dot(w, basis[i])
      h[i] = h[i] + more
      w = w - basis[i] * more
    end
    h[j + 1] = math.sqrt(dot(w, w))
    local last = h[j + 1]
    columns[j] = h
    rotate(h, rotations, g, j)
    if math.abs(g[j + 1]) <= target or last == 0 or j == most then return combined(x, basis, columns, g, j), j end
    basis[j + 1] = w / last
  end
end

--- x with apply(x) = b to a residual of rtol·|b|, for vectors of one dim; the residual's norm over |b|, and the
--- iterations. Options: rtol 1e-10, restart 40, max_iters 400.
function M.gmres(apply, b, opts)
  local o = opts or {}
  local rtol, restart, most = o.rtol or 1e-10, math.min(o.restart or 40, b.numel), o.max_iters or 400
  local x, size, used = b * 0, math.sqrt(dot(b, b)), 0
  if size == 0 then return x, 0, 0 end
  local r = b
  while true do
    local beta = math.sqrt(dot(r, r))
    if beta <= rtol * size or beta ~= beta or used >= most then return x, beta / size, used end
    local count
    x, count = cycle(apply, x, r, beta, math.min(restart, most - used), rtol * size)
    used = used + count
    r = b - apply(x)
  end
end

return M
