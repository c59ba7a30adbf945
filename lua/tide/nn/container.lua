-- Modules that hold or pass on: Sequential, Identity, Flatten; and the activation functions as modules.

local core = require "tide.core"
local message = require "tide.message"
local flatten = require("tide.tensor").flatten
local Module = require("tide.nn.module").Module
local options = require "tide.options"
local parts = require "tide.nn.parts"

local M = {}

-- ---- Containers ----

local Sequential = Module "Sequential"

local function check_step(i, f)
  local mt = getmetatable(f)
  if type(f) ~= "function" and not (type(f) == "table" and mt and mt.__call) then
    message.raise("Sequential: element %d is a %s, expected a module or a function", i, type(f))
  end
  return f
end

--- nn.Sequential(a, b, …): applies modules or functions one after the other. #s counts them, s[i] is one of
--- them, s:append(m) adds one.
function Sequential:init(...)
  for i = 1, select("#", ...) do self[i] = check_step(i, (select(i, ...))) end
end

function Sequential:append(f)
  self[#self + 1] = check_step(#self + 1, f)
  return self
end

function Sequential:forward(x)
  for i = 1, #self do x = self[i](x) end
  return x
end

local Identity = Module "Identity"

--- nn.Identity(): gives what it is given.
function Identity.forward(_, ...) return ... end

local Flatten = Module "Flatten"

--- nn.Flatten(first = 2, last = -1): dims first..last made one.
function Flatten:init(first, last)
  self.first, self.last = first or 2, last or -1
end

function Flatten:forward(x) return flatten(x, self.first, self.last) end

M.Sequential, M.Identity, M.Flatten = Sequential, Identity, Flatten

-- ---- Activations ----

-- A module without fields that applies an operation.
local function activation(name, f)
  local class = Module(name)
  function class.forward(_, x) return f(x) end
  M[name] = class
end

for name, op in pairs {
  ReLU = "relu", SiLU = "silu", GELU = "gelu", GELUTanh = "gelu_tanh", Tanh = "tanh", Sigmoid = "sigmoid",
  Softplus = "softplus", LogSigmoid = "log_sigmoid", Sin = "sin", Exp = "exp",
} do activation(name, core[op]) end

activation("Softsign", function(x) return x / (core.abs(x) + 1) end)
activation("Mish", function(x) return x * core.tanh(core.softplus(x)) end)
activation("ReLU6", function(x) return core.clamp(x, 0, 6) end)
activation("Hardtanh", function(x) return core.clamp(x, -1, 1) end)

local LeakyReLU = Module "LeakyReLU"

--- nn.LeakyReLU(slope = 0.01): x, times slope where it is negative.
function LeakyReLU:init(slope) self.slope = slope or 0.01 end
function LeakyReLU:forward(x) return core.relu(x) - core.relu(-x) * self.slope end
function LeakyReLU:describe() return ("%g"):format(self.slope) end

local PReLU = Module "PReLU"

--- nn.PReLU(channels = 1, {start = 0.25, dtype}): LeakyReLU whose slopes, one for each channel or one for
--- all, are learnt.
function PReLU:init(channels, opts)
  local o = options.check("PReLU", opts, {start = 0.25, dtype = "float32"})
  self.weight = parts.constant(parts.whole("PReLU", "channels", channels or 1), o.start, o.dtype)
end
function PReLU:forward(x) return core.relu(x) - core.relu(-x) * self.weight end
function PReLU:describe() return ("%d"):format(self.weight.numel) end

local ELU = Module "ELU"

--- nn.ELU(alpha = 1): x, or alpha·(eˣ − 1) where it is negative.
function ELU:init(alpha) self.alpha = alpha or 1 end
function ELU:forward(x) return core.relu(x) + core.expm1(-core.relu(-x)) * self.alpha end
function ELU:describe() return ("%g"):format(self.alpha) end

local Softmax = Module "Softmax"

--- nn.Softmax(dim = -1)
function Softmax:init(dim) self.dim = dim or -1 end
function Softmax:forward(x) return core.softmax(x, self.dim) end

local LogSoftmax = Module("LogSoftmax", Softmax)

--- nn.LogSoftmax(dim = -1)
function LogSoftmax:forward(x) return core.log_softmax(x, self.dim) end

M.LeakyReLU, M.PReLU, M.ELU, M.Softmax, M.LogSoftmax = LeakyReLU, PReLU, ELU, Softmax, LogSoftmax
return M
