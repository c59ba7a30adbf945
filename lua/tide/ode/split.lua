-- Right-hand sides in two halves, f = {explicit = …, implicit = …}: methods with an additive pair of tableaux take the
-- first one explicitly and solve for the second; all others see the sum.

local raise = require("tide.message").raise

local M = {}

--- Is f in halves? Raises where only one is there.
function M.is(f)
  if type(f) ~= "table" or (f.explicit == nil and f.implicit == nil) then return false end
  for _, name in ipairs {"explicit", "implicit"} do
    local meta = type(f[name]) == "table" and getmetatable(f[name])
    if type(f[name]) ~= "function" and not (meta and meta.__call) then
      raise("ode.solve: f.%s is a %s, expected a function f(t, y)", name, type(f[name]))
    end
  end
  return true
end

--- Has the method, an entry of ode.methods, an explicit tableau beside the implicit one?
function M.additive(method) return method.dirk ~= nil and method.dirk.easy ~= nil end

--- The sum of two right-hand sides on states of that form: tables of numbers, or what can be added.
function M.sum(a, b, form)
  return function(t, y, ...)
    local u, v = a(t, y, ...), b(t, y, ...)
    if u == false or v == false then return false end
    if form ~= "table" then return u + v end
    if type(u) ~= "table" or type(v) ~= "table" or #u ~= #v then
      raise("ode.solve: the halves of f gave %s and %s, expected two tables of %d numbers", type(u), type(v), #y)
    end
    local out = {}
    for i = 1, #u do out[i] = u[i] + v[i] end
    return out
  end
end

return M
