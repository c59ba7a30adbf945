-- SGD, Adam and AdamW: each step is one fused pass over a parameter, its state and its gradient.

local core = require "tide.core"
local raise = require("tide.message").raise
local optimiser = require "tide.optim.optimiser"

local M = {}
local kernels = core.optim
local huge = math.huge

local function zeros_like(p) return core.zeros(p.shape, p.dtype) end

-- ---- SGD ----

--- optim.SGD(params, {lr = 0.01, momentum = 0, dampening = 0, nesterov = false, weight_decay = 0}): v ←
--- momentum·v + (1 − dampening)·g, at first v = g; p ← p − lr·v, or with nesterov p − lr·(g + momentum·v). g
--- is the gradient + weight_decay·p. params: a table of tensors, or of groups {params = …, lr = …, …}.
--- Sutskever et al. 2013, with the rate outside of the velocity.
local SGD = optimiser.class("SGD",
  {lr = 0.01, momentum = 0, dampening = 0, nesterov = false, weight_decay = 0},
  function(name, o)
    optimiser.check_ranges(name, o, {
      lr = {0, huge}, momentum = {0, huge}, dampening = {-huge, huge}, weight_decay = {0, huge},
    })
    if o.nesterov and (o.momentum == 0 or o.dampening ~= 0) then
      raise("%s: nesterov needs a momentum above 0 and no dampening", name)
    end
  end)

function SGD.update(_, group, p, state)
  local first = false
  if group.momentum ~= 0 and not state.velocity then
    if not p.grad then return end
    state.velocity = zeros_like(p)
    first = true
  end
  kernels.sgd_step(p, state.velocity, group.lr, group.momentum, group.dampening, group.weight_decay,
    group.nesterov, first)
end

-- ---- Adam ----

local function check_adam(name, o)
  optimiser.check_ranges(name, o, {lr = {0, huge}, eps = {0, huge}, weight_decay = {0, huge}})
  local betas = o.betas
  if type(betas) ~= "table" or #betas ~= 2 then
    raise("%s: betas are %s, expected two numbers such as {0.9, 0.999}", name, tostring(betas))
  end
  for i = 1, 2 do
    if type(betas[i]) ~= "number" or not (betas[i] >= 0 and betas[i] < 1) then
      raise("%s: beta %d is %s, expected a number from 0 to below 1", name, i, tostring(betas[i]))
    end
  end
end

local function adam_update(self, group, p, state)
  if not state.m then
    if not p.grad then return end
    state.m, state.v, state.step = zeros_like(p), zeros_like(p), 0
  end
  local betas = group.betas
  if kernels.adam_step(p, state.m, state.v, group.lr, betas[1], betas[2], group.eps, group.weight_decay,
    self.decoupled, state.step + 1) then
    state.step = state.step + 1
  end
end

--- optim.Adam(params, {lr = 1e-3, betas = {0.9, 0.999}, eps = 1e-8, weight_decay = 0}): m and v average g and
--- g²; p ← p − lr·m̂/(√v̂ + eps), where m̂ = m/(1 − beta1^t) and v̂ = v/(1 − beta2^t). g is the gradient +
--- weight_decay·p. Kingma and Ba 2015.
local Adam = optimiser.class("Adam",
  {lr = 1e-3, betas = {0.9, 0.999}, eps = 1e-8, weight_decay = 0}, check_adam)
Adam.decoupled = false
Adam.update = adam_update

--- optim.AdamW(params, {lr = 1e-3, betas, eps, weight_decay = 0.01}): Adam, with the decay apart from the
--- gradient: p ← (1 − lr·weight_decay)·p first. Loshchilov and Hutter 2019.
local AdamW = optimiser.class("AdamW",
  {lr = 1e-3, betas = {0.9, 0.999}, eps = 1e-8, weight_decay = 0.01}, check_adam)
AdamW.decoupled = true
AdamW.update = adam_update

M.SGD, M.Adam, M.AdamW = SGD, Adam, AdamW
return M
