-- The slow twins of ode.solve: Runge–Kutta steps on a given grid, made of tensor operations so that tide.grad
-- differentiates them; and the adaptive loop in plain numbers.

local tide = require "tide"
local core = require "tide.core"

local M = {}

local function combination(y, h, w, k)
  for i = 1, #w do
    if w[i] ~= 0 then y = y + k[i] * (h * w[i]) end
  end
  return y
end

-- Value of the extension at the 0-d tensor `at`; θ enters to first order, so that gradients flow to its
-- parts.
local function between(m, f, t, h, y, y1, k, at, number)
  local w, dw = core.ode_dense(m.name, (number(at) - number(t)) / number(h))
  for i = #k + 1, #w do
    local row, c = m.extended[i], 0
    for j = 1, i - 1 do c = c + row[j] end
    local is_end = i == m.stages + 1 and not m.fsal
    k[i] = f(t + h * c, is_end and y1 or combination(y, h, row, k))
  end
  local shift = (at - t) / h - (number(at) - number(t)) / number(h)
  local weights = {}
  for i = 1, #w do weights[i] = shift * dw[i] + w[i] end
  local value = y
  for i = 1, #w do value = value + k[i] * (h * weights[i]) end
  return value
end

--- How much rounding the coefficients of m amplify, beside ordinary methods: for tolerances.
function M.noise(m)
  local most = 1
  for i = 1, m.stages do
    for j = 1, i - 1 do most = math.max(most, math.abs(m.a[i][j])) end
  end
  return most > 100 and 1000 or 1
end

local function number_of(x) return tide.is_tensor(x) and x:item() or x end

--- Values at the times ts (a float64 tensor, ascending or descending) of m over the nodes (numbers), of which
--- the first and the last are replaced by the ends of ts, so that gradients flow to them.
function M.on_grid(m, f, y0, nodes, ts)
  local n, nt, y, rows, next_row = #nodes - 1, ts.numel, y0, {}, 1
  while next_row <= nt and ts[next_row]:item() == nodes[1] do
    rows[next_row] = y
    next_row = next_row + 1
  end
  local direction = nodes[n + 1] > nodes[1] and 1 or -1
  for s = 1, n do
    local t = s == 1 and ts[1] or tide.tensor(nodes[s], "float64")
    local stop = s == n and ts[nt] or tide.tensor(nodes[s + 1], "float64")
    local h, k = stop - t, {}
    for i = 1, m.stages do
      k[i] = f(t + h * m.c[i], combination(y, h, m.a[i], k))
    end
    local y1 = combination(y, h, m.b, k)
    while next_row <= nt and direction * (ts[next_row]:item() - nodes[s + 1]) <= 0 do
      local at_end = s == n and ts[next_row]:item() == nodes[n + 1]
      rows[next_row] = at_end and y1 or between(m, f, t, h, y, y1, k, ts[next_row], number_of)
      next_row = next_row + 1
    end
    y = y1
  end
  return tide.stack(rows, 1)
end

--- The adaptive loop for one number: the accepted times, and the number of rejected steps. o: rtol, atol,
--- controller, first_step; dopri5-like methods.
function M.adaptive(m, f, y0, t0, t1, o)
  local c, q = o.controller, m.error_order + 1
  local t, y, h, grid, rejections = t0, y0, o.first_step, {t0}, 0
  local before, earlier, rejected = 1, 1, false
  local h1, h2  -- sizes of the last accepted steps
  while t < t1 do
    local cut = h > t1 - t
    local stop = h * (1 + 1e-10) >= t1 - t and t1 or t + h
    local size, k = stop - t, {}
    for i = 1, m.stages do
      local stage = y
      for j = 1, i - 1 do stage = stage + size * m.a[i][j] * k[j] end
      k[i] = f(t + m.c[i] * size, stage)
    end
    local y1, err = y, 0
    for i = 1, m.stages do y1, err = y1 + size * m.b[i] * k[i], err + size * m.e[i] * k[i] end
    err = math.abs(err) / (o.atol + o.rtol * math.max(math.abs(y), math.abs(y1)))
    if err <= 1 then
      err = math.max(err, 1e-10)
      local factor = c.safety * err ^ (-c.k1 / q) * before ^ (-c.k2 / q) * earlier ^ (-c.k3 / q)
      if h1 then factor = factor * (size / h1) ^ (c.k4 or 0) end
      if h2 then factor = factor * (h1 / h2) ^ (c.k5 or 0) end
      local grow = #grid == 1 and (c.first_grow or 0) > 0 and c.first_grow or c.grow
      factor = math.max(c.keep_after_accept and 1 or c.shrink, math.min(grow, factor))
      if rejected and c.hold_after_reject then factor = math.min(factor, 1) end
      before, earlier, rejected = err, before, false
      h1, h2 = size, h1
      t, y, h = stop, y1, cut and h or size * factor
      grid[#grid + 1] = t
    elseif err ~= err or err == math.huge then
      h1, h2 = nil, nil
      before, earlier, rejected, h, rejections = 1, 1, true, size * c.shrink, rejections + 1
    else
      rejected, rejections = true, rejections + 1
      h = size * math.min(c.safety, math.max(c.shrink, c.safety * err ^ (-1 / q)))
    end
  end
  return grid, rejections
end

return M
