-- The networks of tide.diffusion against diffusers' own (values stored by bench/peers/diffusers_networks.py), their
-- parameter counts, and what they say to wrong input.

require "spec.helper"
local layout = require "tide.diffusion.layout"
local tide = require "tide"

local diffusion = tide.diffusion

-- n numbers between -1 and 1 that do not repeat: the same formula as in the script.
local function wave(n, k)
  local list = {}
  for i = 0, n - 1 do list[i + 1] = math.sin(0.7 * i * (1 + 0.01 * k) + 1.3 * k) end
  return tide.tensor(list, "float64")
end

-- Weights from the script's formula, tensor k in the order of PyTorch's names.
local function fill(model)
  tide.no_grad(function()
    for k, entry in ipairs(layout.tensors(model)) do
      local shape = layout.shape_there(entry)
      local values = wave(entry.tensor.numel, k - 1)
      if #shape > 1 then
        values = values * (1.4 / math.sqrt(entry.tensor.numel / shape[1]))
      elseif entry.there:match "%.weight$" then
        values = values * 0.2 + 1
      else
        values = values * 0.2
      end
      entry.tensor:copy_(layout.here(entry, values:reshape(shape)))
    end
  end)
  return model
end

local tiny = {
  ddpm = {"UNet2DModel", 64483, {sample_size = 8, block_out_channels = {8, 16}, norm_num_groups = 4,
    down_block_types = {"DownBlock2D", "AttnDownBlock2D"}, up_block_types = {"AttnUpBlock2D", "UpBlock2D"},
    flip_sin_to_cos = false, freq_shift = 1, downsample_padding = 0, norm_eps = 1e-6, attention_head_dim = false}},
  classes = {"UNet2DModel", 59690, {sample_size = 8, in_channels = 1, out_channels = 2,
    block_out_channels = {8, 8, 16}, layers_per_block = 1, norm_num_groups = 4,
    down_block_types = {"DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"},
    up_block_types = {"ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"}, num_class_embeds = 5,
    attention_head_dim = 4, resnet_time_scale_shift = "scale_shift", downsample_type = "resnet",
    upsample_type = "resnet", center_input_sample = true, act_fn = "gelu"}},
  condition = {"UNet2DConditionModel", 51684, {sample_size = 8, block_out_channels = {8, 16}, layers_per_block = 1,
    norm_num_groups = 4, down_block_types = {"CrossAttnDownBlock2D", "DownBlock2D"},
    up_block_types = {"UpBlock2D", "CrossAttnUpBlock2D"}, cross_attention_dim = 12, attention_head_dim = 2}},
  deep = {"UNet2DConditionModel", 186932, {sample_size = 6, block_out_channels = {8, 16, 16}, norm_num_groups = 8,
    down_block_types = {"DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"},
    up_block_types = {"CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}, cross_attention_dim = 10,
    attention_head_dim = {2, 4, 8}, transformer_layers_per_block = {1, 2, 1}, use_linear_projection = true,
    mid_block_scale_factor = 1.5, act_fn = "gelu", num_class_embeds = 3}},
  fourier = {"UNet2DModel", 45515, {sample_size = 8, block_out_channels = {8, 16}, layers_per_block = 1,
    norm_num_groups = 4, down_block_types = {"DownBlock2D", "AttnDownBlock2D"},
    up_block_types = {"AttnUpBlock2D", "UpBlock2D"}, attention_head_dim = 8, time_embedding_type = "fourier"}},
  fourier_condition = {"UNet2DConditionModel", 49220, {sample_size = 8, block_out_channels = {8, 16},
    layers_per_block = 1, norm_num_groups = 4, down_block_types = {"CrossAttnDownBlock2D", "DownBlock2D"},
    up_block_types = {"UpBlock2D", "CrossAttnUpBlock2D"}, cross_attention_dim = 12, attention_head_dim = 2,
    time_embedding_type = "fourier"}},
  dit = {"DiT", 19580, {sample_size = 8, in_channels = 3, num_layers = 2, num_attention_heads = 2,
    attention_head_dim = 8, num_embeds_ada_norm = 4}},
}

local function tiny_model(name, dtype)
  local config = {dtype = dtype or "float64"}
  for key, value in pairs(tiny[name][3]) do config[key] = value end
  return diffusion[tiny[name][1]](config)
end

-- The inputs that the script gave, as arguments of the model; the condition's vectors apart.
local function inputs_of(name)
  local c = tiny[name][3]
  local channels = c.in_channels or (tiny[name][1] == "UNet2DConditionModel" and 4 or 3)
  local x = wave(2 * c.sample_size ^ 2 * channels, 1):reshape(2, c.sample_size, c.sample_size, channels)
  local t = tide.tensor({3, 421}, "float64")
  local classes = (c.num_class_embeds or c.num_embeds_ada_norm) and tide.tensor({2, 3}, "int64") or nil
  if not c.cross_attention_dim then return x:requires_grad(), t, classes end
  local vectors = wave(2 * 5 * c.cross_attention_dim, 2):reshape(2, 5, c.cross_attention_dim):requires_grad()
  return x:requires_grad(), t, {vectors, class = classes}, vectors
end

describe("networks against diffusers", function()
  -- diffusers has the sines and cosines of times in float32 whatever the type of the network: hence 1e-5
  local stored = assert(tide.io.load_safetensors "spec/data/diffusers_networks.safetensors")

  for name, case in pairs(tiny) do
    it(("%s: result, gradients of image, condition and weights are those of the %s"):format(name, case[1]), function()
      local model = fill(tiny_model(name))
      assert.are.equal(case[2], model:count())
      local x, t, condition, vectors = inputs_of(name)
      local y = model(x, t, condition)
      assert.close(y, stored[name .. ".y"]:double(), 1e-5)
      y:backward(wave(y.numel, 3):reshape(y.shape))
      assert.close(x.grad, stored[name .. ".dx"]:double(), 1e-5)
      if vectors then assert.close(vectors.grad, stored[name .. ".dcondition"]:double(), 1e-5) end
      local products = {}
      for k, entry in ipairs(layout.tensors(model)) do
        local p
        for own, parameter in model:named_parameters() do
          if own == entry.name then p = parameter end
        end
        local g = p and p.grad and layout.there(entry, p.grad):reshape(-1)
        products[k] = g and (g * wave(g.numel, 4)):sum():item() or 0
      end
      local expected = stored[name .. ".d"]:double()
      local scale = expected:abs():max():item()
      assert.close(tide.tensor(products, "float64") / scale, expected / scale, 1e-5)
    end)
  end
end)

describe("networks in full size", function()
  it("have the parameters of google/ddpm-cifar10-32", function()
    local net = diffusion.UNet2DModel {block_out_channels = {128, 256, 256, 256}, attention_head_dim = false,
      down_block_types = {"DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"},
      up_block_types = {"UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"}, downsample_padding = 0,
      flip_sin_to_cos = false, freq_shift = 1, norm_eps = 1e-6}
    assert.are.equal(35746307, net:count())
  end)
end)

describe("a mask of the condition's vectors", function()
  it("hides them from each image, or from all", function()
    local net = fill(tiny_model "condition")
    local x, c = tide.randn({2, 8, 8, 4}, "float64"), tide.randn({2, 5, 12}, "float64")
    local mask = tide.tensor({{1, 1, 1, 0, 0}, {1, 1, 1, 1, 1}}, "uint8")
    local y = net(x, 3, {c, mask = mask})
    assert.close(y[{{1, 1}}], net(x[{{1, 1}}], 3, c[{{1, 1}, {1, 3}}]), 1e-12)
    assert.close(y[{{2, 2}}], net(x[{{2, 2}}], 3, c[{{2, 2}}]), 1e-12)
    assert.close(net(x, 3, {c, mask = mask[1]}), net(x, 3, c[{{}, {1, 3}}]), 1e-12)
    assert.close(net(x, 3, {c, mask = mask:reshape(2, 1, 5)}), y, 0)
    local added = (mask:double() - 1) * 1e4
    assert.close(net(x, 3, {c, mask = added}), y, 1e-12)
  end)
end)

describe("a network that learned variances", function()
  it("is sampled by the first half of its channels", function()
    local net = tiny_model "dit"
    local config = {dtype = "float64", out_channels = 6}
    for key, value in pairs(tiny.dit[3]) do config[key] = value end
    local twice = fill(diffusion.DiT(config))
    local x = tide.randn({1, 8, 8, 3}, "float64"):requires_grad()
    local o = {steps = 3, condition = 2}
    local a = diffusion.sample(twice, x, o).x0
    local b = diffusion.sample(function(u, t, c) return twice(u, t, c)[{{}, {}, {}, {1, 3}}] end, x, o).x0
    assert.close(a, b, 0)
    assert.close(tide.gradients(a:sum(), x)[1], tide.gradients(b:sum(), x)[1], 1e-12)
    assert.are.same(diffusion.sample(net, x, o).x0.shape, a.shape)
  end)
end)

describe("a network's input", function()
  local net = tiny_model("classes", "float32")
  local x = tide.randn(2, 8, 8, 1)

  it("may have one time or one for each image, as a number or a tensor", function()
    local y = net(x, 7, 3)
    assert.close(net(x, tide.tensor(7, "float64"), 3), y)
    assert.close(net(x, tide.tensor({7, 7}, "int64"), tide.tensor({3, 3}, "int64")), y)
    local other = net(x, tide.tensor {7, 8}, 3)
    assert.close(other[1], y[1])
    assert.is_true((other[2] - y[2]):abs():max():item() > 1e-4)
  end)

  it("may have a class as the vector that stands for it", function()
    local vector = net.class_embedding.weight[3]:detach():requires_grad()
    local y = net(x, 7, vector)
    assert.close(y, net(x, 7, 3))
    y:sum():backward()
    assert.is_true(vector.grad:abs():max():item() > 0)
  end)

  it("is refused when it does not fit", function()

    assert.fails_here(function() net(tide.randn(2, 8, 8, 3), 1, 1) end, "UNet2DModel", "2×8×8×3", "N×H×W×1")
    assert.fails_here(function() net(x:double(), 1, 1) end, "the images are float64, the weights are float32")
    assert.fails_here(function()
      diffusion.sample(net, x, {steps = 2, condition = tide.tensor({0, 1}, "int64")})
    end, "diffusion.sample: the condition has class 0, expected whole numbers from 1 to 5")
    assert.fails_here(function()
      diffusion.sample(net, x, {steps = 2, condition = 1, negative = tide.tensor({6}, "int64")})
    end, "the negative condition has class 6")
    assert.fails_here(function() diffusion.sample(net, x, {steps = 2, condition = 1, guidance = 2}) end,
      "guidance without a negative condition")
    assert.fails_here(function() net(x, "soon", 1) end, "the time is a string")
    assert.fails_here(function() net(x, tide.zeros(3), 1) end, "3 times for 2 images")
    assert.fails_here(function() net(x, 1) end, "the condition is missing", "classes (1 to 5)")
    assert.fails_here(function() net(x, 1, 6) end, "class 6", "1 to 5")
    assert.fails_here(function() net(x, 1, tide.zeros(3, 4)) end, "condition has shape (3×4)", "(2×32)")
    local plain = tiny_model("ddpm", "float32")
    assert.fails_here(function() plain(tide.randn(1, 8, 8, 3), 1, 2) end, "no class embedding")
    local cross = tiny_model("condition", "float32")
    local z = tide.randn(2, 8, 8, 4)
    assert.fails_here(function() cross(z, 1) end, "the condition is missing")
    assert.fails_here(function() cross(z, 1, tide.zeros(2, 5, 11)) end, "vectors of 11, expected 12")
    assert.fails_here(function() cross(z, 1, tide.zeros(3, 5, 12)) end, "(3×5×12)", "2×S×C")
    assert.fails_here(function() cross(z, 1, {tide.zeros(5, 12), msak = 1}) end, "msak")
  end)
end)

describe("a configuration", function()
  it("of a transformer is checked too", function()
    assert.fails_here(function() diffusion.DiT {num_attention_heads = 1, attention_head_dim = 6} end, "width of 6")
    assert.fails_here(function() diffusion.DiT {sample_size = 9} end, "patch_size 2 does not divide")
    local net = tiny_model("dit", "float32")
    assert.fails_here(function() net(tide.randn(1, 6, 6, 3), 1, 1) end, "(1×6×6×3)", "N×8×8×3")
    assert.are.same({2, 8, 8, 3}, net(tide.randn(2, 8, 8, 3), 1, 5).shape)
  end)

  it("that is not known or not supported is refused", function()
    local net = diffusion.UNet2DModel
    assert.fails_here(function() net {block_out_chanels = {8}} end, "block_out_chanels", "block_out_channels")
    assert.fails_here(function() net {time_embedding_type = "learned"} end, "time_embedding_type is learned",
      "\"positional\" or \"fourier\"")
    assert.fails_here(function() net {down_block_types = {"SkipDownBlock2D"}, block_out_channels = {32}} end,
      "SkipDownBlock2D", "AttnDownBlock2D")
    assert.fails_here(function() net {block_out_channels = {32, 64}} end, "a list of 2")
    assert.fails_here(function() net {block_out_channels = {30, 30, 30, 30}} end, "32 do not divide 30 channels")
    assert.fails_here(function() net {act_fn = "sine"} end, "act_fn is sine")
    assert.fails_here(function() net(3) end, "configuration is a number")
    assert.fails_here(function() diffusion.UNet2DConditionModel {only_cross_attention = true} end,
      "only_cross_attention is true, supported is false")
  end)

  it("is shown", function()
    assert.matches("UNet2DModel(1 → 2 channels, blocks of 8, 8, 16, 5 classes)",
      tostring(tiny_model("classes", "float32")), 1, true)
  end)
end)
