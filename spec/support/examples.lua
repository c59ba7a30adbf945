-- Examples of every operation, family by family: examples[name] is a list of
--   args(r)      the arguments of a call; r draws numbers, see spec/support/draw.lua
--   twin(…)      the same in plain Lua over arrays (spec/support/array.lua), or
--   elementwise  a function of numbers, broadcast
--   tol, tol32   tolerance, absolute and relative, in float64 (1e-11) and float32 (2e-5)
--   grad         false: not for numerical differentiation (too large, or at a kink)
--   check(args, results)  instead of a twin: pairs {got, expected} that must agree; everything as arrays
--   constant     {[i] = true}, or a function of the argument's number and the place in its table: real, but
--                without a derivative
--   through      for the derivative: f(op) gives the function that is checked instead of op(…)
--   grad_results how many of the results carry a gradient (all real ones by default)
-- An operation without examples fails the suite.

local examples = {}
for _, family in ipairs {"pointwise", "move", "reduce", "image", "norm", "attention", "linalg"} do
  local found, list = pcall(require, "spec.support.examples." .. family)
  if found then
    for name, e in pairs(list) do examples[name] = e end
  elseif not tostring(list):find("module 'spec.support.examples." .. family .. "' not found", 1, true) then
    error(list, 0)
  end
end
return examples
