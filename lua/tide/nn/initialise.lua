-- Initial values of weights. Each function fills a tensor in place from tide's generators and returns it.
--
-- Layouts: a matrix is in×out, an image weight kh×kw×in×out; fan_in is kh·kw·in, fan_out kh·kw·out.

local core = require "tide.core"
local message = require "tide.message"
local options = require "tide.options"
local raise, shape_of = message.raise, message.shape
local random = require "tide.random"
local is_tensor = require("tide.tensor").is_tensor

local M = {}

local function check(fname, t)
  if not is_tensor(t) or (t.dtype ~= "float32" and t.dtype ~= "float64") then
    raise("init.%s: expected a float32 or float64 tensor, got a %s", fname,
      is_tensor(t) and t.dtype or type(t))
  end
  return t
end

-- t with the values of another tensor, outside of any graph.
local function assign(t, values)
  local was = core.recording(false)
  t:copy_(values)
  core.recording(was)
  return t
end

local function drawn(t, how, generator)
  local g = generator or random.default_generator()
  return g[how](g, t.shape, t.dtype)
end

--- fan_in and fan_out of a weight.
function M.fans(t)
  local n = check("fans", t).ndim
  if n < 2 then raise("init.fans: a weight has at least two dims, got shape (%s)", shape_of(t)) end
  local window = 1
  for i = 1, n - 2 do window = window * t:size(i) end
  return window * t:size(n - 1), window * t:size(n)
end

--- All zeros.
function M.zeros(t) return assign(check("zeros", t), 0) end
--- All ones.
function M.ones(t) return assign(check("ones", t), 1) end
--- All of one value.
function M.constant(t, value) return assign(check("constant", t), value) end

--- Uniform in [low, high); defaults 0 and 1.
function M.uniform(t, low, high, generator)
  low, high = low or 0, high or 1
  return assign(check("uniform", t), drawn(t, "rand", generator) * (high - low) + low)
end

--- Normal with the given mean and standard deviation; defaults 0 and 1.
function M.normal(t, mean, std, generator)
  return assign(check("normal", t), drawn(t, "randn", generator) * (std or 1) + (mean or 0))
end

local gains = {linear = 1, conv = 1, sigmoid = 1, tanh = 5 / 3, relu = math.sqrt(2), selu = 3 / 4}

--- The factor by which a nonlinearity asks for larger weights: linear, sigmoid 1; tanh 5/3; relu √2;
--- leaky_relu √(2/(1 + a²)); selu 3/4.
function M.gain(nonlinearity, a)
  if nonlinearity == "leaky_relu" then return math.sqrt(2 / (1 + (a or 0.01) ^ 2)) end
  if not gains[nonlinearity] then
    raise(
      "init.gain: unknown nonlinearity %q, expected linear, conv, sigmoid, tanh, relu, leaky_relu or selu",
      tostring(nonlinearity))
  end
  return gains[nonlinearity]
end

local kaiming_options = {a = 0, mode = "fan_in", nonlinearity = "leaky_relu", generator = options.none}

local function kaiming_std(fname, t, o)
  local fan_in, fan_out = M.fans(check(fname, t))
  if o.mode ~= "fan_in" and o.mode ~= "fan_out" then
    raise("init.%s: mode is %q, expected \"fan_in\" or \"fan_out\"", fname, tostring(o.mode))
  end
  return M.gain(o.nonlinearity, o.a) / math.sqrt(o.mode == "fan_in" and fan_in or fan_out)
end

--- Uniform with standard deviation gain/√fan. Options: a (slope of leaky_relu) 0, mode "fan_in", nonlinearity
--- "leaky_relu", generator. He et al. 2015, "Delving deep into rectifiers".
function M.kaiming_uniform(t, opts)
  local o = options.check("init.kaiming_uniform", opts, kaiming_options)
  local bound = math.sqrt(3) * kaiming_std("kaiming_uniform", t, o)
  return M.uniform(t, -bound, bound, o.generator)
end

--- Normal with standard deviation gain/√fan; options as kaiming_uniform.
function M.kaiming_normal(t, opts)
  local o = options.check("init.kaiming_normal", opts, kaiming_options)
  return M.normal(t, 0, kaiming_std("kaiming_normal", t, o), o.generator)
end

local xavier_options = {gain = 1, generator = options.none}

--- Uniform with standard deviation gain·√(2/(fan_in + fan_out)). Options: gain 1, generator. Glorot and
--- Bengio 2010.
function M.xavier_uniform(t, opts)
  local o = options.check("init.xavier_uniform", opts, xavier_options)
  local fan_in, fan_out = M.fans(check("xavier_uniform", t))
  local bound = o.gain * math.sqrt(6 / (fan_in + fan_out))
  return M.uniform(t, -bound, bound, o.generator)
end

--- Normal with standard deviation gain·√(2/(fan_in + fan_out)); options as xavier_uniform.
function M.xavier_normal(t, opts)
  local o = options.check("init.xavier_normal", opts, xavier_options)
  local fan_in, fan_out = M.fans(check("xavier_normal", t))
  return M.normal(t, 0, o.gain * math.sqrt(2 / (fan_in + fan_out)), o.generator)
end

--- Orthonormal rows or columns (of the matrix of all dims but the last by the last), times gain (1). Gaussian
--- rows orthogonalised by Gram–Schmidt, each twice (Giraud et al. 2005), in float64.
function M.orthogonal(t, opts)
  local o = options.check("init.orthogonal", opts, xavier_options)
  if check("orthogonal", t).ndim < 2 then
    raise("init.orthogonal: expected at least two dims, got shape (%s)", shape_of(t))
  end
  local was = core.recording(false)
  local cols = t:size(-1)
  local rows = t.numel / cols
  local tall = rows > cols
  local n, width = math.min(rows, cols), math.max(rows, cols)
  local g = o.generator or random.default_generator()
  local a = g:randn(n, width, "float64")
  local q = core.zeros(n, width, "float64")
  for i = 1, n do
    local v = core.narrow(a, 1, i, 1)
    for _ = 1, i > 1 and 2 or 0 do
      local done = core.narrow(q, 1, 1, i - 1)
      v = v - core.mm(core.mm(v, core.permute(done, 2, 1)), done)
    end
    core.narrow(q, 1, i, 1):copy_(v / core.norm(v))
  end
  if tall then q = core.permute(q, 2, 1) end
  t:copy_(core.reshape(q * o.gain, t.shape))
  core.recording(was)
  return t
end

return M
