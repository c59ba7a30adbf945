-- Folders as diffusers writes them: config.json, the weights in safetensors, the schedule's configuration; at the
-- top or under unet/.
--
--   local net, info = assert(diffusion.load "my_model")
--   local out = diffusion.sample(net, x_T, {schedule = info.schedule, …})
--   assert(diffusion.save("copy", net, info.schedule))
--
-- A folder that cannot be read, or whose weights do not fit its configuration, gives nil and a message.

local core = require "tide.core"
local EDM = require("tide.diffusion.edm").EDM
local json = require "tide.diffusion.json"
local layout = require "tide.diffusion.layout"
local message = require "tide.message"
local nn_module = require "tide.nn.module"
local options = require "tide.options"
local scheduler = require "tide.diffusion.scheduler"
local values = require "tide.values"

local M = {}
local raise, shape_of = message.raise, message.shape

-- The classes that a config.json may name.
local function classes()
  local unet = require "tide.diffusion.unet"
  return {
    UNet2DModel = unet.UNet2DModel, UNet2DConditionModel = unet.UNet2DConditionModel,
    DiTTransformer2DModel = require("tide.diffusion.dit").DiT,
    Classifier = require("tide.diffusion.classifier").Classifier,
  }
end

-- ---- Finding files ----

-- The names of a folder's files and folders as sets, or nil and a message.
local function contents(dir)
  local files, folders = core.io.list_folder(dir)
  if not files then return nil, folders end
  local set = {}
  for _, name in ipairs(files) do set[name] = "file" end
  for _, name in ipairs(folders) do set[name] = "folder" end
  return set
end

-- Where the network's config.json is: the folder itself, or its unet/ or transformer/.
local function network_folder(dir)
  local here, why = contents(dir)
  if not here then return nil, why end
  if here["config.json"] then return dir end
  for _, name in ipairs {"unet", "transformer"} do
    if here[name] == "folder" then
      local inside = contents(dir .. "/" .. name)
      if inside and inside["config.json"] then return dir .. "/" .. name end
    end
  end
  return nil, dir .. ": expected config.json here or in unet/, found none"
end

-- The schedule's configuration: beside the network's, in scheduler/, or in the scheduler/ of the folder above; or nil.
local function find_scheduler(dir, network)
  for _, place in ipairs {dir, dir .. "/scheduler", network, network .. "/../scheduler"} do
    local there = contents(place)
    if there and there["scheduler_config.json"] then return place .. "/scheduler_config.json" end
  end
end

local weight_names = {
  "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors", "model.safetensors",
}

-- The tensors of several files that an index names.
local function load_shards(dir, index_name)
  local index, why = json.read(dir .. "/" .. index_name)
  if not index then return nil, why end
  if type(index) ~= "table" or type(index.weight_map) ~= "table" then
    return nil, ("%s/%s: expected a weight_map, found none"):format(dir, index_name)
  end
  local tensors, done = {}, {}
  for _, file in pairs(index.weight_map) do
    if type(file) ~= "string" or file:find "/" then
      return nil, ("%s/%s: expected names of files in weight_map"):format(dir, index_name)
    end
    if not done[file] then
      done[file] = true
      local part
      part, why = core.io.load_safetensors(dir .. "/" .. file)
      if not part then return nil, why end
      for name, t in pairs(part) do tensors[name] = t end
    end
  end
  return tensors, dir .. "/" .. index_name
end

-- All tensors of the network's folder, and the name of the file for messages.
local function load_weights(dir)
  local there, why = contents(dir)
  if not there then return nil, why end
  for _, name in ipairs(weight_names) do
    if there[name] then
      local tensors
      tensors, why = core.io.load_safetensors(dir .. "/" .. name)
      return tensors, tensors and dir .. "/" .. name or why
    end
    if there[name .. ".index.json"] then return load_shards(dir, name .. ".index.json") end
  end
  local hint = there["diffusion_pytorch_model.bin"] and "; a .bin file must be saved as safetensors first" or ""
  return nil, ("%s: expected %s, found none%s"):format(dir, weight_names[1], hint)
end

-- ---- Weights into a model ----

-- Names that attention had in older files.
local renamed = {
  {"%.query%.", ".to_q."}, {"%.key%.", ".to_k."}, {"%.value%.", ".to_v."}, {"%.proj_attn%.", ".to_out.0."},
  {"%.downsamplers%.(%d+)%.op%.", ".downsamplers.%1.conv."},
  {"%.downsamplers%.(%d+)%.Conv2d_0%.", ".downsamplers.%1.conv."},
  {"%.upsamplers%.(%d+)%.Conv2d_0%.", ".upsamplers.%1.conv."},
}

local function current_name(name)
  for _, rule in ipairs(renamed) do
    local new, changed = name:gsub(rule[1], rule[2])
    if changed > 0 then return new end
  end
  return name
end

local function sizes(shape) return "(" .. table.concat(shape, "×") .. ")" end

-- The tensor in the shape that is wanted there; old files have linear maps as 1×1 convolutions.
local function fitted(t, wanted)
  if t.ndim == #wanted + 2 and t:size(-1) == 1 and t:size(-2) == 1 then
    t = core.reshape(t, {unpack(t.shape, 1, #wanted)})
  end
  return sizes(t.shape) == sizes(wanted) and t or nil
end

local function shown(list, what)
  table.sort(list)
  local text = table.concat(list, ", ", 1, math.min(#list, 4))
  if #list > 4 then text = ("%s and %d more"):format(text, #list - 4) end
  return what .. " " .. text
end

-- Copies tensors with PyTorch's names and layouts into a model. true, or nil and a message that names what is
--- missing, misshapen (expected and found) or unknown; then nothing has been copied.
local function load_weights_into(model, tensors, where)
  local given = {}
  for name, t in pairs(tensors) do given[current_name(name)] = t end
  local missing, misshapen, unknown, pairs_found, known = {}, {}, {}, {}, {}
  for _, entry in ipairs(layout.tensors(model)) do
    known[entry.there] = true
    local t, wanted = given[entry.there], layout.shape_there(entry)
    if not t then
      missing[#missing + 1] = ("%s %s"):format(entry.there, sizes(wanted))
    else
      local fit = fitted(t, wanted)
      if t.dtype ~= "float32" and t.dtype ~= "float64" then
        misshapen[#misshapen + 1] = ("%s: expected real numbers, found %s"):format(entry.there, t.dtype)
      elseif fit then
        pairs_found[#pairs_found + 1] = {entry.tensor, layout.here(entry, fit)}
      else
        misshapen[#misshapen + 1] = ("%s: expected %s, found (%s)"):format(entry.there, sizes(wanted), shape_of(t))
      end
    end
  end
  for name in pairs(given) do
    if not known[name] then unknown[#unknown + 1] = name end
  end
  local problems = {}
  if #misshapen > 0 then problems[1] = shown(misshapen, "do not fit:") end
  if #missing > 0 then problems[#problems + 1] = shown(missing, "missing:") end
  if #unknown > 0 then problems[#problems + 1] = shown(unknown, "not in the network:") end
  if #problems > 0 then return nil, ("%s: %s"):format(where, table.concat(problems, "; ")) end
  core.with_recording(false, function()
    for _, pair in ipairs(pairs_found) do pair[1]:copy_(pair[2]) end
  end)
  return true
end

-- A model's tensors by PyTorch's names and in its layouts.
local function weights_of(model)
  local state = {}
  for _, entry in ipairs(layout.tensors(model)) do
    state[entry.there] = core.contiguous(layout.there(entry, entry.tensor))
  end
  return state
end

-- ---- Loading ----

-- f(…) of what a file says, or nil and a message that names it: what does not fit is the file's fault here, not the
-- caller's.
local function from_file(path, f, ...)
  local ok, result, why = pcall(f, ...)
  if ok and result ~= nil then return result end
  return nil, ("%s: %s"):format(path, ok and why or (tostring(result):gsub("^[^:]*:%d+: ", "")))
end

-- A network of a configuration, or nil and a message that names the file.
local function construct(path, config, o)
  if type(config) ~= "table" then return nil, path .. ": expected an object, found a " .. type(config) end
  local class = classes()[config._class_name]
  if not class then
    return nil, ("%s: _class_name is %s, expected one of UNet2DModel, "
      .. "UNet2DConditionModel, DiTTransformer2DModel, Classifier"):format(path,
      tostring(config._class_name or nil))
  end
  local given = {dtype = o.dtype}
  for key, value in pairs(config) do given[key] = value end
  return from_file(path, class, given)
end

local load_rules = {dtype = values.one_of("float32", "float64")}

--- diffusion.load(dir, {dtype = "float32"}) → model, {config, scheduler, schedule}: the network of a folder in
--- diffusers' layout. See doc/api/diffusion_networks.lua.
function M.load(dir, opts)
  if type(dir) ~= "string" then raise("diffusion.load: the folder is a %s, expected a path", type(dir)) end
  local o = values.check("diffusion.load", options.check("diffusion.load", opts, {dtype = "float32"}), load_rules)
  local network, why = network_folder(dir)
  if not network then return nil, why end
  local config, tensors, model, ok
  config, why = json.read(network .. "/config.json")
  if config == nil then return nil, why end
  tensors, why = load_weights(network)
  if not tensors then return nil, why end
  local file = why
  model, why = construct(network .. "/config.json", config, o)
  if not model then return nil, why end
  ok, why = load_weights_into(model, tensors, file)
  if not ok then return nil, why end
  local info = {config = config}
  local path = find_scheduler(dir, network)
  if path then
    info.scheduler, why = json.read(path)
    if info.scheduler == nil then return nil, why end
    info.schedule, why = from_file(path, scheduler.read, info.scheduler)
    if not info.schedule then return nil, why end
    local edm = scheduler.preconditioning(info.scheduler)
    if edm then
      model, why = from_file(path, EDM, model, edm)
      if not model then return nil, why end
    end
  end
  return model:eval(), info
end

-- ---- Saving ----

local no_part_of_config = {dtype = true, generator = true}

-- A model's configuration as diffusers writes it: `false` where it stands for none is null.
local function config_of(model)
  local config = {_class_name = model.class_name, _diffusers_version = "0.30.0"}
  for key, value in pairs(model.config) do
    if not no_part_of_config[key] then
      if value == false and not model._flags[key] then value = json.null end
      config[key] = value
    end
  end
  config._class_name = model.class_name
  return config
end

--- diffusion.save(dir, model, schedule, {dtype = "float32"}): writes a folder that diffusers loads: true, or nil and a
--- message. The schedule, a Schedule or a table for scheduler_config.json, may be left out. dtype "float16" or
--- "bfloat16" stores weights of float32 in half the space.
function M.save(dir, model, schedule, opts)
  local o = options.check("diffusion.save", opts, {dtype = "float32"})
  local edm
  if type(model) == "table" and model.class_name == "EDM" then edm, model = model, model.net end
  if edm and schedule == nil then
    raise("diffusion.save: the model is a diffusion.EDM, expected a schedule \"edm\", by which its folder tells")
  end
  if type(dir) ~= "string" then raise("diffusion.save: the folder is a %s, expected a path", type(dir)) end
  if type(model) ~= "table" or not classes()[model.class_name] then
    raise("diffusion.save: the model is a %s, expected one of tide.diffusion's networks",
      type(model) == "table" and model.class_name or type(model))
  end
  for name in nn_module.named_modules(model) do
    if name:find "%.lora_A" then
      raise("diffusion.save: the model has adapters: nn.lora.merge it and nn.lora.remove them first")
    end
  end
  local ok, why = core.io.make_folder(dir)
  if not ok then return nil, why end
  ok, why = core.io.save_safetensors(dir .. "/" .. weight_names[1], weights_of(model), {format = "pt"}, o.dtype)
  if not ok then return nil, why end
  ok, why = json.write(dir .. "/config.json", config_of(model))
  if not ok then return nil, why end
  if schedule == nil then return true end
  return json.write(dir .. "/scheduler_config.json", scheduler.write(schedule, edm))
end

return M
