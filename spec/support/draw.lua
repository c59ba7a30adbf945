-- Random operands for examples, from a seed, in a given real type.

local tide = require "tide"

--- draw(seed, dtype): an object with
---   real(shape, from, to, kinks)  uniform in [from, to] (-2, 2 by default), 0.05 or more from each kink
---   integers(shape, from, to, dtype)
---   distinct(shape)               all values at least 0.1 apart
---   constant(table), index(table) tensors of the real type and of int64
return function(seed, dtype)
  local g = tide.generator(seed)
  local r = {dtype = dtype}
  function r.real(shape, from, to, kinks)
    from, to = from or -2, to or 2
    local x = g:rand(shape, "float64") * (to - from) + from
    for _, k in ipairs(kinks or {}) do
      local side = (x - k):ge(0):double() * 2 - 1
      x = tide.where((x - k):abs():lt(0.05), k + side * 0.07, x)
    end
    return x:to(dtype)
  end
  function r.integers(shape, from, to, kind) return g:randint(from, to, shape):to(kind or "int64") end
  function r.distinct(shape)
    local n = 1
    for _, s in ipairs(shape) do n = n * s end
    return (g:randperm(n):double() / 10):reshape(shape):to(dtype)
  end
  function r.constant(values) return tide.tensor(values, dtype) end
  function r.index(values) return tide.tensor(values, "int64") end
  return r
end
