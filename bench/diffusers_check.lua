-- Networks against diffusers on PyTorch, on the same random weights in float32: the result and the gradients of the
-- image, the condition and every weight. The weights go over by a folder that diffusers loads.
--
--   bin/tide bench/diffusers_check.lua --python PYTHON [--only NAME] [--folder DIR]
--
-- Prints for each configuration the relative difference (of the norms, and the worst single tensor), and fails where
-- one is above 1e-4. --only counts builds google/ddpm-celebahq-256 and Stable Diffusion 1.5's U-Net (3.4 GB) instead
-- and compares their numbers of parameters; it needs no Python.

local layout = require "tide.diffusion.layout"
local tide = require "tide"
local diffusion = tide.diffusion

local o = {python = "", only = "", folder = os.tmpname()}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] and arg[i + 1], "usage: diffusers_check.lua --python PYTHON [--only NAME] [--folder DIR]")
  o[key] = arg[i + 1]
end
if o.only == "counts" then
  local D, U, C, X = "DownBlock2D", "UpBlock2D", "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
  local celeba = diffusion.UNet2DModel {block_out_channels = {128, 128, 256, 256, 512, 512},
    attention_head_dim = false, down_block_types = {D, D, D, D, "AttnDownBlock2D", D},
    up_block_types = {U, "AttnUpBlock2D", U, U, U, U}}
  print("ddpm-celebahq-256", celeba:count())
  assert(celeba:count() == 113673219)
  local sd = diffusion.UNet2DConditionModel {cross_attention_dim = 768, down_block_types = {C, C, C, D},
    up_block_types = {U, X, X, X}}
  print("Stable Diffusion 1.5", sd:count())
  assert(sd:count() == 859520964)
  return
end
if o.python == "" then
  print "diffusers_check: skipped; --python PYTHON names one with diffusers, torch and safetensors"
  return
end
os.remove(o.folder)

local D, A, U, B = "DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"
local cases = {
  {"cifar10", "UNet2DModel", {sample_size = 32, block_out_channels = {128, 256, 256, 256},
    attention_head_dim = false, down_block_types = {D, A, D, D}, up_block_types = {U, U, B, U},
    downsample_padding = 0, flip_sin_to_cos = false, freq_shift = 1, norm_eps = 1e-6}, batch = 1},
  {"classes", "UNet2DModel", {sample_size = 28, in_channels = 1, out_channels = 1, num_class_embeds = 11,
    block_out_channels = {32, 64, 64}, norm_num_groups = 8, attention_head_dim = 32, down_block_types = {D, A, A},
    up_block_types = {B, B, U}}, batch = 3},
  {"shift", "UNet2DModel", {sample_size = 32, block_out_channels = {32, 64}, norm_num_groups = 16,
    attention_head_dim = 16, down_block_types = {A, "ResnetDownsampleBlock2D"},
    up_block_types = {"ResnetUpsampleBlock2D", B}, resnet_time_scale_shift = "scale_shift",
    downsample_type = "resnet", upsample_type = "resnet"}, batch = 2},
  {"condition", "UNet2DConditionModel", {sample_size = 32, block_out_channels = {64, 128, 128, 128},
    down_block_types = {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", D},
    up_block_types = {U, "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"},
    cross_attention_dim = 96, attention_head_dim = 8}, batch = 2, vectors = 77},
  {"dit", "DiT", {sample_size = 16, in_channels = 4, num_layers = 4, num_attention_heads = 4, attention_head_dim = 24,
    num_embeds_ada_norm = 10}, batch = 2},
}

local function norm(t) return math.sqrt(t:double():square():sum():item()) end

-- |a − b|/|b|; a gradient of rounding errors alone (|b| tiny beside all others) is measured against `floor`.
local function gap(a, b, floor) return norm(a:double() - b:double()) / math.max(norm(b), floor) end

local function inputs_of(case)
  local c = case[3]
  local g, channels = tide.generator(2), c.in_channels or (case.vectors and 4 or 3)
  local inputs = {x = g:randn(case.batch, c.sample_size, c.sample_size, channels),
    t = g:randint(0, 999, case.batch)}
  inputs.sent_back = g:randn(case.batch, c.sample_size, c.sample_size, c.out_channels or channels)
  if case.vectors then inputs.condition = g:randn(case.batch, case.vectors, c.cross_attention_dim) end
  local classes = c.num_class_embeds or c.num_embeds_ada_norm
  if classes then inputs.classes = g:randint(1, classes, case.batch) end
  return inputs
end

-- The result and all gradients by tide, by the names of the other side.
local function by_tide(model, inputs)
  local x = inputs.x:clone():requires_grad()
  local condition = inputs.condition and inputs.condition:clone():requires_grad()
  local y = model(x, inputs.t, condition or inputs.classes)
  y:backward(inputs.sent_back)
  local out, parameters = {y = y:detach(), dx = x.grad, dcondition = condition and condition.grad}, {}
  for name, p in model:named_parameters() do parameters[name] = p end
  for _, entry in ipairs(layout.tensors(model)) do
    local p = parameters[entry.name]
    if p and p.grad then out["d." .. entry.there] = layout.there(entry, p.grad) end
  end
  return out
end

local failed = false
for _, case in ipairs(cases) do
  if o.only == "" or o.only == case[1] then
    tide.manual_seed(1)
    local model = diffusion[case[2]](case[3])
    local inputs = inputs_of(case)
    assert(diffusion.save(o.folder, model))
    assert(tide.io.save_safetensors(o.folder .. "/inputs.safetensors", inputs))
    local command = ("%s bench/peers/diffusers_networks.py run %s"):format(o.python, o.folder)
    assert(os.execute(command) == 0, "diffusers_check: failed: " .. command)
    local theirs, ours = assert(tide.io.load_safetensors(o.folder .. "/outputs.safetensors")), by_tide(model, inputs)
    local scale = 0
    for name, t in pairs(theirs) do
      if name:match "^d%." then scale = math.max(scale, norm(t)) end
    end
    local worst, where, square, total = 0, "", 0, 0
    for name, t in pairs(theirs) do
      assert(ours[name], "diffusers_check: no " .. name)
      if name:match "^d%." then
        local g = gap(ours[name], t, 1e-4 * scale)
        if g > worst then worst, where = g, name end
        square, total = square + norm(ours[name]:double() - t:double()) ^ 2, total + norm(t) ^ 2
      end
    end
    local y, dx = gap(ours.y, theirs.y, 0), gap(ours.dx, theirs.dx, 0)
    local dc = theirs.dcondition and gap(ours.dcondition, theirs.dcondition, 0) or 0
    print(("%-10s %11d parameters  result %.1e  image %.1e  condition %s  weights %.1e, worst %.1e (%s)"):format(
      case[1], model:count(), y, dx, theirs.dcondition and ("%.1e"):format(dc) or "-",
      math.sqrt(square / total), worst, where))
    for _, difference in ipairs {y, dx, dc, worst} do
      failed = failed or difference ~= difference or difference > 1e-4
    end
  end
end
os.execute("rm -rf '" .. o.folder .. "'")
assert(not failed, "diffusers_check: a difference is above 1e-4")
