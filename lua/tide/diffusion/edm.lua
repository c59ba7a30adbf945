-- Preconditioning of Karras et al. 2022, table 1: a network that sees x scaled to unit spread becomes one that predicts
-- x0 on a schedule with α = 1, whose times are ¼·log σ.

local core = require "tide.core"
local embedding = require "tide.diffusion.embedding"
local message = require "tide.message"
local Module = require("tide.nn.module").Module
local options = require "tide.options"
local values = require "tide.values"

local M = {}

local EDM = Module "EDM"

local rules = {sigma_data = values.positive, prediction = values.one_of("epsilon", "v")}

--- diffusion.EDM(net, {sigma_data = 0.5, prediction = "epsilon"}): see doc/api/diffusion_networks.lua.
function EDM:init(net, opts)
  local o = values.check("EDM", options.check("EDM", opts, {sigma_data = 0.5, prediction = "epsilon"}), rules)
  if type(net) ~= "table" then message.raise("EDM: the network is a %s, expected a module", type(net)) end
  self.net, self.sigma_data, self.prediction = net, o.sigma_data, o.prediction
end

-- c_skip·x + c_out·net(c_in·x, t, condition). v is the network's value with the other sign, as diffusers has it.
function EDM:forward(x, t, condition)
  local shape = {-1}
  for i = 2, x.ndim do shape[i] = 1 end
  local sigma = core.reshape(core.exp(embedding.times("EDM", t, x.dtype) * 4), shape)
  local spread = self.sigma_data
  local total = core.square(sigma) + spread ^ 2
  local root = core.sqrt(total)
  local f = self.net(x / root, t, condition)
  return x * (spread ^ 2 / total) + f * (sigma * (self.prediction == "v" and -spread or spread) / root)
end

function EDM:describe() return ("data of spread %g, predicts x0"):format(self.sigma_data) end

M.EDM = EDM
return M
