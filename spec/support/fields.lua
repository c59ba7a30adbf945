-- What specs of gradients through solves share: float64 vectors, two fields, exact gradients beside differences.

local tide = require "tide"
local M = {}

function M.vector(...) return tide.tensor({...}, "float64") end
function M.leaf(...) return M.vector(...):requires_grad() end

--- Two components, with time and parameters in every term.
function M.wavy(p)
  return function(t, y)
    return (y * p):sin() * (t * 1.3):cos() - y ^ 3 * 0.1 + p:sum() * t * 0.2 - y:flip(1) * p
  end
end

--- Separable: each half moves by the other.
function M.swing(p)
  return function(t, y)
    local q, v = y:narrow(1, 1, 1), y:narrow(1, 2, 1)
    return tide.cat({(v * p[1]):sin() + t:cos() * 0.2, -(q * p[2]):sin() + (t * 2):sin() * q:cos() * 0.3}, 1)
  end
end

--- The message of the first gradient of loss(y0, p, times) that differences of fourth order put off by `bound` or more;
--- nil when there is none. starts: the three lists of numbers, grads: the gradients there. The first time is left out.
function M.off_by_differences(loss, starts, grads, bound)
  for which, values in ipairs(starts) do
    for i = which == 3 and 2 or 1, #values do
      local function at(h)
        local moved = {}
        for k, v in ipairs(starts) do moved[k] = M.vector(unpack(v)) end
        moved[which][i] = moved[which][i] + h
        return loss(unpack(moved)):item()
      end
      local h, got = 1e-3, grads[which][i]:item()
      local fd = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
      local off = math.abs(fd - got) / (math.abs(fd) + 1e-2)
      if off >= bound or off ~= off then
        return ("%d[%d]: %.12g, by differences %.12g"):format(which, i, got, fd)
      end
    end
  end
end

--- The options o and more, which goes before.
function M.with(o, more)
  local all = {}
  for k, v in pairs(o) do all[k] = v end
  for k, v in pairs(more) do all[k] = v end
  return all
end

--- The names of all explicit Runge–Kutta methods, in order.
function M.explicit_methods()
  local names = {}
  for name, m in pairs(tide.ode.methods) do
    if m.family == "explicit Runge–Kutta" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

return M
