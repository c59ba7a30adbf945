-- tide.nn: modules, layers, losses, initial values.
--
--   local net = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2))
--   local opt = optim.Adam(net:parameters(), {lr = 1e-3})
--   local loss = nn.cross_entropy(net(x), labels)
--   loss:backward()
--   opt:step():zero_grad()
--
-- A module is a plain table that can be called; see nn/module.lua for how to write one.

local M = {init = require "tide.nn.initialise", lora = require "tide.nn.lora", hold = require("tide.nn.pass").hold}

for _, part in ipairs {"module", "layers", "norm", "dropout", "container", "pool", "attention", "loss"} do
  for name, value in pairs(require("tide.nn." .. part)) do M[name] = value end
end

return M
