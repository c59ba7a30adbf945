-- Operations of the core's table, and the functions that are made of them. Signatures and sentences of the
-- table's operations come from the table.

return {
  title = "Operations",
  text = "Where one operand may be a number, both may be tensors of any shapes that broadcast as in numpy. "
    .. "Real types outrank integers, wide ones outrank narrow ones, and numbers outrank nothing. dims is "
    .. "one dim or a table of them, all when absent; keepdim keeps them with size 1. Attributes may be "
    .. "given by position or in a last table by name: x:sum(2, true) is x:sum {dims = 2, keepdim = true}. "
    .. "Images are N×H×W×C, weights kh×kw×in×out.",
  rest = "Derivatives as operations",   -- the section of operations that have no entry
  rest_text = "What derivative rules are written in. They are operations like the others.",

  {
    title = "Arithmetic",
    {"add", "tide.add(1, tide.tensor {1, 2}) --> [2., 3.]  (2 float32)"},
    {"sub", "tide.tensor({1, 2}) - 1 --> [0., 1.]  (2 float32)"},
    {"mul", "tide.tensor({1, 2}) * tide.tensor {3, 4} --> [3., 8.]  (2 float32)"},
    {"div", "1 / tide.tensor {1, 2} --> [1.0000, 0.5000]  (2 float32)"},
    {"pow", "2 ^ tide.tensor {1, 2, 3} --> [2., 4., 8.]  (3 float32)"},
    {"neg", "-tide.tensor {1, 2} --> [-1., -2.]  (2 float32)"},
    {"mod", "tide.tensor({-1, 5}) % 3 --> [2., 2.]  (2 float32)"},
    {"floor_div", "tide.floor_div(tide.tensor {-1, 5}, 3) --> [-1., 1.]  (2 float32)"},
    {"fma", "tide.fma(tide.tensor {1, 2}, 10, 1) --> [11., 21.]  (2 float32)"},
    {"square", "tide.tensor({-1, 0, 2}):square() --> [1., 0., 4.]  (3 float32)"},
    {"reciprocal", "tide.tensor({2, 4}):reciprocal() --> [0.5000, 0.2500]  (2 float32)"},
    {"abs", "tide.tensor({-1, 0, 2}):abs() --> [1., 0., 2.]  (3 float32)"},
    {"sign", "tide.tensor({-1, 0, 2}):sign() --> [-1., 0., 1.]  (3 float32)"},
    {"maximum", "tide.maximum(tide.tensor {-1, 0, 2}, 0) --> [0., 0., 2.]  (3 float32)"},
    {"minimum", "tide.minimum(tide.tensor {-1, 0, 2}, 0) --> [-1., 0., 0.]  (3 float32)"},
    {"clamp", "tide.clamp(tide.tensor {-1, 0, 2}, 0, 1) --> [0., 0., 1.]  (3 float32)"},
    {"where", "tide.where(tide.tensor {1, 0}, tide.tensor {5, 6}, -1) --> [ 5., -1.]  (2 float32)"},
    {"lincomb", "tide.lincomb {tide.tensor({2, 10}, \"float64\"), tide.ones(2), tide.ones(2)} --> [12., "
      .. "12.]  (2 float32)"},
    {"masked_fill", "x: tensor, mask: tensor, value: operand -> tensor",
      "x with value where the mask is not 0.",
      example = "tide.arange(3):masked_fill(tide.tensor({0, 1, 0}, \"uint8\"), 9) --> [1., 9., 3.]  (3 "
        .. "float32)"},
    {"masked_select", "x: tensor, mask: tensor -> tensor",
      "The elements of x where the uint8 mask of its shape is not 0, in one dim; x[mask].",
      example = [[
local x = tide.arange(3)
tide.masked_select(x, x:gt(1)) --> [2., 3.]  (2 float32)]]},
  },

  {
    title = "Comparisons and logic",
    text = "Results are uint8, 1 for true. Lua's own < and == cannot give tensors, so these are methods.",
    {"eq", "tide.arange(3):eq(2) --> [0, 1, 0]  (3 uint8)"},
    {"ne", "tide.arange(3):ne(2) --> [1, 0, 1]  (3 uint8)"},
    {"lt", "tide.arange(3):lt(2) --> [1, 0, 0]  (3 uint8)"},
    {"le", "tide.arange(3):le(2) --> [1, 1, 0]  (3 uint8)"},
    {"gt", "tide.arange(3):gt(2) --> [0, 0, 1]  (3 uint8)"},
    {"ge", "tide.arange(3):ge(2) --> [0, 1, 1]  (3 uint8)"},
    {"logical_and", "tide.logical_and(tide.tensor {1, 0}, 1) --> [1, 0]  (2 uint8)"},
    {"logical_or", "tide.logical_or(tide.tensor {1, 0}, 1) --> [1, 1]  (2 uint8)"},
    {"logical_xor", "tide.logical_xor(tide.tensor {1, 0}, 1) --> [0, 1]  (2 uint8)"},
    {"logical_not", "tide.tensor({1, 0}):logical_not() --> [0, 1]  (2 uint8)"},
    {"isnan", "tide.tensor({0 / 0, 1}):isnan() --> [1, 0]  (2 uint8)"},
    {"isinf", "tide.tensor({math.huge, 1}):isinf() --> [1, 0]  (2 uint8)"},
    {"isfinite", "tide.tensor({math.huge, 1}):isfinite() --> [0, 1]  (2 uint8)"},
  },

  {
    title = "Functions, element by element",
    {"exp", "tide.tensor({-1, 0, 2}):exp() --> [0.3679, 1.0000, 7.3891]  (3 float32)"},
    {"expm1", "tide.tensor({-1, 0, 2}):expm1() --> [-0.6321, 0.0000, 6.3891]  (3 float32)"},
    {"log", "tide.tensor({1, 2}):log() --> [0.0000, 0.6931]  (2 float32)"},
    {"log1p", "tide.tensor({0, 1}):log1p() --> [0.0000, 0.6931]  (2 float32)"},
    {"log2", "tide.tensor({1, 8}):log2() --> [0., 3.]  (2 float32)"},
    {"log10", "tide.tensor({1, 1000}):log10() --> [0., 3.]  (2 float32)"},
    {"sqrt", "tide.tensor({4, 9}):sqrt() --> [2., 3.]  (2 float32)"},
    {"rsqrt", "tide.tensor({4, 16}):rsqrt() --> [0.5000, 0.2500]  (2 float32)"},
    {"sin", "tide.tensor({-1, 0, 2}):sin() --> [-0.8415, 0.0000, 0.9093]  (3 float32)"},
    {"cos", "tide.tensor({-1, 0, 2}):cos() --> [ 0.5403, 1.0000, -0.4161]  (3 float32)"},
    {"tan", "tide.tensor({-1, 0, 2}):tan() --> [-1.5574, 0.0000, -2.1850]  (3 float32)"},
    {"asin", "tide.tensor({0, 1}):asin() --> [0.0000, 1.5708]  (2 float32)"},
    {"acos", "tide.tensor({0, 1}):acos() --> [1.5708, 0.0000]  (2 float32)"},
    {"atan", "tide.tensor({-1, 0, 2}):atan() --> [-0.7854, 0.0000, 1.1071]  (3 float32)"},
    {"atan2", "tide.atan2(tide.tensor {1, -1}, 1) --> [ 0.7854, -0.7854]  (2 float32)"},
    {"sinh", "tide.tensor({-1, 0, 2}):sinh() --> [-1.1752, 0.0000, 3.6269]  (3 float32)"},
    {"cosh", "tide.tensor({-1, 0, 2}):cosh() --> [1.5431, 1.0000, 3.7622]  (3 float32)"},
    {"tanh", "tide.tensor({-1, 0, 2}):tanh() --> [-0.7616, 0.0000, 0.9640]  (3 float32)"},
    {"erf", "tide.tensor({-1, 0, 2}):erf() --> [-0.8427, 0.0000, 0.9953]  (3 float32)"},
    {"erfc", "tide.tensor({-1, 0, 2}):erfc() --> [1.8427, 1.0000, 0.0047]  (3 float32)"},
    {"sigmoid", "tide.tensor({-1, 0, 2}):sigmoid() --> [0.2689, 0.5000, 0.8808]  (3 float32)"},
    {"log_sigmoid", "tide.tensor({-1, 0, 2}):log_sigmoid() --> [-1.3133, -0.6931, -0.1269]  (3 float32)"},
    {"softplus", "tide.tensor({-1, 0, 2}):softplus() --> [0.3133, 0.6931, 2.1269]  (3 float32)"},
    {"relu", "tide.tensor({-1, 0, 2}):relu() --> [0., 0., 2.]  (3 float32)"},
    {"silu", "tide.tensor({-1, 0, 2}):silu() --> [-0.2689, 0.0000, 1.7616]  (3 float32)"},
    {"gelu", "tide.tensor({-1, 0, 2}):gelu() --> [-0.1587, 0.0000, 1.9545]  (3 float32)"},
    {"gelu_tanh", "tide.tensor({-1, 0, 2}):gelu_tanh() --> [-0.1588, 0.0000, 1.9546]  (3 float32)"},
    {"floor", "tide.tensor({-1.5, 1.5}):floor() --> [-2., 1.]  (2 float32)"},
    {"ceil", "tide.tensor({-1.5, 1.5}):ceil() --> [-1., 2.]  (2 float32)"},
    {"round", "tide.tensor({0.5, 1.5, 2.5}):round() --> [0., 2., 2.]  (3 float32)"},
    {"trunc", "tide.tensor({-1.5, 1.5}):trunc() --> [-1., 1.]  (2 float32)"},
  },

  {
    title = "Reductions",
    {"sum", "tide.ones(2, 3):sum(1) --> [2., 2., 2.]  (3 float32)"},
    {"prod", "tide.arange(4):prod() --> 24.  (float32)"},
    {"mean", "x: tensor, dims: dims?, keepdim: boolean = false -> tensor",
      "Mean over dims, or over all; an empty one gives NaN.",
      example = "tide.arange(4):mean() --> 2.5000  (float32)"},
    {"var", "x: tensor, dims: dims?, keepdim: boolean = false, unbiased: boolean = true -> tensor",
      "Variance over dims, or over all; unbiased divides by n − 1, else by n.",
      example = "tide.arange(3):var() --> 1.  (float32)"},
    {"std", "x: tensor, dims: dims?, keepdim: boolean = false, unbiased: boolean = true -> tensor",
      "Standard deviation, the root of var.", example = "tide.arange(3):std() --> 1.  (float32)"},
    {"max", example = [[
local most, at = tide.tensor({{1, 5}, {7, 2}}):max(2)
most --> [5., 7.]  (2 float32)
at --> [2, 1]  (2 int64)]]},
    {"min", "tide.tensor({3, 1, 2}):min():item() --> 1"},
    {"argmax", "x: tensor, dim: dim?, keepdim: boolean = false -> tensor",
      "Position (from 1, int64) of the greatest element along dim, or in row-major order over all.",
      example = "tide.tensor({3, 9, 2}):argmax() --> 2  (int64)"},
    {"argmin", "x: tensor, dim: dim?, keepdim: boolean = false -> tensor",
      "Position of the least element, as argmax.",
      example = "tide.tensor({3, 9, 2}):argmin() --> 3  (int64)"},
    {"argsort", "x: tensor, dim: dim = -1, descending: boolean = false -> tensor",
      "Positions from 1 that sort x along dim, int64: what sort gives as its second result.",
      example = "tide.tensor({3, 9, 2}):argsort() --> [3, 1, 2]  (3 int64)"},
    {"one_hot", "classes: tensor, count: integer? -> tensor",
      "int64 classes from 1 as rows of float32 that are 1 at the class and 0 elsewhere; count is the greatest class "
        .. "where it is not given.", raises = "A class is not from 1 to count.",
      example = "tide.one_hot(tide.tensor({2, 1}, \"int64\"), 3)[1] --> [0., 1., 0.]  (3 float32)"},
    {"norm", "tide.tensor({3, 4}):norm() --> 5.  (float32)"},
    {"logsumexp", "tide.tensor({1000, 1000}):logsumexp() --> 1000.6932  (float32)"},
    {"cumsum", "tide.arange(4):cumsum(1) --> [ 1., 3., 6., 10.]  (4 float32)"},
    {"softmax", "tide.tensor({0, 0}):softmax() --> [0.5000, 0.5000]  (2 float32)"},
    {"log_softmax", "tide.tensor({0, 0}):log_softmax() --> [-0.6931, -0.6931]  (2 float32)"},
    {"sort", example = [[
local sorted, from = tide.tensor({3, 1, 2}):sort()
from --> [2, 3, 1]  (3 int64)]]},
    {"topk", "x: tensor, k: integer, dim: dim = -1, largest: boolean = true -> tensor, tensor",
      "The k greatest (or least) elements along dim, in order, and their positions.",
      example = "(tide.tensor({3, 9, 2}):topk(2)) --> [9., 3.]  (2 float32)"},
  },

  {
    title = "Products",
    {"matmul", "a: tensor, b: tensor -> tensor",
      "Matrix product; a 1-d operand is a row on the left and a column on the right, further dims broadcast "
        .. "as batches.",
      errors = "Inner sizes differ.",
      example = "tide.ones(2, 3):matmul(tide.ones(3)) --> [3., 3.]  (2 float32)"},
    {"mm", note = "Both operands have at least two dims.",
      example = "tide.ones(1, 3):mm(tide.ones(3, 2)) --> [[3., 3.]]  (1×2 float32)"},
    {"dot", "a: tensor, b: tensor -> tensor", "Sum of products of two 1-d tensors.",
      example = "tide.arange(3):dot(tide.arange(3)) --> 14.  (float32)"},
    {"outer", "a: tensor, b: tensor -> tensor", "Every product of an element of a with one of b, both 1-d.",
      example = "tide.outer(tide.arange(2), tide.arange(3)).shape[2] --> 3"},
    {"einsum", "pattern: string, ...: tensor -> tensor",
      "Einstein summation: letters name dims, and those the result does not name are summed over.",
      note = "Operands are contracted from left to right; an index occurs once in an operand.",
      example = "tide.einsum(\"bij,bjk->bik\", tide.ones(4, 2, 3), tide.ones(4, 3, 5)).shape[3] --> 5"},
  },

  {
    title = "Shape",
    text = "These give views where the memory allows it.",
    {"reshape", "tide.arange(4):reshape(2, -1):size(2) --> 2"},
    {"permute", "tide.zeros(2, 3, 4):permute(3, 1, 2):size(1) --> 4"},
    {"expand", "tide.ones(1, 2):expand(3, -1):sum():item() --> 6"},
    {"unsqueeze", "tide.zeros(3):unsqueeze(1):size(1) --> 1"},
    {"squeeze", "tide.zeros(1, 3, 1):squeeze().ndim --> 1"},
    {"transpose", "x: tensor, a: dim, b: dim -> tensor", "Dims a and b exchanged.",
      example = "tide.zeros(2, 3):transpose(1, 2):size(1) --> 3"},
    {"t", "x: tensor -> tensor", "The last two dims exchanged: a matrix's transpose.",
      example = "tide.zeros(2, 3):t():size(1) --> 3"},
    {"flatten", "x: tensor, first: dim = 1, last: dim = -1 -> tensor", "Dims first … last made one.",
      example = "tide.zeros(2, 3, 4):flatten(2):size(2) --> 12"},
    {"contiguous", "tide.zeros(2, 3):t():contiguous():is_contiguous() --> true"},
    {"clone", "tide.arange(2):clone() --> [1., 2.]  (2 float32)"},
    {"to", "tide.tensor({1.7}):to \"int64\" --> [1]  (1 int64)"},
    {"narrow", "tide.arange(5):narrow(1, 2, 3) --> [2., 3., 4.]  (3 float32)"},
    {"select", "tide.arange(5):select(1, -1):item() --> 5"},
    {"cat", "tide.cat({tide.zeros(2), tide.ones(1)}) --> [0., 0., 1.]  (3 float32)"},
    {"stack", "list: tensor[], dim: dim = 1 -> tensor", "Tensors of one shape joined along a new dim.",
      example = "tide.stack({tide.zeros(3), tide.ones(3)}):size(1) --> 2"},
    {"split", "x: tensor, sizes: integer|integer[], dim: dim = 1 -> tensor[]",
      "Pieces of the given sizes, or of one size with the rest last.",
      example = "#tide.arange(5):split(2) --> 3"},
    {"chunk", "x: tensor, count: integer, dim: dim = 1 -> tensor[]",
      "The dim in count pieces, the first ones larger.",
      example = "tide.arange(5):chunk(2)[1]:size(1) --> 3"},
    {"flip", "x: tensor, dims: dims = 1 -> tensor", "Elements in reverse order along the dims.",
      example = "tide.arange(3):flip() --> [3., 2., 1.]  (3 float32)"},
    {"tile", "x: tensor, ...: sizes -> tensor", "The tensor repeated so many times along each dim.",
      example = "tide.arange(2):tile(2) --> [1., 2., 1., 2.]  (4 float32)"},
    {"pad", "x: tensor, pairs: table -> tensor", "Zeros put around.",
      args = {pairs = "pairs[dim] is {before, after}, or a number for both; absent dims are kept"},
      example = "tide.ones(2):pad {{1, 0}} --> [0., 1., 1.]  (3 float32)"},
    {"tril", "x: tensor, k: integer = 0 -> tensor", "The lower triangle, with zeros above diagonal k.",
      example = "tide.ones(2, 2):tril():sum():item() --> 3"},
    {"triu", "x: tensor, k: integer = 0 -> tensor", "The upper triangle, with zeros below diagonal k."},
    {"diag", "x: tensor -> tensor", "The diagonal of a matrix, or the diagonal matrix of a 1-d tensor.",
      example = "tide.diag(tide.arange(2)):diag() --> [1., 2.]  (2 float32)"},
  },

  {
    title = "By position",
    text = "An index is an int64 tensor of positions from 1.",
    {"index_select", "tide.arange(5):index_select(tide.tensor({5, 1}, \"int64\")) --> [5., 1.]  (2 float32)"},
    {"gather", "tide.tensor({{1, 2}, {3, 4}}):gather(tide.tensor({{2}, {1}}, \"int64\"), 2):squeeze() --> "
      .. "[2., 3.]  (2 float32)"},
    {"index_add",
      "tide.ones(3):index_add(tide.tensor({1, 1, 2}, \"int64\"), 1, 2) --> [2., 1.]  (2 float32)"},
    {"scatter_add",
      "tide.ones(3):scatter_add(tide.tensor({1, 1, 2}, \"int64\"), 1, 2) --> [2., 1.]  (2 float32)"},
    {"narrow_grad", note = "start counts from 0.",
      example = "tide.ones(2):narrow_grad(1, 2, 1, 4) --> [0., 0., 1., 1.]  (4 float32)"},
  },

  {
    title = "Images",
    {"conv2d", returns = "N×H'×W'×O, H' = ⌊(H + 2·padding − dilation·(kh − 1) − 1)/stride⌋ + 1.",
      example = "tide.ones(1, 8, 8, 3):conv2d(tide.ones(3, 3, 3, 4), {stride = 2, padding = 1}):size(4) --> "
        .. "4"},
    {"conv2d_fused", returns = "As conv2d.",
      note = "parts says which of bias, chan and add are given: the sum of 1, 2 and 4; 0 means the first ones. "
        .. "activation: 0 none, 1 relu, 2 silu, 3 gelu, 4 tanh, 5 sigmoid. chan is added to every pixel of its "
        .. "image; add is a residual. Its derivative computes the convolution once more for silu and gelu.",
      example = "tide.ones(1, 2, 2, 1):conv2d_fused(-tide.ones(1, 1, 1, 1), {activation = 1}):sum() --> 0. (float32)"},
    {"conv2d_input_grad", returns = "N×height×width×C."},
    {"conv2d_weight_grad", returns = "kh×kw×(C/groups)×O."},
    {"max_pool2d", "(tide.ones(1, 4, 4, 2):max_pool2d(2)):size(2) --> 2"},
    {"avg_pool2d", "tide.ones(1, 4, 4, 2):avg_pool2d(2):size(2) --> 2"},
    {"adaptive_avg_pool2d", "tide.ones(1, 5, 5, 2):adaptive_avg_pool2d(1):size(2) --> 1"},
    {"upsample_nearest", "tide.ones(1, 2, 2, 1):upsample_nearest {4, 6}:size(3) --> 6"},
    {"upsample_bilinear", "tide.ones(1, 2, 2, 1):upsample_bilinear {4, 6}:size(3) --> 6"},
  },

  {
    title = "Normalisation",
    {"group_norm", source = "Wu and He 2018; rows: Ba et al. 2016.",
      returns = "The result, and the mean and 1/√(variance + eps) of each sample and group.",
      example = "(tide.randn(2, 5, 5, 8):group_norm(nil, nil, 4)):size(4) --> 8"},
    {"group_norm_act",
      example = "(tide.ones(2, 3, 4):group_norm_act({groups = 2, activation = 5})):sum():item() --> 12"},
    {"attention", source = "Vaswani et al. 2017; Milakov and Gimelshein 2018; Dao et al. 2022.",
      example = "(tide.attention(tide.ones(1, 5, 2, 4), tide.ones(1, 3, 2, 4), tide.ones(1, 3, 2, 7))):size(4) --> 7"},
    {"channel_norm", source = "Ioffe and Szegedy 2015.",
      example = "(tide.randn(2, 5, 5, 8):channel_norm()):size(4) --> 8"},
  },

  {
    title = "Linear algebra",
    text = "Matrices are the last two dims; the others are batches. Factorisations go through LAPACK. "
      .. "tide.linalg has all of these, and what is made of them; the latter are methods too.",
    {"solve", "tide.solve(tide.tensor {{2, 0}, {0, 4}}, tide.tensor {2, 2}) --> [1.0000, 0.5000]  (2 "
      .. "float32)"},
    {"inv", "tide.inv(tide.tensor {{2, 0}, {0, 4}}):diag() --> [0.5000, 0.2500]  (2 float32)"},
    {"det", "tide.det(tide.tensor {{2, 0}, {0, 4}}):item() --> 8"},
    {"slogdet", example = [[
local sign, log = tide.slogdet(tide.eye(3) * -1)
sign:item() --> -1]]},
    {"solve_triangular",
      "tide.tensor({{2, 0}, {1, 1}}):solve_triangular(tide.tensor {2, 2}) --> [1., 1.]  (2 float32)"},
    {"cholesky", "tide.cholesky(tide.tensor {{4, 0}, {0, 9}}):diag() --> [2., 3.]  (2 float32)"},
    {"lu_factor", example = [[
local a, b = tide.tensor {{0, 2}, {1, 0}}, tide.tensor {2, 3}
local lu, pivots = tide.lu_factor(a)
tide.lu_solve(lu, pivots, b) --> [3., 1.]  (2 float32)]]},
    {"lu_solve", note = "See lu_factor."},
    {"qr", example = [[
local a = tide.randn(4, 2)
local q, r = tide.qr(a)
tide.allclose(q:matmul(r), a, 1e-4, 1e-5) --> true]]},
    {"svd", example = [[
local a = tide.randn(4, 2)
local u, s, vt = tide.svd(a)
tide.allclose((u * s):matmul(vt), a, 1e-4, 1e-5) --> true]]},
    {"svdvals", "tide.svdvals(tide.tensor {{3, 0}, {0, 4}}) --> [4., 3.]  (2 float32)"},
    {"eigh", example = [[
local values, vectors = tide.eigh(tide.tensor {{2, 0}, {0, 1}})
values --> [1., 2.]  (2 float32)]]},
    {"eigvalsh", "tide.eigvalsh(tide.tensor {{2, 0}, {0, 1}}) --> [1., 2.]  (2 float32)"},
    {"lstsq", "tide.lstsq(tide.tensor {{1, 0}, {0, 2}, {0, 0}}, tide.tensor {3, 4, 5}) --> [3., 2.]  (2 "
      .. "float32)"},
    {"pinv", "tide.pinv(tide.tensor {{2, 0}, {0, 0}}):diag() --> [0.5000, 0.0000]  (2 float32)"},
    {"matrix_exp", "tide.matrix_exp(tide.zeros(2, 2)):diag() --> [1., 1.]  (2 float32)"},
    {"linalg.trace", "a: tensor -> tensor", "Sum of the diagonal.",
      example = "tide.linalg.trace(tide.eye(3)):item() --> 3"},
    {"linalg.kron", "a: tensor, b: tensor -> tensor",
      "Kronecker product: each element of a times all of b, in blocks.",
      example = "tide.linalg.kron(tide.eye(2), tide.ones(1, 3)):size(2) --> 6"},
    {"linalg.matrix_power", "a: tensor, n: integer -> tensor",
      "a to a whole power; a negative one is the power of the inverse.",
      example = "tide.linalg.matrix_power(tide.eye(2) * 2, 3):diag() --> [8., 8.]  (2 float32)"},
    {"linalg.lu", "a: tensor -> tensor, tensor, tensor",
      "P, L, U with a = P·L·U: a permutation, lower with ones on the diagonal, upper.",
      note = "lu_factor and lu_solve are the forms to compute with.",
      example = [[
local p, l, u = tide.linalg.lu(tide.tensor {{0, 2}, {1, 0}})
p:matmul(l):matmul(u)[1] --> [0., 2.]  (2 float32)]]},
    {"linalg.cholesky_solve", "l: tensor, b: tensor -> tensor",
      "x with l·lᵀ·x = b, l the lower Cholesky factor.",
      example = "tide.linalg.cholesky_solve(tide.eye(2) * 2, tide.tensor {4, 8}) --> [1., 2.]  (2 float32)"},
    {"linalg.vector_norm", "x: tensor, p: number = 2, dims: dims?, keepdim: boolean = false -> tensor",
      "(Σ|x|ᵖ)^(1/p); p = ±math.huge gives the greatest and the least |x|, 0 counts what is not 0.",
      example = "tide.linalg.vector_norm(tide.tensor {3, -4}, 1):item() --> 7"},
    {"linalg.matrix_norm", "a: tensor, kind: string|number = \"fro\" -> tensor",
      "\"fro\" (Frobenius), \"nuc\" (sum of singular values), ±2 (greatest, least singular value), ±1 "
        .. "(column sums), ±math.huge (row sums).",
      example = "tide.linalg.matrix_norm(tide.eye(4)):item() --> 2"},
    {"linalg.matrix_rank", "a: tensor, opts: options? -> tensor",
      "How many singular values exceed rtol times the greatest; int64.",
      options = "rtol: number? | the type's rounding times the greater size",
      example = "tide.linalg.matrix_rank(tide.ones(3, 3)):item() --> 1"},
    {"linalg.cond", "a: tensor, kind: string|number = 2 -> tensor",
      "Condition number: greatest over least singular value, or |a|·|a⁻¹| in another matrix_norm.",
      example = "tide.linalg.cond(tide.eye(3) * 5):item() --> 1"},
  },
}
