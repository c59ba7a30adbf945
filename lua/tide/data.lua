-- Data sets of images, and batches of them.
--
--   local data = require "tide.data"
--   local train, test = assert(data.digits())
--   local loader = data.Loader {images = train.images, labels = train.labels, batch = 64}
--   for epoch = 1, 10 do
--     for x, y in loader:epoch(epoch) do … end
--   end
--
-- A data set is a table: `images` (N×H×W×C uint8), `labels` (N int64, counted from 1, so that
-- `classes[label]` is the class's name), `raw_labels` (as the file has them, counted from 0) and
-- `classes`. The digit 0 thus has label 1. A data set that cannot be read gives nil and a message.

local core = require "tide.core"
local message = require "tide.message"
local options = require "tide.options"

local io_core, batch = core.io, core.batch
local raise, shape_of = message.raise, message.shape

local M = {}

-- What a value is, in a few words.
local function describe(value)
  if type(value) == "number" or type(value) == "boolean" then return tostring(value) end
  if type(value) == "string" then return ("%q"):format(value) end
  if value == nil then return "nothing" end
  if type(value) == "userdata" and value.shape then
    return ("a %s tensor of shape %s"):format(value.dtype, shape_of(value))
  end
  return "a " .. type(value)
end

local function is_tensor(value)
  return type(value) == "userdata" and pcall(function() return value.shape[1] end)
end

local function check_folder(where, dir)
  if type(dir) ~= "string" then
    raise("%s: the folder is %s, expected a path", where, describe(dir))
  end
end

---------------------------------------------------------------------------------------------------
-- Data sets
---------------------------------------------------------------------------------------------------

-- A data set of images and labels counted from 0, or nil and a message when they do not fit.
local function dataset(name, images, raw_labels, classes)
  local n = images.shape[1]
  if raw_labels.ndim ~= 1 or raw_labels.shape[1] ~= n then
    return nil, ("%s: expected %d labels, one an image, found %s"):format(name, n,
      shape_of(raw_labels))
  end
  local labels = core.tensor(raw_labels, "int64") + 1
  if n > 0 and classes then
    local most, least = labels:max():item(), labels:min():item()
    if most > #classes or least < 1 then
      return nil, ("%s: expected labels of 0 to %d, found %d"):format(name, #classes - 1,
        (least < 1 and least or most) - 1)
    end
  end
  return {images = images, labels = labels, raw_labels = raw_labels, classes = classes}
end

-- The path of the first of some names that the folder has, or nil and a message.
local function find_file(dir, names)
  local files, why = io_core.list_folder(dir)
  if not files then return nil, why end
  local there = {}
  for _, name in ipairs(files) do there[name] = true end
  for _, name in ipairs(names) do
    if there[name] then return dir .. "/" .. name end
  end
  return nil, ("%s: expected a file named %s, found none"):format(dir, table.concat(names, " or "))
end

local function read_idx(dir, name)
  local path, why = find_file(dir, {name .. ".gz", name})
  if not path then return nil, why end
  local t
  t, why = io_core.read_idx(path)
  return t, why or path
end

-- One half of a data set in MNIST's four files.
local function mnist_half(dir, prefix, classes)
  local images, labels, path
  images, path = read_idx(dir, prefix .. "-images-idx3-ubyte")
  if not images then return nil, path end
  local s = images.shape
  local side = math.floor(math.sqrt(s[2] or 0) + 0.5)
  if images.ndim == 2 and side * side == s[2] then s = {s[1], side, side} end  -- rows of pixels
  if #s ~= 3 or images.dtype ~= "uint8" then
    return nil, ("%s: expected uint8 images of 3 dims, found %s"):format(path, describe(images))
  end
  labels, path = read_idx(dir, prefix .. "-labels-idx1-ubyte")
  if not labels then return nil, path end
  return dataset(path, images:reshape(s[1], s[2], s[3], 1), labels, classes)
end

local function mnist_like(where, dir, classes)
  check_folder(where, dir)
  local train, why = mnist_half(dir, "train", classes)
  if not train then return nil, why end
  local test
  test, why = mnist_half(dir, "t10k", classes)
  if not test then return nil, why end
  return train, test
end

local digit_names = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}

local fashion_names = {
  "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
  "ankle boot",
}

local cifar10_names = {
  "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
}

-- The folder that holds this file.
local function own_folder()
  local source = debug.getinfo(1, "S").source
  return source:match "^@(.*)/[^/]*$" or "."
end

-- Where the embedded data may be: beside the module, or in a checkout.
local function embedded_folder(name)
  local here = own_folder()
  local places = {here .. "/data/" .. name, here .. "/../../data/" .. name}
  for _, place in ipairs(places) do
    if io_core.list_folder(place) then return place end
  end
  return nil, ("%s: the embedded data are in none of %s"):format(name, table.concat(places, ", "))
end

--- 8,000 and 2,000 handwritten digits that come with tide: train, test. Images are N×28×28×1.
function M.digits()
  local dir, why = embedded_folder "mnist10k"
  if not dir then return nil, why end
  return mnist_like("digits", dir, digit_names)
end

--- MNIST in its four files, gzip or plain: train, test. Images are N×28×28×1.
function M.mnist(dir)
  return mnist_like("mnist", dir, digit_names)
end

--- Fashion-MNIST: train, test. Without a folder, where Debian's package dataset-fashion-mnist
--- has it.
function M.fashion_mnist(dir)
  return mnist_like("fashion_mnist", dir or "/usr/share/datasets/fashion-mnist", fashion_names)
end

-- The lines of a text file of class names, or nil.
local function read_names(dir, name)
  local f = io.open(dir .. "/" .. name, "r")
  if not f then return nil end
  local names = {}
  for line in f:lines() do
    line = line:match "^%s*(.-)%s*$"
    if line ~= "" then names[#names + 1] = line end
  end
  f:close()
  return names
end

-- The tensors that `read` gives for each file, joined: {images, labels, …}, or nil and a message.
local function read_all(read, dir, names)
  local parts = {}
  for i, name in ipairs(names) do
    local got = {read(dir .. "/" .. name)}
    if not got[1] then return nil, got[2] end
    for j, t in ipairs(got) do
      parts[j] = parts[j] or {}
      parts[j][i] = t
    end
  end
  for j, list in ipairs(parts) do parts[j] = #list == 1 and list[1] or core.cat(list, 1) end
  return parts
end

--- CIFAR-10's binary version (data_batch_1.bin … data_batch_5.bin, test_batch.bin): train, test.
--- Images are N×32×32×3.
function M.cifar10(dir)
  check_folder("cifar10", dir)
  local classes = read_names(dir, "batches.meta.txt") or cifar10_names
  local train, why = read_all(io_core.read_cifar10, dir, {"data_batch_1.bin",
    "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"})
  if not train then return nil, why end
  local test
  test, why = read_all(io_core.read_cifar10, dir, {"test_batch.bin"})
  if not test then return nil, why end
  train, why = dataset(dir, train[1], train[2], classes)
  if not train then return nil, why end
  test, why = dataset(dir, test[1], test[2], classes)
  if not test then return nil, why end
  return train, test
end

--- CIFAR-100's binary version (train.bin, test.bin): train, test. `labels` are of the 100 classes;
--- `coarse_labels`, also counted from 1, of the 20 groups named in `coarse_classes`. The names come
--- from fine_label_names.txt and coarse_label_names.txt, and are absent when those are.
function M.cifar100(dir)
  check_folder("cifar100", dir)
  local halves = {}
  for i, name in ipairs {"train.bin", "test.bin"} do
    local read, why = read_all(io_core.read_cifar100, dir, {name})
    if not read then return nil, why end
    local half
    half, why = dataset(dir, read[1], read[2], read_names(dir, "fine_label_names.txt"))
    if not half then return nil, why end
    half.coarse_labels = read[3] + 1
    half.raw_coarse_labels = read[3]
    half.coarse_classes = read_names(dir, "coarse_label_names.txt")
    halves[i] = half
  end
  return halves[1], halves[2]
end

--- PNG images in sub-folders named after their classes, all of one size and number of channels. The
--- classes are in the order of their names, `files` has each image's path.
function M.image_folder(dir)
  check_folder("image_folder", dir)
  local list, classes = io_core.list_folder(dir)
  if not list then return nil, classes end
  local files, raw = {}, {}
  for k, class in ipairs(classes) do
    local names, why = io_core.list_folder(dir .. "/" .. class)
    if not names then return nil, why end
    for _, name in ipairs(names) do
      if name:lower():match "%.png$" then
        files[#files + 1] = ("%s/%s/%s"):format(dir, class, name)
        raw[#raw + 1] = k - 1
      end
    end
  end
  if #files == 0 then
    return nil, dir .. ": expected sub-folders with PNG images, found none"
  end
  local images, shape
  for i, file in ipairs(files) do
    local image, why = io_core.read_png(file)
    if not image then return nil, why end
    local found = shape_of(image)
    if not images then
      shape = found
      images = core.empty({#files, image.shape[1], image.shape[2], image.shape[3]}, "uint8")
    elseif found ~= shape then
      return nil, ("%s: expected %s like the images before it, found %s"):format(file, shape, found)
    end
    images:select(1, i):copy_(image)
  end
  local set, why = dataset(dir, images, core.tensor(raw, "int64"), classes)
  if set then set.files = files end
  return set, why
end

---------------------------------------------------------------------------------------------------
-- Batches
---------------------------------------------------------------------------------------------------

local Loader = {}
Loader.__index = Loader

local function check_number(name, value, least, most, whole)
  if type(value) ~= "number" or not (value >= least and value <= most)
    or (whole and value ~= math.floor(value)) then
    raise("Loader: %s is %s, expected a %s of %g%s", name, describe(value),
      whole and "whole number" or "number", least,
      most == math.huge and " or more" or (" to %g"):format(most))
  end
end

-- A number or a table of one a channel, as a table.
local function per_channel(name, value, channels)
  local list = {}
  for c = 1, channels do
    local v = value
    if type(value) == "table" then v = value[c] end
    if type(v) ~= "number" or (type(value) == "table" and #value ~= channels) then
      raise("Loader: normalize.%s is %s, expected a number or a table of %d, one a channel", name,
        type(value) == "table" and ("a table of %d"):format(#value) or describe(value), channels)
    end
    list[c] = v
  end
  return list
end

-- Tensors scale and shift such that v·scale + shift is (v/range - mean)/std.
local function normalization(normalize, images)
  local channels = images.shape[4]
  local range = images.dtype == "uint8" and 255 or 1
  local n = options.check("Loader: normalize", normalize, {mean = 0, std = 1})
  local mean = per_channel("mean", n.mean, channels)
  local std = per_channel("std", n.std, channels)
  local scale, shift = {}, {}
  for c = 1, channels do
    if std[c] <= 0 or std[c] ~= std[c] then
      raise("Loader: normalize.std is %g, expected a number above 0", std[c])
    end
    scale[c] = 1 / (range * std[c])
    shift[c] = -mean[c] / std[c]
  end
  return core.tensor(scale), core.tensor(shift)
end

local loader_defaults = {
  images = options.none,     -- N×H×W×C, uint8 or float32
  labels = options.none,     -- N; absent: batches have no labels
  batch = 64,                -- images in a batch
  shuffle = true,            -- a new order in every epoch
  seed = 0,                  -- of the order and of the augmentation
  normalize = options.none,  -- {mean =, std =}: numbers or one a channel, on the scale of 0 to 1
  crop = 0,                  -- zero pixels put around, of which a random window is cut
  flip = 0,                  -- the probability of mirroring an image left and right
  drop_last = false,         -- leave out a last batch that is smaller
}

local function check_images(images)
  if not is_tensor(images) or images.ndim ~= 4 or images.numel == 0
    or (images.dtype ~= "uint8" and images.dtype ~= "float32") then
    raise("Loader: images are %s, expected an N×H×W×C tensor of uint8 or float32", describe(images))
  end
end

local function check_labels(labels, n)
  if not is_tensor(labels) or labels.ndim ~= 1 or labels.shape[1] ~= n then
    raise("Loader: labels are %s, expected a tensor of %d, one an image", describe(labels), n)
  end
end

--- Batches of images (float32, N×H×W×C) and labels (int64). uint8 images are scaled to 0 … 1, then
--- all are normalised. The order and the augmentation of an epoch depend on `seed` and the epoch's
--- number alone: the same on every machine, and again when the epoch is asked for again.
--- `loader.batches` is the number of batches in an epoch.
function M.Loader(given)
  local o = options.check("Loader", given, loader_defaults)
  check_images(o.images)
  local n = o.images.shape[1]
  if o.labels ~= nil then check_labels(o.labels, n) end
  check_number("batch", o.batch, 1, math.huge, true)
  check_number("seed", o.seed, 0, 2 ^ 53 - 1, true)
  check_number("crop", o.crop, 0, math.min(o.images.shape[2], o.images.shape[3]), true)
  check_number("flip", o.flip, 0, 1)
  local self = setmetatable({}, Loader)
  self.images = o.images:contiguous()
  self.labels = o.labels and core.tensor(o.labels, "int64")
  self.scale, self.shift = normalization(o.normalize, o.images)
  self.batch, self.shuffle, self.seed = o.batch, o.shuffle, o.seed
  self.crop, self.flip = o.crop, o.flip
  self.count = n
  self.batches = o.drop_last and math.floor(n / o.batch) or math.ceil(n / o.batch)
  self.next_epoch = 1
  return self
end

--- The batches of an epoch: `for x, y in loader:epoch(3) do`. Without a number, of the epoch after
--- the last one asked for.
function Loader:epoch(number)
  if number ~= nil then check_number("epoch", number, 0, 2 ^ 31 - 1, true) end
  local epoch = number or self.next_epoch
  self.next_epoch = epoch + 1
  local order = self.shuffle and batch.order(self.count, self.seed, epoch)
    or core.arange(0, self.count - 1, 1, "int64")
  local k = 0
  return function()
    if k == self.batches then return nil end
    local first = k * self.batch
    local size = math.min(self.batch, self.count - first)
    k = k + 1
    local x = batch.images(self.images, order, first, size, self.scale, self.shift, self.crop,
      self.flip, self.seed, epoch)
    return x, self.labels and batch.labels(self.labels, order, first, size)
  end
end

return M
