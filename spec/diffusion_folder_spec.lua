-- Folders in diffusers' layout: what is written is read back, old layouts are understood, and every way in which
-- a folder can be wrong is named.

require "spec.helper"
local json = require "tide.diffusion.json"
local scheduler = require "tide.diffusion.scheduler"
local tide = require "tide"

local diffusion, files = tide.diffusion, tide.io

local root = os.tmpname()
os.remove(root)

local function content(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read "*a"
  f:close()
  return text
end

local function write(path, text)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
end

local function unet(more)
  local config = {sample_size = 8, in_channels = 1, out_channels = 1, block_out_channels = {8, 16},
    layers_per_block = 1, norm_num_groups = 4, attention_head_dim = false,
    down_block_types = {"DownBlock2D", "AttnDownBlock2D"}, up_block_types = {"AttnUpBlock2D", "UpBlock2D"}}
  for key, value in pairs(more or {}) do config[key] = value end
  return diffusion.UNet2DModel(config)
end

-- A folder with a small network whose tensors or configuration have been changed by a function.
local count = 0
local function folder_with(change)
  count = count + 1
  local dir = ("%s/%d"):format(root, count)
  local net = unet()
  assert(diffusion.save(dir, net, diffusion.Schedule "linear"))
  local weights = dir .. "/diffusion_pytorch_model.safetensors"
  local tensors = assert(files.load_safetensors(weights))
  local config = assert(json.read(dir .. "/config.json"))
  change(tensors, config, dir)
  assert(files.save_safetensors(weights, tensors))
  assert(json.write(dir .. "/config.json", config))
  return dir, net
end

local function refused(dir, ...)
  local model, why = diffusion.load(dir)
  assert.is_nil(model)
  for _, part in ipairs {...} do assert.matches(part, why, 1, true) end
end

describe("a folder", function()
  teardown(function() os.execute("rm -rf " .. root) end)

  it("holds weights in half the space when asked to", function()
    local net, sizes = unet(), {}
    for _, dtype in ipairs {"float32", "float16", "bfloat16"} do
      local dir = ("%s/%s"):format(root, dtype)
      assert(diffusion.save(dir, net, nil, {dtype = dtype}))
      sizes[dtype] = #content(dir .. "/diffusion_pytorch_model.safetensors")
      local same, to = assert(diffusion.load(dir)), net:parameters()
      local bound = ({float32 = 0, float16 = 2 ^ -11, bfloat16 = 2 ^ -8})[dtype]
      for i, p in ipairs(same:parameters()) do
        local far = ((p - to[i]):abs() - to[i]:abs() * bound):max():item()
        assert.is_true(p.dtype == "float32" and far <= 2 ^ -24)
      end
    end
    assert.is_true(sizes.float16 == sizes.bfloat16 or math.abs(sizes.float16 - sizes.bfloat16) <= 256)
    assert.is_true(sizes.float16 < 0.75 * sizes.float32)
    assert.fails_here(function() diffusion.save(root .. "/x", net, nil, {dtype = "int8"}) end, "int8", "float16")
  end)

  it("gives back what was saved into it", function()
    local x = tide.randn(2, 8, 8, 1)
    local net = unet {num_class_embeds = 3}
    assert(diffusion.save(root .. "/a/b", net, diffusion.Schedule("scaled_linear", {prediction = "v"})))
    local same, info = assert(diffusion.load(root .. "/a/b"))
    assert.is_true(tide.equal(net(x, 3, 2), same(x, 3, 2)))
    assert.is_false(same.training)
    assert.are.equal("v", info.schedule.prediction)
    assert.close(info.schedule:alpha(999) ^ 2, 0.0046601, 1e-7)
    assert.are.equal(8, info.config.sample_size)
    local double = assert(diffusion.load(root .. "/a/b", {dtype = "float64"}))
    assert.close(double(x:double(), 3, 2), net(x, 3, 2):double(), 1e-5)

    local cross = diffusion.UNet2DConditionModel {block_out_channels = {8, 8}, norm_num_groups = 4,
      layers_per_block = 1, down_block_types = {"CrossAttnDownBlock2D", "DownBlock2D"}, cross_attention_dim = 6,
      up_block_types = {"UpBlock2D", "CrossAttnUpBlock2D"}, attention_head_dim = {2, 4}}
    assert(diffusion.save(root .. "/cross", cross))
    local z, c = tide.randn(1, 4, 4, 4), tide.randn(3, 6)
    local other, about = assert(diffusion.load(root .. "/cross"))
    assert.is_true(tide.equal(cross(z, 1, c), other(z, 1, c)))
    assert.is_nil(about.schedule)
  end)

  it("has PyTorch's names, layouts and nulls", function()
    local dir, net = root .. "/plain", unet()
    assert(diffusion.save(dir, net))
    local tensors = assert(files.load_safetensors(dir .. "/diffusion_pytorch_model.safetensors"))
    local conv, linear = tensors["down_blocks.1.resnets.0.conv1.weight"], tensors["time_embedding.linear_1.weight"]
    assert.are.same({16, 8, 3, 3}, conv.shape)
    assert.are.equal(net.down_blocks[2].resnets[1].conv1.weight[2][3][5][7]:item(), conv[7][5][2][3]:item())
    assert.are.same({32, 8}, linear.shape)
    assert.are.equal(net.time_embedding.linear_1.weight[5][31]:item(), linear[31][5]:item())
    assert.is_truthy(tensors["mid_block.attentions.0.to_out.0.bias"])
    assert.matches('"attention_head_dim": null', content(dir .. "/config.json"), 1, true)
    assert.matches('"_class_name": "UNet2DModel"', content(dir .. "/config.json"), 1, true)
  end)

  it("may have the network under unet/ and the schedule in scheduler/", function()
    local dir, net = folder_with(function() end)
    local whole = root .. "/pipeline"
    assert(files.make_folder(whole .. "/unet"))
    assert(files.make_folder(whole .. "/scheduler"))
    for _, name in ipairs {"config.json", "diffusion_pytorch_model.safetensors"} do
      write(whole .. "/unet/" .. name, content(dir .. "/" .. name))
    end
    write(whole .. "/scheduler/scheduler_config.json", content(dir .. "/scheduler_config.json"))
    local x = tide.randn(1, 8, 8, 1)
    for _, place in ipairs {whole, whole .. "/unet"} do
      local same, info = assert(diffusion.load(place))
      assert.is_true(tide.equal(net(x, 3), same(x, 3)))
      assert.are.equal("linear", info.schedule.name)
    end
  end)

  it("may have its weights in several files", function()
    local dir, net = folder_with(function() end)
    local path = dir .. "/diffusion_pytorch_model.safetensors"
    local tensors, map, parts, i = assert(files.load_safetensors(path)), {}, {{}, {}}, 0
    for name, t in pairs(tensors) do
      i = i + 1
      parts[i % 2 + 1][name], map[name] = t:clone(), ("part%d.safetensors"):format(i % 2 + 1)
    end
    for k = 1, 2 do assert(files.save_safetensors(("%s/part%d.safetensors"):format(dir, k), parts[k])) end
    os.remove(path)
    assert(json.write(path .. ".index.json", {weight_map = map}))
    local x = tide.randn(1, 8, 8, 1)
    assert.is_true(tide.equal(net(x, 3), assert(diffusion.load(dir))(x, 3)))
    os.remove(dir .. "/part2.safetensors")
    refused(dir, "part2.safetensors")
  end)

  it("may have attention's old names, and linear maps as convolutions", function()
    local old = {to_q = "query", to_k = "key", to_v = "value", ["to_out.0"] = "proj_attn"}
    local dir, net = folder_with(function(tensors)
      for name, t in pairs(tensors) do
        local before, now, kind = name:match "^(.*attentions%.%d+%.)(.*)%.(%a+)$"
        if old[now] then
          tensors[name] = nil
          tensors[before .. old[now] .. "." .. kind] = kind == "weight" and t:reshape(t:size(1), t:size(2), 1, 1) or t
        end
      end
    end)
    local x = tide.randn(1, 8, 8, 1)
    assert.is_true(tide.equal(net(x, 3), assert(diffusion.load(dir))(x, 3)))
  end)
end)

describe("a folder with an EDM scheduler", function()
  local s = diffusion.Schedule("edm", {sigma_min = 0.01, sigma_max = 20, prediction = "x0"})

  it("is loaded as its network with the preconditioning, and written so", function()
    for _, prediction in ipairs {"epsilon", "v"} do
      local net = diffusion.EDM(unet(), {sigma_data = 0.7, prediction = prediction})
      assert(diffusion.save(root .. "/edm", net, s))
      assert.matches('"EDMEulerScheduler"', content(root .. "/edm/scheduler_config.json"), 1, true)
      local same, info = assert(diffusion.load(root .. "/edm"))
      assert.are.equal("x0", info.schedule.prediction)
      local x = info.schedule:noise {2, 8, 8, 1}
      local function run(model, schedule)
        return diffusion.sample(model, x, {schedule = schedule, sampler = "heun", steps = 4, grad = "none"}).x0
      end
      assert.close(run(same, info.schedule), run(net, s), 1e-5)
      -- F is the negated v of x0/sigma_data where x is scaled to unit spread
      local sigma, y = 3, x[{{1, 1}}]
      local root_of = math.sqrt(sigma ^ 2 + 0.7 ^ 2)
      local f = net.net(y / root_of, math.log(sigma) / 4) * (prediction == "v" and -1 or 1)
      assert.close(net(y, math.log(sigma) / 4), y * (0.7 / root_of) ^ 2 + f * (sigma * 0.7 / root_of), 1e-5)
    end
  end)

  it("goes with an EDM schedule alone, and its options are checked", function()
    assert.fails_here(function() diffusion.save(root .. "/edm", diffusion.EDM(unet()), diffusion.Schedule "linear") end,
      "expected a schedule \"edm\", got \"linear\"")
    assert.fails_here(function() diffusion.EDM(unet(), {sigma_data = 0}) end, "sigma_data is 0, expected a number")
    assert.fails_here(function() diffusion.save(root .. "/edm", diffusion.EDM(unet())) end, "expected a schedule")
    assert.fails_here(function() diffusion.sample(diffusion.EDM(unet()), tide.randn(1, 8, 8, 1), {steps = 2}) end,
      "expected a schedule \"edm\" with prediction \"x0\", got \"linear\" with \"epsilon\"")
    assert.fails_here(function() diffusion.EDM(3) end, "the network is a number, expected a module")
  end)
end)

describe("a wrong folder", function()
  it("is refused with what is missing, misshapen or unknown", function()
    refused(folder_with(function(tensors) tensors["conv_in.weight"] = nil end), "missing: conv_in.weight (8×1×3×3)")
    refused(folder_with(function(tensors)
      tensors["down_blocks.1.resnets.0.conv1.weight"] = tide.zeros(16, 8, 3, 1)
    end), "down_blocks.1.resnets.0.conv1.weight: expected (16×8×3×3), found (16×8×3×1)")
    refused(folder_with(function(tensors) tensors["extra.bias"] = tide.zeros(3) end), "not in the network: extra.bias")
    refused(folder_with(function(tensors) tensors["conv_in.bias"] = tide.zeros({8}, "int64") end),
      "do not fit: conv_in.bias: expected real numbers, found int64")
    refused(folder_with(function(_, config) config.block_out_channels = {16, 16} end), "do not fit", "(16×1×3×3)",
      "and ")
  end)

  it("is refused when its configuration is", function()
    refused(folder_with(function(_, config) config._class_name = "UNet3DModel" end), "config.json",
      "_class_name is UNet3DModel")
    refused(folder_with(function(_, config) config.act_fn = "sine" end), "config.json", "act_fn is sine")
    refused(folder_with(function(_, config) config.surprise = 1 end), "unknown option \"surprise\"")
    local dir = folder_with(function() end)
    write(dir .. "/config.json", '{"act_fn": "silu",\n "norm_eps": }')
    refused(dir, "config.json: line 2, column 14: expected a value")
    write(dir .. "/config.json", "[1, 2] 3")
    refused(dir, "expected the end")
    write(dir .. "/config.json", "3")
    refused(dir, "expected an object, found a number")
  end)

  it("is refused when its schedule is", function()
    local dir = folder_with(function() end)
    for text, part in pairs {
      ['{"num_train_timesteps": "1000"}'] = "steps is \"1000\", expected a whole number",
      ['{"beta_end": 2}'] = "expected a number between 0 and 1",
      ['{"trained_betas": [0.1, 3]}'] = "beta 2 is 3, expected a number between 0 and 1",
      ['{"prediction_type": "velocity"}'] = "prediction_type is velocity, expected epsilon",
      ['{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0}'] = "shift is 0, expected a number above 0",
    } do
      write(dir .. "/scheduler_config.json", text)
      refused(dir, "scheduler_config.json: ", part)
    end
  end)

  it("is refused when its files are cut off or not there", function()
    local dir = folder_with(function() end)
    local path = dir .. "/diffusion_pytorch_model.safetensors"
    local whole = content(path)
    for _, share in ipairs {0, 0.01, 0.5, 0.999} do
      write(path, whole:sub(1, math.floor(#whole * share)))
      refused(dir, path)
    end
    os.remove(path)
    refused(dir, "expected diffusion_pytorch_model.safetensors, found none")
    write(dir .. "/diffusion_pytorch_model.bin", "")
    refused(dir, "a .bin file must be saved as safetensors first")
    os.remove(dir .. "/config.json")
    refused(dir, "expected config.json here or in unet/")
    refused(root .. "/nowhere", "nowhere")
    assert.fails_here(function() diffusion.load(3) end, "the folder is a number")
    assert.fails_here(function() diffusion.save(root, tide.nn.Linear(2, 2)) end, "the model is a Linear")
  end)
end)

describe("a schedule's configuration", function()
  it("gives the schedule, and the schedule gives it back", function()
    for _, s in ipairs {diffusion.Schedule "linear", diffusion.Schedule("cosine", {prediction = "x0"}),
      diffusion.Schedule("scaled_linear", {steps = 200, beta_end = 0.02}),
      diffusion.Schedule("betas", {betas = {0.1, 0.2, 0.3}})} do
      local again = assert(scheduler.read(assert(json.decode(json.encode(scheduler.write(s))))))
      assert.are.equal(s.prediction, again.prediction)
      assert.are.equal(s.last, again.last)
      for _, t in ipairs {s.first, s.last, math.floor(s.last / 2)} do
        assert.close(again:lambda(t), s:lambda(t), 1e-6)
      end
    end
    local flow = assert(scheduler.read(scheduler.write(diffusion.Schedule("flow", {shift = 3}))))
    assert.are.equal("flow", flow.kind)
    assert.are.equal(3, flow.shift)
    local edm = assert(scheduler.read(scheduler.write(diffusion.Schedule("edm", {sigma_max = 10}))))
    assert.close(edm:ratio(edm.last), 10)
  end)

  it("that is not supported is refused", function()
    local _, why = scheduler.read {beta_schedule = "sigmoid"}
    assert.matches("beta_schedule is sigmoid", why, 1, true)
    _, why = scheduler.read {prediction_type = "noise"}
    assert.matches("prediction_type is noise", why, 1, true)
    _, why = scheduler.read {rescale_betas_zero_snr = true}
    assert.matches("rescale_betas_zero_snr", why, 1, true)
    _, why = scheduler.read {_class_name = "FlowMatchEulerDiscreteScheduler", use_dynamic_shifting = true}
    assert.matches("use_dynamic_shifting", why, 1, true)
  end)
end)

describe("JSON", function()
  it("is read as it is written", function()
    local text = '{"a": [1, -2.5e3, true, null], "b": {"c": "x\\n\\"\\u00e9\\ud83d\\ude00"}, "d": []}'
    local value = assert(json.decode(text))
    assert.are.same({a = {1, -2500, true, false}, b = {c = 'x\n"é😀'}, d = {}}, value)
    assert.are.same(value, assert(json.decode(json.encode(value))))
    assert.are.equal("1e-06\n", json.encode(1e-6))
    assert.are.equal(0.1, assert(json.decode(json.encode(0.1))))
  end)

  it("that is cut off or not JSON is refused with the place", function()
    local text = '{"a": [1, "b\\u0041", {"c": null}]}'
    for n = 1, #text - 1 do
      local value, why = json.decode(text:sub(1, n))
      assert.is_nil(value)
      assert.matches("line 1, column", why, 1, true)
    end
    for _, wrong in ipairs {"{1: 2}", "[1,]", "nul", "'a'", '"a\nb"', "[1 2]", "{\"a\" 1}", ("["):rep(200)} do
      assert.is_nil((json.decode(wrong)))
    end
  end)
end)
