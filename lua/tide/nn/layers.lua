-- Layers with weights: affine maps, convolutions, embeddings. Images are N×H×W×C.

local core = require "tide.core"
local initialise = require "tide.nn.initialise"
local matmul = require("tide.tensor").matmul
local message = require "tide.message"
local Module = require("tide.nn.module").Module
local options = require "tide.options"
local parts = require "tide.nn.parts"

local M = {}
local raise, shape_of = message.raise, message.shape

-- ---- Linear ----

local Linear = Module "Linear"

--- nn.Linear(inputs, outputs, {bias = true, dtype = "float32", generator}): y = x·weight + bias over the last
--- dim of x. weight is inputs×outputs, bias outputs; both start uniform in ±1/√inputs.
function Linear:init(inputs, outputs, opts)
  local o = options.check("Linear", opts, {bias = true, dtype = "float32", generator = options.none})
  self.inputs = parts.whole("Linear", "inputs", inputs)
  self.outputs = parts.whole("Linear", "outputs", outputs)
  self.weight, self.bias = parts.affine({inputs, outputs}, outputs, o)
end

function Linear:forward(x)
  local y = matmul(x, self.weight)
  local bias = self.bias
  return bias and y + bias or y
end

function Linear:describe()
  return ("%d → %d%s"):format(self.inputs, self.outputs, self.bias and "" or ", no bias")
end

-- ---- Convolutions ----

local conv_options = {
  stride = 1, padding = 0, dilation = 1, groups = 1, bias = true, dtype = "float32", generator = options.none,
}

-- Sets what both convolutions have: channels, kernel, stride, padding, dilation, groups.
local function read_geometry(self, name, inputs, outputs, kernel, o)
  self.inputs, self.outputs = parts.whole(name, "inputs", inputs), parts.whole(name, "outputs", outputs)
  self.kernel = parts.pair(name, "kernel", kernel)
  self.stride = parts.pair(name, "stride", o.stride)
  self.dilation = parts.pair(name, "dilation", o.dilation)
  self.groups = parts.whole(name, "groups", o.groups)
  if inputs % o.groups ~= 0 or outputs % o.groups ~= 0 then
    raise("%s: %d groups do not divide %d inputs and %d outputs", name, o.groups, inputs, outputs)
  end
  self.padding = o.padding ~= "same" and parts.pair(name, "padding", o.padding, 0) or {}
end

local function describe_conv(self)
  local text = ("%d → %d, %s"):format(self.inputs, self.outputs, parts.pair_text(self.kernel))
  for _, what in ipairs {"stride", "padding", "dilation", "output_padding"} do
    local p, usual = self[what], what:find("padding") and 0 or 1
    if p and (p[1] ~= usual or p[2] ~= usual) then
      text = ("%s, %s %s"):format(text, what:gsub("_", " "), p[1] == p[2] and p[1] or parts.pair_text(p))
    end
  end
  if self.groups > 1 then text = ("%s, %d groups"):format(text, self.groups) end
  return self.bias and text or text .. ", no bias"
end

local Conv2d = Module "Conv2d"

--- nn.Conv2d(inputs, outputs, kernel, {stride = 1, padding = 0, dilation = 1, groups = 1, bias = true, dtype,
--- generator}): convolution of N×H×W×inputs images; kernel, stride, padding, dilation are one number or
--- {vertical, horizontal}. padding = "same" keeps the size at stride 1 (odd kernels). weight is
--- kh×kw×(inputs/groups)×outputs, bias outputs; both start uniform in ±1/√(kh·kw·inputs/groups).
function Conv2d:init(inputs, outputs, kernel, opts)
  local o = options.check("Conv2d", opts, conv_options)
  read_geometry(self, "Conv2d", inputs, outputs, kernel, o)
  if o.padding == "same" then
    for i = 1, 2 do
      if self.kernel[i] % 2 == 0 or self.stride[i] ~= 1 then
        raise("Conv2d: padding \"same\" needs odd kernels and stride 1, got kernel %d and stride %d",
          self.kernel[i], self.stride[i])
      end
      self.padding[i] = self.dilation[i] * (self.kernel[i] - 1) / 2
    end
  end
  local shape = {self.kernel[1], self.kernel[2], inputs / o.groups, outputs}
  self.weight, self.bias = parts.affine(shape, outputs, o)
end

function Conv2d:forward(x)
  return core.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
end

Conv2d.describe = describe_conv

local ConvTranspose2d = Module "ConvTranspose2d"

--- nn.ConvTranspose2d(inputs, outputs, kernel, {stride, padding, output_padding = 0, dilation, groups, bias,
--- dtype, generator}): the transpose of the convolution with the same options that takes `outputs` channels
--- to `inputs`. A size n becomes (n − 1)·stride − 2·padding + dilation·(kernel − 1) + output_padding + 1.
--- weight is kh×kw×(outputs/groups)×inputs, that convolution's own layout; both start uniform in
--- ±1/√(kh·kw·outputs/groups).
function ConvTranspose2d:init(inputs, outputs, kernel, opts)
  local known = {output_padding = 0}
  for key, value in pairs(conv_options) do known[key] = value end
  local o = options.check("ConvTranspose2d", opts, known)
  if o.padding == "same" then raise("ConvTranspose2d: padding is \"same\", expected one number or two") end
  read_geometry(self, "ConvTranspose2d", inputs, outputs, kernel, o)
  self.output_padding = parts.pair("ConvTranspose2d", "output_padding", o.output_padding, 0)
  for i = 1, 2 do
    if self.output_padding[i] >= math.max(self.stride[i], self.dilation[i]) then
      raise("ConvTranspose2d: output_padding %d, expected less than the stride or the dilation",
        self.output_padding[i])
    end
  end
  local shape = {self.kernel[1], self.kernel[2], outputs / o.groups, inputs}
  self.weight, self.bias = parts.affine(shape, outputs, o)
end

function ConvTranspose2d:forward(x)
  local sizes = {}
  for i = 1, 2 do
    local span = self.dilation[i] * (self.kernel[i] - 1) + 1
    sizes[i] = (x:size(i + 1) - 1) * self.stride[i] - 2 * self.padding[i] + span + self.output_padding[i]
    if sizes[i] < 1 then
      raise("ConvTranspose2d: an input of shape (%s) gives an image of size %d", shape_of(x), sizes[i])
    end
  end
  local y = core.conv2d_input_grad(x, self.weight, self.stride, self.padding, self.dilation, self.groups,
    sizes[1], sizes[2])
  return self.bias and y + self.bias or y
end

ConvTranspose2d.describe = describe_conv

-- ---- Embedding ----

local Embedding = Module "Embedding"

--- nn.Embedding(count, size, {dtype, generator}): row i of weight (count×size, standard normal at first) for
--- every element i (1..count) of an int64 tensor; the result has one more dim.
function Embedding:init(count, size, opts)
  local o = options.check("Embedding", opts, {dtype = "float32", generator = options.none})
  self.entries, self.size = parts.whole("Embedding", "count", count), parts.whole("Embedding", "size", size)
  self.weight = initialise.normal(parts.parameter({count, size}, o.dtype), 0, 1, o.generator)
end

function Embedding:forward(index)
  local shape = index.shape
  shape[#shape + 1] = self.size
  return core.reshape(core.index_select(self.weight, core.reshape(index, -1), 1), shape)
end

function Embedding:describe() return ("%d entries of %d"):format(self.entries, self.size) end

M.Linear, M.Conv2d, M.ConvTranspose2d, M.Embedding = Linear, Conv2d, ConvTranspose2d, Embedding
return M
