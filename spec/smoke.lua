-- The C module in another Lua: loads, computes, differentiates, solves. Run by `make puc VERSION=…`.
unpack = unpack or table.unpack  -- luacheck: ignore
local tide = require "tide"
local x = tide.tensor {{1, 2}, {3, 4}}
x:requires_grad()
local loss = (x * x):sum()
loss:backward()
assert(loss:item() == 30)
assert(tide.equal(x.grad, x:detach() * 2))
local sol = tide.ode.solve(function(_, y) return {y[2], -y[1]} end, {1, 0}, {0, 1})
assert(math.abs(sol.last[1] - math.cos(1)) < 1e-5)
local ok, message = pcall(tide.mm, x, tide.ones(3, 3))
assert(not ok and message:find("inner sizes differ", 1, true))
print(("%s: tide loads, computes, differentiates and solves"):format(_VERSION))
