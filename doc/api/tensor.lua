-- What a tensor has: properties, methods that are no operations, indexing.

return {
  title = "Tensors",
  text = "Dims and positions count from 1, negative ones from the end. A function tide.f(x, …) of a tensor "
    .. "is also the method x:f(…). Element-wise operations have an in-place form with an underscore, "
    .. "x:add_(y), which is refused where it would spoil a gradient. + − * / ^ % and unary − work between "
    .. "tensors and numbers; comparisons are methods (x:lt(y)).",

  {
    title = "Indexing",
    text = [[
| form | gives |
| --- | --- |
| `t[i]` | position i of dim 1, which disappears; negative from the end |
| `t[{i, {a, b}, {}}]` | by dim: a number drops it, {a, b} or {a, b, step} keeps a range, {} keeps all |
| `t[mask]` | the elements where a uint8 mask of t's leading shape is not 0, in one dim |
| `t[positions]` | the positions that an int64 tensor names |
| `t[…] = v` | writes a number or a tensor that broadcasts, in place; not for positions |

Ranges and numbers give views on the same memory.]],
    {"Tensor:size", "dim: dim? -> ...integer", "The size of a dim, or all sizes.",
      example = [[
local n, m = tide.zeros(2, 3):size()
m --> 3
tide.zeros(2, 3):size(-1) --> 3]]},
    {"Tensor:nonzero", "-> tensor", "Positions (from 1, row-major, int64) of the elements that are not 0.",
      example = "tide.tensor({0, 5, 0, 7}):nonzero() --> [2, 4]  (2 int64)"},
  },

  {
    title = "Properties",
    {"Tensor.shape", "integer[]", "The sizes as a new table.", example = "#tide.zeros(2, 3).shape --> 2"},
    {"Tensor.dtype", "dtype", "The element type's name.", example = "tide.zeros(1).dtype --> float32"},
    {"Tensor.ndim", "integer", "The number of dims.", example = "tide.tensor(1).ndim --> 0"},
    {"Tensor.numel", "integer", "The number of elements.", example = "tide.zeros(2, 3).numel --> 6"},
    {"Tensor.grad", "tensor?", "A leaf's gradient, added up by backward; nil before, and may be set.",
      example = [[
local x = tide.tensor({1, 2}):requires_grad()
x:square():sum():backward()
x.grad --> [2., 4.]  (2 float32)
x.grad = nil]]},
    {"Tensor.is_leaf", "boolean", "Was requires_grad called on it?"},
    {"Tensor.needs_grad", "boolean", "Does a gradient flow through it: a leaf, or made from one?"},
    {"Tensor.version", "number", "How often its memory was written in place."},
  },

  {
    title = "Values out, and writing",
    {"Tensor:item", "-> number", "The number in a tensor of one element.", errors = "More elements, or none.",
      example = "tide.tensor({{5}}):item() --> 5"},
    {"Tensor:totable", "-> table|number", "Nested tables; a number for a 0-d tensor.",
      example = "tide.eye(2):totable()[2][2] --> 1"},
    {"Tensor:tobytes", "-> string", "Raw memory, row-major, in this machine's byte order.",
      example = "#tide.zeros(3):tobytes() --> 12"},
    {"Tensor:copy_", "source: operand -> tensor",
      "Writes the source's values, broadcast and converted; returns the tensor.",
      errors = "The tensor is in a graph and recording is on.",
      example = "tide.zeros(2):copy_(tide.tensor({1, 2}, \"int64\")) --> [1., 2.]  (2 float32)"},
    {"Tensor:fill_", "value: number -> tensor", "Writes one value; returns the tensor."},
    {"Tensor:zero_", "-> tensor", "Writes zeros; returns the tensor."},
    {"Tensor:free", "", "Gives the memory back now; the tensor must not be used again. Seldom needed."},
    {"Tensor:is_contiguous", "-> boolean", "Is it stored row-major without gaps?",
      example = "tide.zeros(2, 3):t():is_contiguous() --> false"},
    {"Tensor:shares_storage", "other: tensor -> boolean", "Do the two look at one memory?",
      example = [[
local x = tide.zeros(4)
x:shares_storage(x:reshape(2, 2)) --> true]]},
    {"Tensor:view", "...: sizes -> tensor", "Another name of reshape.",
      example = "tide.arange(4):view(2, -1).shape[2] --> 2"},
    {"Tensor:view_as", "other: tensor -> tensor", "reshape to other's shape."},
    {"Tensor:expand_as", "other: tensor -> tensor", "expand to other's shape.",
      example = "tide.ones(1, 2):expand_as(tide.zeros(3, 2)):sum():item() --> 6"},
  },

  {
    title = "Tests and comparisons",
    {"is_tensor", "x: any -> boolean", "Is x a tensor?", example = "tide.is_tensor {1, 2} --> false"},
    {"equal", "a: tensor, b: tensor -> boolean", "Same shape and all elements equal?"},
    {"allclose", "a: tensor, b: tensor, rtol: number = 1e-5, atol: number = 1e-8 -> boolean",
      "Is |a − b| ≤ atol + rtol·|b| everywhere? NaN differs from everything.",
      example = "tide.allclose(tide.ones(2), tide.ones(2) + 1e-7) --> true"},
    {"any", "x: tensor, dims: dims?, keepdim: boolean = false -> tensor", "Is any element not 0? uint8.",
      example = "tide.any(tide.tensor {0, 2}):item() --> 1"},
    {"all", "x: tensor, dims: dims?, keepdim: boolean = false -> tensor", "Is every element not 0? uint8.",
      example = "tide.all(tide.tensor {0, 2}):item() --> 0"},
  },

  {
    title = "Element types",
    {"float", "x: tensor -> tensor", "x:to(\"float32\")."},
    {"double", "x: tensor -> tensor", "x:to(\"float64\").",
      example = "tide.ones(1):double().dtype --> float64"},
    {"long", "x: tensor -> tensor", "x:to(\"int64\"), towards 0."},
    {"byte", "x: tensor -> tensor", "x:to(\"uint8\")."},
  },
}
