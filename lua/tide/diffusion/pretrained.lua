-- The models that come with tide.

local core = require "tide.core"
local folder = require "tide.diffusion.folder"
local message = require "tide.message"

local M = {}

local known = {digits = true, ["digits-classifier"] = true, cifar10 = true}

-- The folder that holds this file.
local function own_folder()
  return debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$" or "."
end

--- diffusion.pretrained(name): "digits" or "cifar10" (class-conditional U-Nets; class 11 stands for none) or
--- "digits-classifier". Gives what diffusion.load gives.
function M.pretrained(name)
  if not known[name] then
    message.raise("diffusion.pretrained: %s, expected \"digits\", \"digits-classifier\" or \"cifar10\"",
      type(name) == "string" and ("unknown model %q"):format(name) or "the name is a " .. type(name))
  end
  local here = own_folder()
  local places = {here .. "/../models/" .. name, here .. "/../../../models/" .. name}
  for _, place in ipairs(places) do
    if core.io.list_folder(place) then return folder.load(place) end
  end
  return nil, ("pretrained: %s is in none of %s"):format(name, table.concat(places, ", "))
end

return M
