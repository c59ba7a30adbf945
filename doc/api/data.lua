-- tide.data and tide.io: data sets, batches, files.

local halves = " -> dataset, dataset"

return {
  title = "tide.data and tide.io",
  text = "What is wrong with a file comes back as nil and a message that names it, so wrap calls in assert; "
    .. "a wrong argument raises. Files appear under their names only when they are complete.",

  {
    title = "Data sets",
    text = "A data set is a table: images (N×H×W×C uint8), labels (N int64, from 1: classes[label] is the "
      .. "class's name), raw_labels (as in the file, from 0) and classes. Functions of a whole set return "
      .. "two, to train and to test.",
    {"data.digits", halves, "8,000 and 2,000 handwritten digits (28×28×1) that come with tide.",
      example = [[
local train, test = assert(data.digits())
train.images.shape[1] --> 8000]]},
    {"data.mnist", "dir: string" .. halves, "MNIST in its four files, gzip or plain, 28×28×1.",
      example = "(data.mnist \"no such folder\") --> nil"},
    {"data.fashion_mnist",
      "dir: string?" .. halves, "Fashion-MNIST; without a folder, where Debian's package "
        .. "dataset-fashion-mnist has it."},
    {"data.cifar10", "dir: string" .. halves, "CIFAR-10's binary version, 32×32×3."},
    {"data.cifar100",
      "dir: string" .. halves, "CIFAR-100's binary version; also coarse_labels, raw_coarse_labels and "
        .. "coarse_classes of the 20 groups."},
    {"data.image_folder", "dir: string -> dataset",
      "PNG images of one size in sub-folders named after their classes; `files` has each path."},
    {"data.Loader", "opts: options -> loader",
      "Batches of images (float32, N×H×W×C, uint8 scaled to 0 … 1, then normalised) and labels (int64).",
      options = [[
images: tensor | N×H×W×C, uint8 or float32
labels: tensor? | N; batches have none when absent
batch: integer = 64 | images in a batch
shuffle: boolean = true | a new order in every epoch
seed: integer = 0 | of the order and of the augmentation
normalize: table? | {mean =, std =}: numbers or one a channel, on the scale of 0 to 1
crop: integer = 0 | zero pixels put around, of which a random window is cut
flip: number = 0 | probability of mirroring left and right
drop_last: boolean = false | leave out a smaller last batch]],
      fields = "batches: integer | in an epoch",
      note = "An epoch depends on the seed and its number alone: the same on every machine, and when asked "
        .. "for again.",
      example = [[
local train = assert(data.digits())
local loader = data.Loader {
  images = train.images, labels = train.labels, batch = 100, normalize = {mean = 0.13, std = 0.31},
}
for x, y in loader:epoch(1) do
  assert(x.shape[1] == 100 and y.dtype == "int64")
  break
end
loader.batches --> 80]]},
    {"Loader:epoch", "number: integer? -> function",
      "An iterator over the batches of an epoch; without a number, of the next one."},
  },

  {
    title = "Files",
    {"io.save_safetensors", "path: string, tensors: table, metadata: table?, opts: options? -> boolean",
      "Writes tensors by name, and strings by key; equal tables give equal files. dtype \"float16\" or \"bfloat16\" "
        .. "stores tensors of float32 in half the space, each number rounded to nearest; numbers that float16 cannot "
        .. "hold (beyond 65,504) are refused. They are float32 again when loaded.",
      options = "dtype: string = \"float32\" | of tensors of float32, in the file",
      example = [[
local path = os.tmpname()
assert(tide.io.save_safetensors(path, nn.Linear(2, 3):state_dict(), {epoch = "4"}))
local tensors, metadata = assert(tide.io.load_safetensors(path))
os.remove(path)
tensors.weight.shape[2] --> 3
metadata.epoch --> 4]]},
    {"io.load_safetensors", "path: string -> table, table, string[]",
      "The tensors by name (mapped from the file), the strings, and the names in the file's order."},
    {"io.save_npy", "path: string, t: tensor -> boolean", "Writes one array as numpy does.",
      example = [[
local path = os.tmpname()
assert(tide.io.save_npy(path, tide.arange(3)))
assert(tide.io.load_npy(path)) --> [1., 2., 3.]  (3 float32)
os.remove(path)]]},
    {"io.load_npy", "path: string -> tensor", "Reads one array written by numpy."},
    {"io.write_png", "path: string, image: tensor -> boolean",
      "Writes an image H×W×C with 1 to 4 channels: uint8, or real from 0 to 1.",
      example = [[
local path = os.tmpname()
assert(tide.io.write_png(path, tide.zeros(4, 6, 3)))
assert(tide.io.read_png(path)).shape[2] --> 6
os.remove(path)]]},
    {"io.read_png", "path: string -> tensor", "An image as H×W×C uint8."},
    {"io.read_idx", "path: string -> tensor", "An array in MNIST's format, gzip or plain."},
    {"io.read_cifar10", "path: string -> tensor, tensor",
      "Images and labels (from 0) of one file of CIFAR-10's binary version."},
    {"io.read_cifar100", "path: string -> tensor, tensor, tensor",
      "Images, fine labels and coarse labels (from 0) of one file of CIFAR-100's binary version."},
    {"io.list_folder", "path: string -> string[], string[]",
      "The names of the files and of the folders inside, sorted.",
      example = "assert(tide.io.list_folder \".\")"},
    {"io.make_folder", "path: string -> boolean",
      "Makes a folder and those above it that are missing; one that is there is no failure."},
  },
}
