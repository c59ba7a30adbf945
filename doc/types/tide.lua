---@meta
-- luacheck: ignore
-- Made by `bin/tide doc/make.lua` from doc/api.lua; change it there. For editors that read
-- LuaCATS annotations: put this folder on the library path of the workspace.

---@alias tide.dtype "float32"|"float64"|"int64"|"uint8"

---@class tide.Dataset
---@field images tide.Tensor N×H×W×C, uint8
---@field labels tide.Tensor N, int64, from 1
---@field raw_labels tide.Tensor N, as in the file
---@field classes string[]?

---@class tide.nn.Module
---@field training boolean
---@field forward fun(self: tide.nn.Module, ...): any
---@overload fun(...): tide.Tensor
local Module = {}

---@class tide.Tensor
---@field shape integer[] The sizes as a new table.
---@field dtype tide.dtype The element type's name.
---@field ndim integer The number of dims.
---@field numel integer The number of elements.
---@field grad tide.Tensor? A leaf's gradient, added up by backward; nil before, and may be set.
---@field is_leaf boolean Was requires_grad called on it?
---@field needs_grad boolean Does a gradient flow through it: a leaf, or made from one?
---@field version number How often its memory was written in place.
---@operator add(tide.Tensor|number): tide.Tensor
---@operator sub(tide.Tensor|number): tide.Tensor
---@operator mul(tide.Tensor|number): tide.Tensor
---@operator div(tide.Tensor|number): tide.Tensor
---@operator pow(tide.Tensor|number): tide.Tensor
---@operator mod(tide.Tensor|number): tide.Tensor
---@operator unm: tide.Tensor
---@operator len: integer
---@field [integer|table|tide.Tensor] tide.Tensor
local Tensor = {}

---@class tide.Generator
local Generator = {}

---@class tide.Optimiser
local Optimiser = {}

---@class tide.Schedule
local Schedule = {}

---@class tide.EMA
local EMA = {}

---@class tide.Loader
---@field batches integer in an epoch
local Loader = {}

---@class tide.Figure
local Figure = {}

---@class tide.Axes
local Axes = {}

---@class tide.Canvas
local Canvas = {}

---@class tide.Solution
---@field stats table nfe (evaluations), njev (Jacobians), nlu (factorisations), nfe_b (evaluations backward so far), replayed (steps made again between checkpoints), accepted, rejected, steps, h_min, h_max, t_first, t_last, saved, worst_index.
local Solution = {}

---@class tide.NoiseSchedule
local NoiseSchedule = {}

---@class tide.Sample
---@field stats table nfe (evaluations), calls (of the network; two an evaluation with guidance), nfe_b (backward so far), bytes_kept (latents kept for the gradient), steps.
local Sample = {}

---@class tide
local tide = {}
tide.nn = {}
tide.nn.init = {}
tide.optim = {}
tide.ode = {}
tide.implicit = {}
tide.linalg = {}
tide.data = {}
tide.io = {}
tide.plot = {}
tide.repl = {}

---A tensor from nested tables of one shape, from a number (0-d), or a converted copy of a tensor.
---@param values table|number|boolean|tide.Tensor
---@param dtype? tide.dtype
---@return tide.Tensor
function tide.tensor(values, dtype) end

---All zeros.
---@param ... integer|integer[]
---@return tide.Tensor
function tide.zeros(...) end

---All ones.
---@param ... integer|integer[]
---@return tide.Tensor
function tide.ones(...) end

---All of one value.
---@param sizes integer|integer[] a table
---@param value number
---@param dtype? tide.dtype
---@return tide.Tensor
function tide.full(sizes, value, dtype) end

---Memory as it is found, to be written.
---@param ... integer|integer[]
---@return tide.Tensor
function tide.empty(...) end

---The n×m identity matrix; m is n by default.
---@param n integer
---@param m? integer
---@param dtype? tide.dtype
---@return tide.Tensor
function tide.eye(n, m, dtype) end

---first, first + step, … up to and including last, as Lua's for counts; arange(n) is 1 … n.
---@param first number
---@param last number
---@param step? number default 1
---@param dtype? tide.dtype
---@return tide.Tensor
function tide.arange(first, last, step, dtype) end

---count numbers at equal distances, both ends included.
---@param first number
---@param last number
---@param count integer
---@param dtype? tide.dtype
---@return tide.Tensor
function tide.linspace(first, last, count, dtype) end

---Zeros of x's shape and type.
---@param x tide.Tensor
---@param dtype? tide.dtype
---@return tide.Tensor
function tide.zeros_like(x, dtype) end

---Ones of x's shape and type.
---@param x tide.Tensor
---@param dtype? tide.dtype
---@return tide.Tensor
function tide.ones_like(x, dtype) end

---Unwritten memory of x's shape and type.
---@param x tide.Tensor
---@param dtype? tide.dtype
---@return tide.Tensor
function tide.empty_like(x, dtype) end

---One value in x's shape and type.
---@param x tide.Tensor
---@param value number
---@param dtype? tide.dtype
---@return tide.Tensor
function tide.full_like(x, value, dtype) end

---A tensor from raw memory: row-major, in this machine's byte order.
---@param bytes string
---@param sizes integer|integer[]
---@param dtype? tide.dtype default uint8
---@return tide.Tensor
function tide.frombytes(bytes, sizes, dtype) end

---Grids of coordinates from 1-d tensors; result i varies along dim i.
---@param ... tide.Tensor
---@return tide.Tensor ...
function tide.meshgrid(...) end

---Uniform in [0, 1).
---@param ... integer|integer[]
---@return tide.Tensor
function tide.rand(...) end

---Standard normal.
---@param ... integer|integer[]
---@return tide.Tensor
function tide.randn(...) end

---Whole numbers from low to high, both included, int64.
---@param low integer
---@param high integer
---@param ... integer|integer[]
---@return tide.Tensor
function tide.randint(low, high, ...) end

---1 … n in random order, int64.
---@param n integer
---@return tide.Tensor
function tide.randperm(n) end

---1 with probability p, else 0.
---@param p number
---@param ... integer|integer[]
---@return tide.Tensor
function tide.bernoulli(p, ...) end

---Starts the default generator anew.
---@param seed integer
function tide.manual_seed(seed) end

---The generator behind tide.rand and the others.
---@return tide.Generator
function tide.default_generator() end

---A generator of its own; without a seed it takes the clock's. It has the methods rand, randn, randint, randperm and bernoulli, with the arguments of the functions above.
---@param seed? integer
---@return tide.Generator
function tide.generator(seed) end

---Starts the generator anew; returns it.
---@param seed integer
---@return tide.Generator
function Generator:seed(seed) end

---The seed and the counter; with two numbers, sets them.
---@param seed? integer
---@param counter? integer
---@return integer
---@return integer
function Generator:state(seed, counter) end

---Uniform in [0, 1), as tide.rand.
---@param ... integer|integer[]
---@return tide.Tensor
function Generator:rand(...) end

---Standard normal, as tide.randn.
---@param ... integer|integer[]
---@return tide.Tensor
function Generator:randn(...) end

---Whole numbers, as tide.randint.
---@param low integer
---@param high integer
---@param ... integer|integer[]
---@return tide.Tensor
function Generator:randint(low, high, ...) end

---A permutation, as tide.randperm.
---@param n integer
---@return tide.Tensor
function Generator:randperm(n) end

---0 or 1, as tide.bernoulli.
---@param p number
---@param ... integer|integer[]
---@return tide.Tensor
function Generator:bernoulli(p, ...) end

---The size of a dim, or all sizes.
---@param dim? integer
---@return integer ...
function Tensor:size(dim) end

---Positions (from 1, row-major, int64) of the elements that are not 0.
---@return tide.Tensor
function Tensor:nonzero() end

---The number in a tensor of one element.
---@return number
function Tensor:item() end

---Nested tables; a number for a 0-d tensor.
---@return table|number
function Tensor:totable() end

---Raw memory, row-major, in this machine's byte order.
---@return string
function Tensor:tobytes() end

---Writes the source's values, broadcast and converted; returns the tensor.
---@param source tide.Tensor|number
---@return tide.Tensor
function Tensor:copy_(source) end

---Writes one value; returns the tensor.
---@param value number
---@return tide.Tensor
function Tensor:fill_(value) end

---Writes zeros; returns the tensor.
---@return tide.Tensor
function Tensor:zero_() end

---Gives the memory back now; the tensor must not be used again. Seldom needed.
function Tensor:free() end

---Is it stored row-major without gaps?
---@return boolean
function Tensor:is_contiguous() end

---Do the two look at one memory?
---@param other tide.Tensor
---@return boolean
function Tensor:shares_storage(other) end

---Another name of reshape.
---@param ... integer|integer[]
---@return tide.Tensor
function Tensor:view(...) end

---reshape to other's shape.
---@param other tide.Tensor
---@return tide.Tensor
function Tensor:view_as(other) end

---expand to other's shape.
---@param other tide.Tensor
---@return tide.Tensor
function Tensor:expand_as(other) end

---Is x a tensor?
---@param x any
---@return boolean
function tide.is_tensor(x) end

---Same shape and all elements equal?
---@param a tide.Tensor
---@param b tide.Tensor
---@return boolean
function tide.equal(a, b) end

---Is |a − b| ≤ atol + rtol·|b| everywhere? NaN differs from everything.
---@param a tide.Tensor
---@param b tide.Tensor
---@param rtol? number default 1e-5
---@param atol? number default 1e-8
---@return boolean
function tide.allclose(a, b, rtol, atol) end

---Is any element not 0? uint8.
---@param x tide.Tensor
---@param dims? integer|integer[]
---@param keepdim? boolean default false
---@return tide.Tensor
function tide.any(x, dims, keepdim) end

---Is every element not 0? uint8.
---@param x tide.Tensor
---@param dims? integer|integer[]
---@param keepdim? boolean default false
---@return tide.Tensor
function tide.all(x, dims, keepdim) end

---x:to("float32").
---@param x tide.Tensor
---@return tide.Tensor
function tide.float(x) end

---x:to("float64").
---@param x tide.Tensor
---@return tide.Tensor
function tide.double(x) end

---x:to("int64"), towards 0.
---@param x tide.Tensor
---@return tide.Tensor
function tide.long(x) end

---x:to("uint8").
---@param x tide.Tensor
---@return tide.Tensor
function tide.byte(x) end

---a + b.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.add(a, b) end

---a − b.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.sub(a, b) end

---a·b, element by element.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.mul(a, b) end

---a/b.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.div(a, b) end

---aᵇ.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.pow(a, b) end

---−x.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.neg(x) end

---a − b·⌊a/b⌋, of b's sign as in Lua.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.mod(a, b) end

---⌊a/b⌋; 0 for integers divided by 0.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.floor_div(a, b) end

---a·b + c.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@param c tide.Tensor|number
---@return tide.Tensor
function tide.fma(a, b, c) end

---x².
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.square(x) end

---1/x.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.reciprocal(x) end

---Absolute value; the derivative is 0 at 0.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.abs(x) end

---−1, 0 or 1.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.sign(x) end

---The larger of a and b; equal ones share the gradient.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.maximum(a, b) end

---The smaller of a and b; equal ones share the gradient.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.minimum(a, b) end

---x limited to [lo, hi]; the gradient passes inside, ends included.
---@param x tide.Tensor|number
---@param lo tide.Tensor|number
---@param hi tide.Tensor|number
---@return tide.Tensor
function tide.clamp(x, lo, hi) end

---a where the condition is not 0, else b.
---@param condition tide.Tensor|number
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.where(condition, a, b) end

---Σ cᵢ·xᵢ in one pass: {c, x₁, x₂, …} with c the constants in one dim of float64.
---@param tensors tide.Tensor[]
---@return tide.Tensor
function tide.lincomb(tensors) end

---x with value where the mask is not 0.
---@param x tide.Tensor
---@param mask tide.Tensor
---@param value tide.Tensor|number
---@return tide.Tensor
function tide.masked_fill(x, mask, value) end

---The elements of x where the uint8 mask of its shape is not 0, in one dim; x[mask].
---@param x tide.Tensor
---@param mask tide.Tensor
---@return tide.Tensor
function tide.masked_select(x, mask) end

---a = b.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.eq(a, b) end

---a ≠ b.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.ne(a, b) end

---a < b.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.lt(a, b) end

---a ≤ b.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.le(a, b) end

---a > b.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.gt(a, b) end

---a ≥ b.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.ge(a, b) end

---a ≠ 0 and b ≠ 0.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.logical_and(a, b) end

---a ≠ 0 or b ≠ 0.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.logical_or(a, b) end

---Exactly one of a, b is not 0.
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.logical_xor(a, b) end

---Is it 0?
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.logical_not(x) end

---Is it NaN?
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.isnan(x) end

---Is it ±∞?
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.isinf(x) end

---Is it neither NaN nor ±∞?
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.isfinite(x) end

---eˣ.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.exp(x) end

---eˣ − 1, accurate near 0.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.expm1(x) end

---Natural logarithm.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.log(x) end

---log(1 + x), accurate near 0.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.log1p(x) end

---Logarithm to base 2.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.log2(x) end

---Logarithm to base 10.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.log10(x) end

---Square root.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.sqrt(x) end

---1/√x.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.rsqrt(x) end

---Sine of radians.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.sin(x) end

---Cosine of radians.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.cos(x) end

---Tangent of radians.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.tan(x) end

---Inverse sine.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.asin(x) end

---Inverse cosine.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.acos(x) end

---Inverse tangent.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.atan(x) end

---Angle of the point (b, a), in (−π, π].
---@param a tide.Tensor|number
---@param b tide.Tensor|number
---@return tide.Tensor
function tide.atan2(a, b) end

---Hyperbolic sine.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.sinh(x) end

---Hyperbolic cosine.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.cosh(x) end

---Hyperbolic tangent.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.tanh(x) end

---Error function.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.erf(x) end

---1 − erf x.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.erfc(x) end

---1/(1 + e⁻ˣ).
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.sigmoid(x) end

---log sigmoid x.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.log_sigmoid(x) end

---log(1 + eˣ).
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.softplus(x) end

---max(x, 0); the derivative is 0 at 0.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.relu(x) end

---x·sigmoid x.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.silu(x) end

---x·Φ(x), Φ the normal distribution function.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.gelu(x) end

---The tanh approximation of gelu.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.gelu_tanh(x) end

---Greatest integer ≤ x.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.floor(x) end

---Least integer ≥ x.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.ceil(x) end

---Nearest integer, ties to even.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.round(x) end

---Integer part, towards 0.
---@param x tide.Tensor|number
---@return tide.Tensor
function tide.trunc(x) end

---Sum over dims, or over all; integers give int64.
---@param x tide.Tensor
---@param dims? integer|integer[]
---@param keepdim? boolean default false
---@return tide.Tensor
function tide.sum(x, dims, keepdim) end

---Product over dims, or over all.
---@param x tide.Tensor
---@param dims? integer|integer[]
---@param keepdim? boolean default false
---@return tide.Tensor
function tide.prod(x, dims, keepdim) end

---Mean over dims, or over all; an empty one gives NaN.
---@param x tide.Tensor
---@param dims? integer|integer[]
---@param keepdim? boolean default false
---@return tide.Tensor
function tide.mean(x, dims, keepdim) end

---Variance over dims, or over all; unbiased divides by n − 1, else by n.
---@param x tide.Tensor
---@param dims? integer|integer[]
---@param keepdim? boolean default false
---@param unbiased? boolean default true
---@return tide.Tensor
function tide.var(x, dims, keepdim, unbiased) end

---Standard deviation, the root of var.
---@param x tide.Tensor
---@param dims? integer|integer[]
---@param keepdim? boolean default false
---@param unbiased? boolean default true
---@return tide.Tensor
function tide.std(x, dims, keepdim, unbiased) end

---Greatest element over dims, or over all, and its position; NaN wins.
---@param x tide.Tensor
---@param dims? integer|integer[]
---@param keepdim? boolean default false
---@return tide.Tensor
---@return tide.Tensor
function tide.max(x, dims, keepdim) end

---Least element over dims, or over all, and its position; NaN wins.
---@param x tide.Tensor
---@param dims? integer|integer[]
---@param keepdim? boolean default false
---@return tide.Tensor
---@return tide.Tensor
function tide.min(x, dims, keepdim) end

---Position (from 1, int64) of the greatest element along dim, or in row-major order over all.
---@param x tide.Tensor
---@param dim? integer
---@param keepdim? boolean default false
---@return tide.Tensor
function tide.argmax(x, dim, keepdim) end

---Position of the least element, as argmax.
---@param x tide.Tensor
---@param dim? integer
---@param keepdim? boolean default false
---@return tide.Tensor
function tide.argmin(x, dim, keepdim) end

---Positions from 1 that sort x along dim, int64: what sort gives as its second result.
---@param x tide.Tensor
---@param dim? integer default -1
---@param descending? boolean default false
---@return tide.Tensor
function tide.argsort(x, dim, descending) end

---int64 classes from 1 as rows of float32 that are 1 at the class and 0 elsewhere; count is the greatest class where it is not given.
---@param classes tide.Tensor
---@param count? integer
---@return tide.Tensor
function tide.one_hot(classes, count) end

---Euclidean norm over dims, or over all; its derivative at 0 is 0.
---@param x tide.Tensor
---@param dims? integer|integer[]
---@param keepdim? boolean default false
---@return tide.Tensor
function tide.norm(x, dims, keepdim) end

---log Σ eˣ over dims, without overflow.
---@param x tide.Tensor
---@param dims? integer|integer[]
---@param keepdim? boolean default false
---@return tide.Tensor
function tide.logsumexp(x, dims, keepdim) end

---Running sum along a dim, from its end if reverse.
---@param x tide.Tensor
---@param dim integer
---@param reverse? boolean default false
---@return tide.Tensor
function tide.cumsum(x, dim, reverse) end

---eˣ/Σeˣ along a dim.
---@param x tide.Tensor
---@param dim? integer default -1
---@return tide.Tensor
function tide.softmax(x, dim) end

---log softmax along a dim.
---@param x tide.Tensor
---@param dim? integer default -1
---@return tide.Tensor
function tide.log_softmax(x, dim) end

---Sorted along a dim, and the positions the elements came from; stable, NaN last.
---@param x tide.Tensor
---@param dim? integer default -1
---@param descending? boolean default false
---@return tide.Tensor
---@return tide.Tensor
function tide.sort(x, dim, descending) end

---The k greatest (or least) elements along dim, in order, and their positions.
---@param x tide.Tensor
---@param k integer
---@param dim? integer default -1
---@param largest? boolean default true
---@return tide.Tensor
---@return tide.Tensor
function tide.topk(x, k, dim, largest) end

---Matrix product; a 1-d operand is a row on the left and a column on the right, further dims broadcast as batches.
---@param a tide.Tensor
---@param b tide.Tensor
---@return tide.Tensor
function tide.matmul(a, b) end

---Matrix product over the last two dims; the others broadcast.
---@param a tide.Tensor
---@param b tide.Tensor
---@return tide.Tensor
function tide.mm(a, b) end

---Sum of products of two 1-d tensors.
---@param a tide.Tensor
---@param b tide.Tensor
---@return tide.Tensor
function tide.dot(a, b) end

---Every product of an element of a with one of b, both 1-d.
---@param a tide.Tensor
---@param b tide.Tensor
---@return tide.Tensor
function tide.outer(a, b) end

---Einstein summation: letters name dims, and those the result does not name are summed over.
---@param pattern string
---@param ... tide.Tensor
---@return tide.Tensor
function tide.einsum(pattern, ...) end

---The same elements in another shape; one size may be -1.
---@param x tide.Tensor
---@param shape integer|integer[]
---@return tide.Tensor
function tide.reshape(x, shape) end

---Dims in another order.
---@param x tide.Tensor
---@param dims integer|integer[]
---@return tide.Tensor
function tide.permute(x, dims) end

---Sizes of 1 repeated, and dims added in front, without copying; -1 keeps a size.
---@param x tide.Tensor
---@param shape integer|integer[]
---@return tide.Tensor
function tide.expand(x, shape) end

---a dim of size 1 put at position dim.
---@param x tide.Tensor
---@param dim integer
---@return tide.Tensor
function tide.unsqueeze(x, dim) end

---Without the named dims of size 1, or without all of them.
---@param x tide.Tensor
---@param dims? integer|integer[]
---@return tide.Tensor
function tide.squeeze(x, dims) end

---Dims a and b exchanged.
---@param x tide.Tensor
---@param a integer
---@param b integer
---@return tide.Tensor
function tide.transpose(x, a, b) end

---The last two dims exchanged: a matrix's transpose.
---@param x tide.Tensor
---@return tide.Tensor
function tide.t(x) end

---Dims first … last made one.
---@param x tide.Tensor
---@param first? integer default 1
---@param last? integer default -1
---@return tide.Tensor
function tide.flatten(x, first, last) end

---The same values in row-major order; copies only when needed.
---@param x tide.Tensor
---@return tide.Tensor
function tide.contiguous(x) end

---a copy; gradients flow through it.
---@param x tide.Tensor
---@return tide.Tensor
function tide.clone(x) end

---The same values in another element type.
---@param x tide.Tensor
---@param dtype tide.dtype
---@return tide.Tensor
function tide.to(x, dtype) end

---Length elements of a dim from position start on, every step-th.
---@param x tide.Tensor
---@param dim integer
---@param start integer
---@param length integer
---@param step? integer default 1
---@return tide.Tensor
function tide.narrow(x, dim, start, length, step) end

---The elements at one position of a dim, which disappears.
---@param x tide.Tensor
---@param dim integer
---@param index integer
---@return tide.Tensor
function tide.select(x, dim, index) end

---Tensors joined along a dim.
---@param tensors tide.Tensor[]
---@param dim? integer default 1
---@return tide.Tensor
function tide.cat(tensors, dim) end

---Tensors of one shape joined along a new dim.
---@param list tide.Tensor[]
---@param dim? integer default 1
---@return tide.Tensor
function tide.stack(list, dim) end

---Pieces of the given sizes, or of one size with the rest last.
---@param x tide.Tensor
---@param sizes integer|integer[]
---@param dim? integer default 1
---@return tide.Tensor[]
function tide.split(x, sizes, dim) end

---The dim in count pieces, the first ones larger.
---@param x tide.Tensor
---@param count integer
---@param dim? integer default 1
---@return tide.Tensor[]
function tide.chunk(x, count, dim) end

---Elements in reverse order along the dims.
---@param x tide.Tensor
---@param dims? integer|integer[] default 1
---@return tide.Tensor
function tide.flip(x, dims) end

---The tensor repeated so many times along each dim.
---@param x tide.Tensor
---@param ... integer|integer[]
---@return tide.Tensor
function tide.tile(x, ...) end

---Zeros put around.
---@param x tide.Tensor
---@param pairs table pairs[dim] is {before, after}, or a number for both; absent dims are kept
---@return tide.Tensor
function tide.pad(x, pairs) end

---The lower triangle, with zeros above diagonal k.
---@param x tide.Tensor
---@param k? integer default 0
---@return tide.Tensor
function tide.tril(x, k) end

---The upper triangle, with zeros below diagonal k.
---@param x tide.Tensor
---@param k? integer default 0
---@return tide.Tensor
function tide.triu(x, k) end

---The diagonal of a matrix, or the diagonal matrix of a 1-d tensor.
---@param x tide.Tensor
---@return tide.Tensor
function tide.diag(x) end

---The positions of a dim that the index names, in its order.
---@param x tide.Tensor
---@param index tide.Tensor
---@param dim? integer default 1
---@return tide.Tensor
function tide.index_select(x, index, dim) end

---Along dim, the element that the index names at each place; the index has the result's shape.
---@param x tide.Tensor
---@param index tide.Tensor
---@param dim integer
---@return tide.Tensor
function tide.gather(x, index, dim) end

---Zeros of the given size along dim, with x's slices added at the index's positions.
---@param x tide.Tensor
---@param index tide.Tensor
---@param dim integer
---@param size integer
---@return tide.Tensor
function tide.index_add(x, index, dim, size) end

---Zeros of the given size along dim, with each element of x added where the index names.
---@param x tide.Tensor
---@param index tide.Tensor
---@param dim integer
---@param size integer
---@return tide.Tensor
function tide.scatter_add(x, index, dim, size) end

---Zeros of the given size along dim, with x at start, start + step, ….
---@param x tide.Tensor
---@param dim integer
---@param start integer
---@param step integer
---@param size integer
---@return tide.Tensor
function tide.narrow_grad(x, dim, start, step, size) end

---Convolution (cross-correlation) of N×H×W×C images with weights kh×kw×(C/groups)×O.
---@param x tide.Tensor
---@param w tide.Tensor
---@param bias? tide.Tensor
---@param stride? integer|integer[] default 1
---@param padding? integer|integer[] default 0
---@param dilation? integer|integer[] default 1
---@param groups? integer default 1
---@return tide.Tensor
function tide.conv2d(x, w, bias, stride, padding, dilation, groups) end

---activation(conv2d(x, w) + bias + chan + add) in one pass; bias has O elements, chan N×O, add the result's shape.
---@param x tide.Tensor
---@param w tide.Tensor
---@param bias? tide.Tensor
---@param chan? tide.Tensor
---@param add? tide.Tensor
---@param stride? integer|integer[] default 1
---@param padding? integer|integer[] default 0
---@param dilation? integer|integer[] default 1
---@param groups? integer default 1
---@param parts? integer default 0
---@param activation? integer default 0
---@return tide.Tensor
function tide.conv2d_fused(x, w, bias, chan, add, stride, padding, dilation, groups, parts, activation) end

---Transpose of conv2d in its images: what a transposed convolution computes.
---@param dy tide.Tensor
---@param w tide.Tensor
---@param stride? integer|integer[] default 1
---@param padding? integer|integer[] default 0
---@param dilation? integer|integer[] default 1
---@param groups? integer default 1
---@param height integer
---@param width integer
---@return tide.Tensor
function tide.conv2d_input_grad(dy, w, stride, padding, dilation, groups, height, width) end

---Transpose of conv2d in its weights.
---@param x tide.Tensor
---@param dy tide.Tensor
---@param stride? integer|integer[] default 1
---@param padding? integer|integer[] default 0
---@param dilation? integer|integer[] default 1
---@param groups? integer default 1
---@param kernel_height integer
---@param kernel_width integer
---@return tide.Tensor
function tide.conv2d_weight_grad(x, dy, stride, padding, dilation, groups, kernel_height, kernel_width) end

---Greatest element of each window, and its 0-based place h·W + w; stride 0 is the kernel's size.
---@param x tide.Tensor
---@param kernel integer|integer[]
---@param stride? integer|integer[] default 0
---@param padding? integer|integer[] default 0
---@return tide.Tensor
---@return tide.Tensor
function tide.max_pool2d(x, kernel, stride, padding) end

---Mean of each window, padding not counted; stride 0 is the kernel's size.
---@param x tide.Tensor
---@param kernel integer|integer[]
---@param stride? integer|integer[] default 0
---@param padding? integer|integer[] default 0
---@return tide.Tensor
function tide.avg_pool2d(x, kernel, stride, padding) end

---Means over windows that cut the image into size[1]×size[2] parts.
---@param x tide.Tensor
---@param size integer|integer[]
---@return tide.Tensor
function tide.adaptive_avg_pool2d(x, size) end

---Images of size[1]×size[2] by the nearest pixel.
---@param x tide.Tensor
---@param size integer|integer[]
---@return tide.Tensor
function tide.upsample_nearest(x, size) end

---Images of size[1]×size[2], linear between pixel centres (corners not aligned).
---@param x tide.Tensor
---@param size integer|integer[]
---@return tide.Tensor
function tide.upsample_bilinear(x, size) end

---N×…×C normalised over each sample's groups of channels; rows: every position is a sample (layer norm).
---@param x tide.Tensor
---@param gamma? tide.Tensor
---@param beta? tide.Tensor
---@param groups integer
---@param rows? boolean default false
---@param eps? number default 1e-5
---@return tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.group_norm(x, gamma, beta, groups, rows, eps) end

---activation(group_norm(x, gamma, beta)) + add in one pass, where activation is 0 none, 1 relu, 2 silu, 3 gelu, 4 tanh or 5 sigmoid; two tensors are x and add.
---@param x tide.Tensor
---@param gamma? tide.Tensor
---@param beta? tide.Tensor
---@param add? tide.Tensor
---@param groups integer
---@param rows? boolean default false
---@param activation? integer default 0
---@param eps? number default 1e-5
---@return tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.group_norm_act(x, gamma, beta, add, groups, rows, activation, eps) end

---softmax(q·kᵀ·scale + mask)·v for q B×L×H×D, k B×S×H×D, v B×S×H×E, without storing the scores; scale 0 is 1/√D, causal lets query i see keys 1..i; also the greatest score of each query and one over its sum of exponentials.
---@param q tide.Tensor
---@param k tide.Tensor
---@param v tide.Tensor
---@param mask? tide.Tensor
---@param causal? boolean default false
---@param scale? number default 0
---@return tide.Tensor
---@return tide.Tensor
function tide.attention(q, k, v, mask, causal, scale) end

---…×C normalised over all dims but the last; also mean, 1/√(var + eps) and biased variance of each channel.
---@param x tide.Tensor
---@param gamma? tide.Tensor
---@param beta? tide.Tensor
---@param eps? number default 1e-5
---@return tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.channel_norm(x, gamma, beta, eps) end

---x with a·x = b, a square; b is a vector, or a matrix of columns; batches broadcast.
---@param a tide.Tensor
---@param b tide.Tensor
---@return tide.Tensor
function tide.solve(a, b) end

---Inverse of a square matrix; to solve a system, solve is better.
---@param a tide.Tensor
---@return tide.Tensor
function tide.inv(a) end

---Determinant of a square matrix.
---@param a tide.Tensor
---@return tide.Tensor
function tide.det(a) end

---Sign of the determinant and logarithm of its absolute value; 0 and −∞ if singular.
---@param a tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.slogdet(a) end

---x with a·x = b or aᵀ·x = b (transpose), reading one triangle of a, its diagonal taken as 1 if unit.
---@param a tide.Tensor
---@param b tide.Tensor
---@param upper? boolean default false
---@param transpose? boolean default false
---@param unit? boolean default false
---@return tide.Tensor
function tide.solve_triangular(a, b, upper, transpose, unit) end

---Lower L with L·Lᵀ = a, a positive definite; only a's symmetric part counts.
---@param a tide.Tensor
---@return tide.Tensor
function tide.cholesky(a) end

---L (unit, below the diagonal) and U of P·a = L·U in one matrix, and pivots: row i was exchanged with row pivots[i].
---@param a tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.lu_factor(a) end

---x with a·x = b, or aᵀ·x = b (transpose), from lu_factor's factors of a.
---@param lu tide.Tensor
---@param pivots tide.Tensor
---@param b tide.Tensor
---@param transpose? boolean default false
---@return tide.Tensor
function tide.lu_solve(lu, pivots, b, transpose) end

---Q (m×k, orthonormal columns) and R (k×n, upper) with a = Q·R, k = min(m, n).
---@param a tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.qr(a) end

---U (m×k), S (k, descending) and Vᵀ (k×n) with a = U·diag(S)·Vᵀ, k = min(m, n).
---@param a tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.svd(a) end

---Singular values, descending.
---@param a tide.Tensor
---@return tide.Tensor
function tide.svdvals(a) end

---Eigenvalues (ascending) and eigenvectors (columns) of a symmetric matrix; only a's symmetric part counts.
---@param a tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.eigh(a) end

---Eigenvalues of a symmetric matrix, ascending; only a's symmetric part counts.
---@param a tide.Tensor
---@return tide.Tensor
function tide.eigvalsh(a) end

---The shortest x among those with least |a·x − b|; rtol as pinv's; b is a vector or a matrix of columns; the derivative is that of constant rank.
---@param a tide.Tensor
---@param b tide.Tensor
---@param rtol? number default -1
---@return tide.Tensor
function tide.lstsq(a, b, rtol) end

---Moore–Penrose inverse; singular values up to rtol (rounding·max(m, n)) times the greatest count as 0, and the derivative is that of constant rank.
---@param a tide.Tensor
---@param rtol? number default -1
---@return tide.Tensor
function tide.pinv(a, rtol) end

---Exponential of a square matrix.
---@param a tide.Tensor
---@return tide.Tensor
function tide.matrix_exp(a) end

---Sum of the diagonal.
---@param a tide.Tensor
---@return tide.Tensor
function tide.linalg.trace(a) end

---Kronecker product: each element of a times all of b, in blocks.
---@param a tide.Tensor
---@param b tide.Tensor
---@return tide.Tensor
function tide.linalg.kron(a, b) end

---a to a whole power; a negative one is the power of the inverse.
---@param a tide.Tensor
---@param n integer
---@return tide.Tensor
function tide.linalg.matrix_power(a, n) end

---P, L, U with a = P·L·U: a permutation, lower with ones on the diagonal, upper.
---@param a tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.linalg.lu(a) end

---x with l·lᵀ·x = b, l the lower Cholesky factor.
---@param l tide.Tensor
---@param b tide.Tensor
---@return tide.Tensor
function tide.linalg.cholesky_solve(l, b) end

---(Σ|x|ᵖ)^(1/p); p = ±math.huge gives the greatest and the least |x|, 0 counts what is not 0.
---@param x tide.Tensor
---@param p? number default 2
---@param dims? integer|integer[]
---@param keepdim? boolean default false
---@return tide.Tensor
function tide.linalg.vector_norm(x, p, dims, keepdim) end

---"fro" (Frobenius), "nuc" (sum of singular values), ±2 (greatest, least singular value), ±1 (column sums), ±math.huge (row sums).
---@param a tide.Tensor
---@param kind? string|number default "fro"
---@return tide.Tensor
function tide.linalg.matrix_norm(a, kind) end

---@class tide.linalg.matrix_rank.options
---@field rtol? number the type's rounding times the greater size

---How many singular values exceed rtol times the greatest; int64.
---@param a tide.Tensor
---@param opts? tide.linalg.matrix_rank.options
---@return tide.Tensor
function tide.linalg.matrix_rank(a, opts) end

---Condition number: greatest over least singular value, or |a|·|a⁻¹| in another matrix_norm.
---@param a tide.Tensor
---@param kind? string|number default 2
---@return tide.Tensor
function tide.linalg.cond(a, kind) end

---Transpose of adaptive_avg_pool2d.
---@param dy tide.Tensor
---@param size integer|integer[]
---@param height integer
---@param width integer
---@return tide.Tensor
function tide.adaptive_avg_pool2d_grad(dy, size, height, width) end

---attention's cotangents of q, k and v; y and kept are its results.
---@param dy tide.Tensor
---@param q tide.Tensor
---@param k tide.Tensor
---@param v tide.Tensor
---@param y tide.Tensor
---@param kept tide.Tensor
---@param mask? tide.Tensor
---@param causal? boolean default false
---@param scale? number default 0
---@return tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.attention_grad(dy, q, k, v, y, kept, mask, causal, scale) end

---Transpose of avg_pool2d.
---@param dy tide.Tensor
---@param kernel integer|integer[]
---@param stride? integer|integer[] default 0
---@param padding? integer|integer[] default 0
---@param height integer
---@param width integer
---@return tide.Tensor
function tide.avg_pool2d_grad(dy, kernel, stride, padding, height, width) end

---activation(channel_norm(x, gamma, beta)) + add in one pass; activation and the operands as in group_norm_act.
---@param x tide.Tensor
---@param gamma? tide.Tensor
---@param beta? tide.Tensor
---@param add? tide.Tensor
---@param activation? integer default 0
---@param eps? number default 1e-5
---@return tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.channel_norm_act(x, gamma, beta, add, activation, eps) end

---channel_norm_act's cotangents of x, gamma and beta in one pass; that of add is dy.
---@param dy tide.Tensor
---@param x tide.Tensor
---@param mean tide.Tensor
---@param rstd tide.Tensor
---@param gamma? tide.Tensor
---@param beta? tide.Tensor
---@param activation? integer default 0
---@param eps? number default 1e-5
---@return tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.channel_norm_act_grad(dy, x, mean, rstd, gamma, beta, activation, eps) end

---channel_norm's three cotangents in one pass.
---@param dy tide.Tensor
---@param x tide.Tensor
---@param mean tide.Tensor
---@param rstd tide.Tensor
---@param gamma? tide.Tensor
---@param eps? number default 1e-5
---@return tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.channel_norm_grad(dy, x, mean, rstd, gamma, eps) end

---dy·gelu'(x).
---@param x tide.Tensor|number
---@param dy tide.Tensor|number
---@return tide.Tensor
function tide.gelu_grad(x, dy) end

---dy·gelu_tanh'(x).
---@param x tide.Tensor|number
---@param dy tide.Tensor|number
---@return tide.Tensor
function tide.gelu_tanh_grad(x, dy) end

---group_norm_act's cotangents of x, gamma and beta in one pass; that of add is dy.
---@param dy tide.Tensor
---@param x tide.Tensor
---@param mean tide.Tensor
---@param rstd tide.Tensor
---@param gamma? tide.Tensor
---@param beta? tide.Tensor
---@param groups integer
---@param rows? boolean default false
---@param activation? integer default 0
---@param eps? number default 1e-5
---@return tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.group_norm_act_grad(dy, x, mean, rstd, gamma, beta, groups, rows, activation, eps) end

---group_norm's three cotangents in one pass.
---@param dy tide.Tensor
---@param x tide.Tensor
---@param mean tide.Tensor
---@param rstd tide.Tensor
---@param gamma? tide.Tensor
---@param groups integer
---@param rows? boolean default false
---@param eps? number default 1e-5
---@return tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.group_norm_grad(dy, x, mean, rstd, gamma, groups, rows, eps) end

---dy − eʸ·Σ dy: log_softmax's derivative in one pass.
---@param y tide.Tensor
---@param dy tide.Tensor
---@param dim? integer default -1
---@return tide.Tensor
function tide.log_softmax_grad(y, dy, dim) end

---x at the places where max_pool2d found its maxima.
---@param x tide.Tensor
---@param at tide.Tensor
---@param kernel integer|integer[]
---@param stride? integer|integer[] default 0
---@param padding? integer|integer[] default 0
---@return tide.Tensor
function tide.max_pool2d_gather(x, at, kernel, stride, padding) end

---dy put where max_pool2d found its maxima.
---@param dy tide.Tensor
---@param at tide.Tensor
---@param kernel integer|integer[]
---@param stride? integer|integer[] default 0
---@param padding? integer|integer[] default 0
---@param height integer
---@param width integer
---@return tide.Tensor
function tide.max_pool2d_grad(dy, at, kernel, stride, padding, height, width) end

---dy where x > 0, else 0.
---@param x tide.Tensor|number
---@param dy tide.Tensor|number
---@return tide.Tensor
function tide.relu_grad(x, dy) end

---dy·silu'(x).
---@param x tide.Tensor|number
---@param dy tide.Tensor|number
---@return tide.Tensor
function tide.silu_grad(x, dy) end

---y·(dy − Σ dy·y): softmax's derivative in one pass.
---@param y tide.Tensor
---@param dy tide.Tensor
---@param dim? integer default -1
---@return tide.Tensor
function tide.softmax_grad(y, dy, dim) end

---Transpose of upsample_bilinear.
---@param dy tide.Tensor
---@param size integer|integer[]
---@param height integer
---@param width integer
---@return tide.Tensor
function tide.upsample_bilinear_grad(dy, size, height, width) end

---Transpose of upsample_nearest.
---@param dy tide.Tensor
---@param size integer|integer[]
---@param height integer
---@param width integer
---@return tide.Tensor
function tide.upsample_nearest_grad(dy, size, height, width) end

---Makes a real tensor a leaf that receives a gradient, or a constant again; returns it.
---@param on? boolean default true
---@return tide.Tensor
function Tensor:requires_grad(on) end

---@class tide.Tensor.backward.options
---@field retain_graph? boolean keep the record, to walk it again; default false
---@field create_graph? boolean record the walk too, for second derivatives; default false

---Adds gradients to the .grad of the leaves the tensor was made from.
---@param cotangent? tide.Tensor of the tensor's shape; needed unless it has one element
---@param opts? tide.Tensor.backward.options
function Tensor:backward(cotangent, opts) end

---The same values on the same memory, without a record.
---@return tide.Tensor
function Tensor:detach() end

---f(gradient) is called in every backward; a tensor that it returns replaces the gradient.
---@param f function
---@return tide.Tensor
function Tensor:register_hook(f) end

---f(…) without recording.
---@param f function
---@param ... any
---@return any ...
function tide.no_grad(f, ...) end

---f(…) with recording, also inside no_grad.
---@param f function
---@param ... any
---@return any ...
function tide.enable_grad(f, ...) end

---Is recording on?
---@return boolean
function tide.is_grad_enabled() end

---f(…) that keeps its arguments only and runs f again in the backward pass: less memory for more time.
---@param f function
---@param ... any
---@return tide.Tensor ...
function tide.checkpoint(f, ...) end

---@class tide.gradients.options
---@field cotangents? tide.Tensor|tide.Tensor[] of the outputs; needed for those of more than one element
---@field create_graph? boolean record the walk, for further derivatives; default false
---@field retain_graph? boolean keep the record; default false
---@field unused? string an input without influence gives false; "zeros" gives zeros; default "nil"

---Gradients of outputs with respect to inputs, as a table.
---@param outputs tide.Tensor|tide.Tensor[]
---@param inputs tide.Tensor|tide.Tensor[]
---@param opts? tide.gradients.options
---@return table
function tide.gradients(outputs, inputs, opts) end

---@class tide.grad.options
---@field wrt? integer[] positions of the arguments; all real tensors by default

---A function that returns f's gradient for each tensor argument; it nests.
---@param f function
---@param opts? tide.grad.options
---@return function
function tide.grad(f, opts) end

---@class tide.value_and_grad.options
---@field wrt? integer[] positions of the arguments; all real tensors by default

---A function that returns f(…) and the gradients.
---@param f function
---@param opts? tide.value_and_grad.options
---@return function
function tide.value_and_grad(f, opts) end

---f(…), and a function from a cotangent of its shape to one for each tensor argument.
---@param f function
---@param ... any
---@return tide.Tensor
---@return function
function tide.vjp(f, ...) end

---f(primals), and its derivative along the tangents, exactly: the derivative of u ↦ Jᵀu.
---@param f function
---@param primals tide.Tensor|tide.Tensor[]
---@param tangents tide.Tensor|tide.Tensor[]
---@return tide.Tensor
---@return tide.Tensor
function tide.jvp(f, primals, tangents) end

---f(x), and the product of f's Hessian at x with v.
---@param f function
---@param x tide.Tensor
---@param v tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.hvp(f, x, v) end

---An operation with a derivative of one's own.
---@param forward function forward(ctx, …) returns one to four tensors and may keep things in the table ctx
---@param backward function backward(ctx, cotangents…) returns a cotangent or nil for each tensor argument
---@return function
function tide.custom(forward, backward) end

---@class tide.gradcheck.options
---@field eps? number the step, relative above 1; default 1e-6
---@field rtol? number of the first derivative; default 1e-6
---@field rtol_second? number of the second; default 1e-5
---@field atol? number of both; default 1e-8
---@field second? boolean check the second derivative too; default true
---@field raise? boolean false returns false and the message; default true

---Compares first and second derivatives of f with central differences; true, or raises saying which element is off.
---@param f function
---@param inputs tide.Tensor[]
---@param opts? tide.gradcheck.options
---@return boolean
---@return string?
function tide.gradcheck(f, inputs, opts) end

---@class tide.capture.options
---@field fallback? string what to do when f cannot be captured: raise, or "eager": run f as it is; default "error"
---@field name? string for print; default "a function"
---@field keep? number bytes that a call may keep for its reverse pass; beyond, it is computed again; default math.huge

---f as an object that is called like f and runs captured programs, one for each combination of types and shapes of the tensors, of the other arguments' values, and of whether gradients are recorded.
---@param f function
---@param opts? tide.capture.options
---@return tide.Captured
function tide.capture(f, opts) end

---What was captured so far: a table of {key, forward, backward}; both have lines() and memory().
---@return table
function Captured:programs() end

---Runs f(…) and measures each step: a table of {text, seconds, flops, bytes} with totals and the processor's peak and bandwidth, which prints itself. Without arguments the program captured last, on ones.
---@param ... any
---@return table
function Captured:profile(...) end

---Why it runs as it is, or nil.
---@return string?
function Captured:reason() end

---Captures anew from the next call on.
function Captured:forget() end

---@class tide.train_step.options
---@field before_step? function before_step(optimiser), called between gradient and step: clipping, schedules
---@field fallback? string run f as it is when it cannot be captured; "error" raises; default "eager"

---An object step: step(…) computes the loss f(…) and its gradient for the optimiser's parameters as one program, and lets the optimiser take a step.
---@param f function
---@param optimiser tide.Optimiser
---@param opts? tide.train_step.options
---@return tide.TrainStep
function tide.train_step(f, optimiser, opts) end

---What was captured so far, as Captured:programs.
---@return table
function TrainStep:programs() end

---Why it runs as it is, or nil.
---@return string?
function TrainStep:reason() end

---Captures anew from the next step on.
function TrainStep:forget() end

---With a name, a class whose init sets the fields and whose forward computes; with a table, one module.
---@param what string|table
---@param parent? table a class to inherit from
---@return tide.nn.Module
function tide.nn.Module(what, parent) end

---A detached tensor that a module will train.
---@param t tide.Tensor
---@return tide.Tensor
function tide.nn.Parameter(t) end

---Is x a module?
---@param x any
---@return boolean
function tide.nn.is_module(x) end

---The parameters in a fixed order, each once.
---@param m tide.nn.Module
---@return tide.Tensor[]
function tide.nn.parameters(m) end

---The tensors that are no parameters, such as running statistics.
---@param m tide.nn.Module
---@return tide.Tensor[]
function tide.nn.buffers(m) end

---An iterator over name, parameter; a name is a path such as "stem.1.weight".
---@param m tide.nn.Module
---@return function
function tide.nn.named_parameters(m) end

---An iterator over name, buffer.
---@param m tide.nn.Module
---@return function
function tide.nn.named_buffers(m) end

---An iterator over name, module: children before parents, m itself last as "".
---@param m tide.nn.Module
---@return function
function tide.nn.named_modules(m) end

---The number of elements of all parameters.
---@param m tide.nn.Module
---@return integer
function tide.nn.count(m) end

---Calls f(module) for every module inside, then for m.
---@param m tide.nn.Module
---@param f function
---@return tide.nn.Module
function tide.nn.apply(m, f) end

---Training mode: dropout drops, batch norm uses the batch.
---@param m tide.nn.Module
---@param on? boolean default true
---@return tide.nn.Module
function tide.nn.train(m, on) end

---Evaluation mode.
---@param m tide.nn.Module
---@return tide.nn.Module
function tide.nn.eval(m) end

---Drops the gradients of all parameters.
---@param m tide.nn.Module
---@return tide.nn.Module
function tide.nn.zero_grad(m) end

---Makes the parameters constants, until unfreeze.
---@param m tide.nn.Module
---@return tide.nn.Module
function tide.nn.freeze(m) end

---Makes parameters again of what freeze made constant.
---@param m tide.nn.Module
---@return tide.nn.Module
function tide.nn.unfreeze(m) end

---Real parameters and buffers become float32 or float64: new tensors, so make optimisers afterwards.
---@param m tide.nn.Module
---@param dtype tide.dtype
---@return tide.nn.Module
function tide.nn.to(m, dtype) end

---nn.to(m, "float32").
---@param m tide.nn.Module
---@return tide.nn.Module
function tide.nn.float(m) end

---nn.to(m, "float64").
---@param m tide.nn.Module
---@return tide.nn.Module
function tide.nn.double(m) end

---A copy with tensors of its own; what m shares inside itself, the copy shares too.
---@param m tide.nn.Module
---@return tide.nn.Module
function tide.nn.clone(m) end

---@class tide.nn.state_dict.options
---@field copy? boolean tensors of their own; default false

---Parameters and buffers by name, sharing memory with the module.
---@param m tide.nn.Module
---@param opts? tide.nn.state_dict.options
---@return table
function tide.nn.state_dict(m, opts) end

---@class tide.nn.load_state_dict.options
---@field strict? boolean missing and unexpected names raise; default true

---Copies values by name into the module's tensors; returns m and the missing and the unexpected names.
---@param m tide.nn.Module
---@param state table
---@param opts? tide.nn.load_state_dict.options
---@return tide.nn.Module
---@return table
---@return table
function tide.nn.load_state_dict(m, state, opts) end

---Every VariationalDropout inside draws a new mask at its next use.
---@param m tide.nn.Module
---@return tide.nn.Module
function tide.nn.resample(m) end

---f with its randomness held: every call, now or when a gradient replays it, sees the same dropout masks.
---@param f function
---@return function
function tide.nn.hold(f) end

---@class tide.nn.Linear.options
---@field bias? boolean add a bias; default true
---@field dtype? tide.dtype of the parameters; default "float32"
---@field generator? tide.Generator for the first values

---y = x·weight + bias over the last dim of x.
---@param inputs integer
---@param outputs integer
---@param opts? tide.nn.Linear.options
---@return tide.nn.Linear
function tide.nn.Linear(inputs, outputs, opts) end

---@class tide.nn.Conv2d.options
---@field stride? integer|integer[] one number or {vertical, horizontal}, as the next two; default 1
---@field padding? integer|integer[] zeros around the image, or "same" to keep the size (odd kernels, stride 1); default 0
---@field dilation? integer|integer[] distance between the weights; default 1
---@field groups? integer channels are split into so many independent convolutions; default 1
---@field bias? boolean a number added to each channel; default true
---@field dtype? tide.dtype of the parameters; default "float32"
---@field generator? tide.Generator for the first values

---Convolution (cross-correlation) of N×H×W×inputs images.
---@param inputs integer
---@param outputs integer
---@param kernel integer|integer[]
---@param opts? tide.nn.Conv2d.options
---@return tide.nn.Conv2d
function tide.nn.Conv2d(inputs, outputs, kernel, opts) end

---@class tide.nn.ConvTranspose2d.options
---@field output_padding? integer|integer[] rows and columns added at the end; default 0
---@field stride? integer|integer[] one number or {vertical, horizontal}, as the next two; default 1
---@field padding? integer|integer[] zeros around the image of that convolution; default 0
---@field dilation? integer|integer[] distance between the weights; default 1
---@field groups? integer channels are split into so many independent convolutions; default 1
---@field bias? boolean a number added to each channel; default true
---@field dtype? tide.dtype of the parameters; default "float32"
---@field generator? tide.Generator for the first values

---The transpose of the convolution with the same options from `outputs` to `inputs` channels.
---@param inputs integer
---@param outputs integer
---@param kernel integer|integer[]
---@param opts? tide.nn.ConvTranspose2d.options
---@return tide.nn.ConvTranspose2d
function tide.nn.ConvTranspose2d(inputs, outputs, kernel, opts) end

---@class tide.nn.Embedding.options
---@field dtype? tide.dtype of the parameters; default "float32"
---@field generator? tide.Generator for the first values

---Row i of the weight for every element i (1 … count) of an int64 tensor; the result has one more dim.
---@param count integer
---@param size integer
---@param opts? tide.nn.Embedding.options
---@return tide.nn.Embedding
function tide.nn.Embedding(count, size, opts) end

---@class tide.nn.MultiheadAttention.options
---@field context? integer channels of the other sequence; those of x by default
---@field bias? boolean of the projections; default true
---@field dropout? number of the attention weights; default 0
---@field dtype? tide.dtype of the parameters; default "float32"
---@field generator? tide.Generator for the first values

---Attention with projections: m(x) within x (N×L×channels), m(x, context) to another sequence, m(x, context, {mask, causal}).
---@param channels integer
---@param heads integer
---@param opts? tide.nn.MultiheadAttention.options
---@return tide.nn.MultiheadAttention
function tide.nn.MultiheadAttention(channels, heads, opts) end

---@class tide.nn.attention.options
---@field mask? tide.Tensor broadcasts to …×L×S: uint8 (1 takes part, 0 does not) or real (added to the scores)
---@field causal? boolean position i sees 1 … i; default false
---@field scale? number 1/√D by default
---@field dropout? tide.nn.Module for the weights

---softmax(q·kᵀ·scale + mask)·v over the last two dims: q …×L×D, k …×S×D, v …×S×E; the other dims broadcast.
---@param q tide.Tensor
---@param k tide.Tensor
---@param v tide.Tensor
---@param opts? tide.nn.attention.options
---@return tide.Tensor
function tide.nn.attention(q, k, v, opts) end

---@class tide.nn.GroupNorm.options
---@field eps? number added to the variance; default 1e-5
---@field affine? boolean weight 1 and bias 0 for each channel, learnt; default true
---@field dtype? tide.dtype of the parameters; default "float32"

---Each sample's groups of channels get mean 0 and variance 1 over positions and channels, then weight·x + bias.
---@param groups integer
---@param channels integer
---@param opts? tide.nn.GroupNorm.options
---@return tide.nn.GroupNorm
function tide.nn.GroupNorm(groups, channels, opts) end

---@class tide.nn.LayerNorm.options
---@field eps? number added to the variance; default 1e-5
---@field affine? boolean weight 1 and bias 0 for each channel, learnt; default true
---@field dtype? tide.dtype of the parameters; default "float32"

---Every position gets mean 0 and variance 1 over its channels (the last dim), then weight·x + bias.
---@param channels integer
---@param opts? tide.nn.LayerNorm.options
---@return tide.nn.LayerNorm
function tide.nn.LayerNorm(channels, opts) end

---@class tide.nn.BatchNorm2d.options
---@field eps? number added to the variance; default 1e-5
---@field affine? boolean weight 1 and bias 0 for each channel, learnt; default true
---@field dtype? tide.dtype of the parameters; default "float32"
---@field momentum? number with which the running statistics follow the batch's; default 0.1

---Each channel gets mean 0 and variance 1 over batch and positions, in evaluation by the running statistics; then weight·x + bias.
---@param channels integer
---@param opts? tide.nn.BatchNorm2d.options
---@return tide.nn.BatchNorm2d
function tide.nn.BatchNorm2d(channels, opts) end

---BatchNorm2d, which takes N×C too.
---@param channels integer
---@param opts? table
---@return tide.nn.Module
function tide.nn.BatchNorm1d(channels, opts) end

---@class tide.nn.Dropout.options
---@field dims? integer[]|string one draw serves all positions along these dims; "inner": all but the first and the last
---@field generator? tide.Generator a source of its own

---While training, elements become 0 with probability p and the others are divided by 1 − p.
---@param p? number default 0.5
---@param opts? tide.nn.Dropout.options
---@return tide.nn.Module
function tide.nn.Dropout(p, opts) end

---@class tide.nn.Dropout2d.options
---@field generator? tide.Generator a source of its own

---Dropout of whole channels of N×…×C.
---@param p? number default 0.5
---@param opts? tide.nn.Dropout2d.options
---@return tide.nn.Module
function tide.nn.Dropout2d(p, opts) end

---@class tide.nn.VariationalDropout.options
---@field dims? integer[]|string as Dropout's; default "inner"
---@field generator? tide.Generator a source of its own

---Channel dropout whose mask is kept: for a held pass, and elsewhere until resample() or an input of another size.
---@param p? number default 0.5
---@param opts? tide.nn.VariationalDropout.options
---@return tide.nn.VariationalDropout
function tide.nn.VariationalDropout(p, opts) end

---Applies modules or functions one after the other; #s counts them, s[i] is one.
---@param ... tide.nn.Module|function
---@return tide.nn.Sequential
function tide.nn.Sequential(...) end

---Gives what it is given.
---@return tide.nn.Module
function tide.nn.Identity() end

---Dims first … last made one.
---@param first? integer default 2
---@param last? integer default -1
---@return tide.nn.Module
function tide.nn.Flatten(first, last) end

---@class tide.nn.MaxPool2d.options
---@field stride? integer|integer[] the kernel's size by default
---@field padding? integer|integer[] around the image; default 0

---The greatest element of each window; padding never wins.
---@param kernel integer|integer[]
---@param opts? tide.nn.MaxPool2d.options
---@return tide.nn.Module
function tide.nn.MaxPool2d(kernel, opts) end

---@class tide.nn.AvgPool2d.options
---@field stride? integer|integer[] the kernel's size by default
---@field padding? integer|integer[] around the image; default 0

---The mean of each window, padding not counted.
---@param kernel integer|integer[]
---@param opts? tide.nn.AvgPool2d.options
---@return tide.nn.Module
function tide.nn.AvgPool2d(kernel, opts) end

---Means over windows that cut the image into size[1]×size[2] parts.
---@param size integer|integer[]
---@return tide.nn.Module
function tide.nn.AdaptiveAvgPool2d(size) end

---N×H×W×C → N×C: the mean of each channel.
---@return tide.nn.Module
function tide.nn.GlobalAvgPool() end

---@class tide.nn.Upsample.options
---@field size? integer|integer[] instead of a scale
---@field mode? string or "bilinear", which samples at pixel centres; default "nearest"

---Resized images, by a factor or to a size: nn.Upsample {size = {h, w}}.
---@param scale integer|integer[]
---@param opts? tide.nn.Upsample.options
---@return tide.nn.Module
function tide.nn.Upsample(scale, opts) end

---max(x, 0).
---@return tide.nn.Module
function tide.nn.ReLU() end

---x limited to [0, 6].
---@return tide.nn.Module
function tide.nn.ReLU6() end

---x, times slope where it is negative.
---@param slope? number default 0.01
---@return tide.nn.Module
function tide.nn.LeakyReLU(slope) end

---@class tide.nn.PReLU.options
---@field start? number the first slope; default 0.25
---@field dtype? tide.dtype of the slopes; default "float32"

---LeakyReLU whose slopes, one for all or one a channel, are learnt.
---@param channels? integer default 1
---@param opts? tide.nn.PReLU.options
---@return tide.nn.Module
function tide.nn.PReLU(channels, opts) end

---x, or alpha·(eˣ − 1) where it is negative.
---@param alpha? number default 1
---@return tide.nn.Module
function tide.nn.ELU(alpha) end

---x·Φ(x).
---@return tide.nn.Module
function tide.nn.GELU() end

---GELU's tanh approximation.
---@return tide.nn.Module
function tide.nn.GELUTanh() end

---x·sigmoid(x).
---@return tide.nn.Module
function tide.nn.SiLU() end

---x·tanh(softplus(x)).
---@return tide.nn.Module
function tide.nn.Mish() end

---log(1 + eˣ).
---@return tide.nn.Module
function tide.nn.Softplus() end

---Hyperbolic tangent.
---@return tide.nn.Module
function tide.nn.Tanh() end

---x limited to [−1, 1].
---@return tide.nn.Module
function tide.nn.Hardtanh() end

---1/(1 + e⁻ˣ).
---@return tide.nn.Module
function tide.nn.Sigmoid() end

---log sigmoid(x).
---@return tide.nn.Module
function tide.nn.LogSigmoid() end

---x/(1 + |x|).
---@return tide.nn.Module
function tide.nn.Softsign() end

---sin x.
---@return tide.nn.Module
function tide.nn.Sin() end

---eˣ.
---@return tide.nn.Module
function tide.nn.Exp() end

---eˣ/Σeˣ along a dim.
---@param dim? integer default -1
---@return tide.nn.Module
function tide.nn.Softmax(dim) end

---log softmax along a dim.
---@param dim? integer default -1
---@return tide.nn.Module
function tide.nn.LogSoftmax(dim) end

---@class tide.nn.mse_loss.options
---@field reduction? string "mean", "sum" or "none"; default "mean"

---(x − target)².
---@param x tide.Tensor
---@param target tide.Tensor|number
---@param opts? tide.nn.mse_loss.options
---@return tide.Tensor
function tide.nn.mse_loss(x, target, opts) end

---@class tide.nn.l1_loss.options
---@field reduction? string "mean", "sum" or "none"; default "mean"

---|x − target|.
---@param x tide.Tensor
---@param target tide.Tensor|number
---@param opts? tide.nn.l1_loss.options
---@return tide.Tensor
function tide.nn.l1_loss(x, target, opts) end

---@class tide.nn.smooth_l1_loss.options
---@field beta? number the knee; default 1
---@field reduction? string "mean", "sum" or "none"; default "mean"

---½·d²/beta where d = |x − target| is below beta, d − ½·beta beyond.
---@param x tide.Tensor
---@param target tide.Tensor|number
---@param opts? tide.nn.smooth_l1_loss.options
---@return tide.Tensor
function tide.nn.smooth_l1_loss(x, target, opts) end

---@class tide.nn.huber_loss.options
---@field delta? number the knee; default 1
---@field reduction? string "mean", "sum" or "none"; default "mean"

---½·d² where d = |x − target| is below delta, delta·(d − ½·delta) beyond.
---@param x tide.Tensor
---@param target tide.Tensor|number
---@param opts? tide.nn.huber_loss.options
---@return tide.Tensor
function tide.nn.huber_loss(x, target, opts) end

---@class tide.nn.cross_entropy.options
---@field label_smoothing? number ε: the target becomes (1 − ε)·target + ε/classes; default 0
---@field weight? tide.Tensor one number a class; a mean over int64 classes divides by the targets' weights
---@field reduction? string "mean", "sum" or "none"; default "mean"

---Cross-entropy of logits (…×classes) against int64 classes from 1 (…) or probabilities (…×classes).
---@param logits tide.Tensor
---@param target tide.Tensor
---@param opts? tide.nn.cross_entropy.options
---@return tide.Tensor
function tide.nn.cross_entropy(logits, target, opts) end

---@class tide.nn.nll_loss.options
---@field weight? tide.Tensor one number a class
---@field reduction? string "mean", "sum" or "none"; default "mean"

---Negative log likelihood of int64 classes under log-probabilities.
---@param logp tide.Tensor
---@param target tide.Tensor
---@param opts? tide.nn.nll_loss.options
---@return tide.Tensor
function tide.nn.nll_loss(logp, target, opts) end

---@class tide.nn.bce_loss.options
---@field weight? tide.Tensor|number broadcast
---@field reduction? string "mean", "sum" or "none"; default "mean"

---Binary cross-entropy of probabilities; bce_with_logits is safer.
---@param p tide.Tensor
---@param target tide.Tensor|number
---@param opts? tide.nn.bce_loss.options
---@return tide.Tensor
function tide.nn.bce_loss(p, target, opts) end

---@class tide.nn.bce_with_logits.options
---@field weight? tide.Tensor|number broadcast
---@field pos_weight? tide.Tensor|number factor of the positive term
---@field reduction? string "mean", "sum" or "none"; default "mean"

---Binary cross-entropy of logits, stable for any size of them.
---@param x tide.Tensor
---@param target tide.Tensor|number
---@param opts? tide.nn.bce_with_logits.options
---@return tide.Tensor
function tide.nn.bce_with_logits(x, target, opts) end

---@class tide.nn.kl_div.options
---@field log_target? boolean the target holds logarithms; default false
---@field reduction? string sum over the size of dim 1; "mean", "sum", "none"; default "batchmean"

---Kullback–Leibler divergence Σ target·(log target − logp).
---@param logp tide.Tensor
---@param target tide.Tensor
---@param opts? tide.nn.kl_div.options
---@return tide.Tensor
function tide.nn.kl_div(logp, target, opts) end

---nn.mse_loss as a module: the options now, prediction and target later.
---@param opts? table
---@return tide.nn.Module
function tide.nn.MSELoss(opts) end

---nn.l1_loss as a module: the options now, prediction and target later.
---@param opts? table
---@return tide.nn.Module
function tide.nn.L1Loss(opts) end

---nn.smooth_l1_loss as a module: the options now, prediction and target later.
---@param opts? table
---@return tide.nn.Module
function tide.nn.SmoothL1Loss(opts) end

---nn.huber_loss as a module: the options now, prediction and target later.
---@param opts? table
---@return tide.nn.Module
function tide.nn.HuberLoss(opts) end

---nn.cross_entropy as a module: the options now, prediction and target later.
---@param opts? table
---@return tide.nn.Module
function tide.nn.CrossEntropyLoss(opts) end

---nn.nll_loss as a module: the options now, prediction and target later.
---@param opts? table
---@return tide.nn.Module
function tide.nn.NLLLoss(opts) end

---nn.bce_loss as a module: the options now, prediction and target later.
---@param opts? table
---@return tide.nn.Module
function tide.nn.BCELoss(opts) end

---nn.bce_with_logits as a module: the options now, prediction and target later.
---@param opts? table
---@return tide.nn.Module
function tide.nn.BCEWithLogitsLoss(opts) end

---nn.kl_div as a module: the options now, prediction and target later.
---@param opts? table
---@return tide.nn.Module
function tide.nn.KLDivLoss(opts) end

---All zeros.
---@param t tide.Tensor
---@return tide.Tensor
function tide.nn.init.zeros(t) end

---All ones.
---@param t tide.Tensor
---@return tide.Tensor
function tide.nn.init.ones(t) end

---All of one value.
---@param t tide.Tensor
---@param value number
---@return tide.Tensor
function tide.nn.init.constant(t, value) end

---Uniform in [low, high).
---@param t tide.Tensor
---@param low? number default 0
---@param high? number default 1
---@param generator? tide.Generator
---@return tide.Tensor
function tide.nn.init.uniform(t, low, high, generator) end

---Normal.
---@param t tide.Tensor
---@param mean? number default 0
---@param std? number default 1
---@param generator? tide.Generator
---@return tide.Tensor
function tide.nn.init.normal(t, mean, std, generator) end

---@class tide.nn.init.kaiming_uniform.options
---@field a? number slope of leaky_relu; default 0
---@field mode? string or "fan_out"; default "fan_in"
---@field nonlinearity? string see nn.init.gain; default "leaky_relu"
---@field generator? tide.Generator a source of its own

---Uniform with standard deviation gain/√fan.
---@param t tide.Tensor
---@param opts? tide.nn.init.kaiming_uniform.options
---@return tide.Tensor
function tide.nn.init.kaiming_uniform(t, opts) end

---@class tide.nn.init.kaiming_normal.options
---@field a? number slope of leaky_relu; default 0
---@field mode? string or "fan_out"; default "fan_in"
---@field nonlinearity? string see nn.init.gain; default "leaky_relu"
---@field generator? tide.Generator a source of its own

---Normal with standard deviation gain/√fan.
---@param t tide.Tensor
---@param opts? tide.nn.init.kaiming_normal.options
---@return tide.Tensor
function tide.nn.init.kaiming_normal(t, opts) end

---@class tide.nn.init.xavier_uniform.options
---@field gain? number a factor; default 1
---@field generator? tide.Generator a source of its own

---Uniform with standard deviation gain·√(2/(fan_in + fan_out)).
---@param t tide.Tensor
---@param opts? tide.nn.init.xavier_uniform.options
---@return tide.Tensor
function tide.nn.init.xavier_uniform(t, opts) end

---@class tide.nn.init.xavier_normal.options
---@field gain? number a factor; default 1
---@field generator? tide.Generator a source of its own

---Normal with standard deviation gain·√(2/(fan_in + fan_out)).
---@param t tide.Tensor
---@param opts? tide.nn.init.xavier_normal.options
---@return tide.Tensor
function tide.nn.init.xavier_normal(t, opts) end

---@class tide.nn.init.orthogonal.options
---@field gain? number a factor; default 1
---@field generator? tide.Generator a source of its own

---Orthonormal rows or columns of the matrix of all dims but the last by the last.
---@param t tide.Tensor
---@param opts? tide.nn.init.orthogonal.options
---@return tide.Tensor
function tide.nn.init.orthogonal(t, opts) end

---How much larger weights a nonlinearity asks for: linear, conv, sigmoid 1; tanh 5/3; relu √2; leaky_relu √(2/(1 + a²)); selu 3/4.
---@param nonlinearity string
---@param a? number default 0.01
---@return number
function tide.nn.init.gain(nonlinearity, a) end

---fan_in and fan_out of a weight.
---@param t tide.Tensor
---@return integer
---@return integer
function tide.nn.init.fans(t) end

---@class tide.nn.lora.add.options
---@field rank? integer of the product; default 4
---@field alpha? number the scale is alpha/rank; rank by default
---@field match? string|string[] patterns of names such as "down_blocks.1.attentions.2.to_q"; default "."
---@field generator? tide.Generator for the first values of A

---Adapters for every Linear, Conv2d (of one group) and MultiheadAttention whose name a pattern finds; freezes all else. The sorted names.
---@param m tide.nn.Module
---@param opts? tide.nn.lora.add.options
---@return string[]
function tide.nn.lora.add(m, opts) end

---The weights take up their adapters, which runs at the old speed.
---@param m tide.nn.Module
---@return tide.nn.Module
function tide.nn.lora.merge(m) end

---Takes the adapters out of the weights again, to rounding.
---@param m tide.nn.Module
---@return tide.nn.Module
function tide.nn.lora.unmerge(m) end

---The layers become what they were (with the adapters' part, if it was merged), and trainable.
---@param m tide.nn.Module
---@return tide.nn.Module
function tide.nn.lora.remove(m) end

---The adapters' tensors by name, and their scale.
---@param m tide.nn.Module
---@return table
function tide.nn.lora.state_dict(m) end

---Adds the adapters of a state to a module without any; their names.
---@param m tide.nn.Module
---@param state table
---@return string[]
function tide.nn.lora.load_state_dict(m, state) end

---@class tide.optim.SGD.options
---@field lr? number the learning rate; default 0.01
---@field momentum? number how much of the velocity stays; default 0
---@field dampening? number how little of the gradient enters it; default 0
---@field nesterov? boolean look ahead; needs a momentum and no dampening; default false
---@field weight_decay? number times p, added to g; default 0

---v ← momentum·v + (1 − dampening)·g, at first v = g; p ← p − lr·v, or with nesterov p − lr·(g + momentum·v).
---@param params tide.Tensor[]|table[]
---@param opts? tide.optim.SGD.options
---@return tide.Optimiser
function tide.optim.SGD(params, opts) end

---@class tide.optim.Adam.options
---@field lr? number the learning rate; default 1e-3
---@field betas? number[] of the two averages; default {0.9, 0.999}
---@field eps? number added to the root; default 1e-8
---@field weight_decay? number times p, added to g; default 0

---p ← p − lr·m̂/(√v̂ + eps), m and v averages of g and g², both corrected for their start at 0.
---@param params tide.Tensor[]|table[]
---@param opts? tide.optim.Adam.options
---@return tide.Optimiser
function tide.optim.Adam(params, opts) end

---@class tide.optim.AdamW.options
---@field lr? number the learning rate; default 1e-3
---@field betas? number[] of the two averages; default {0.9, 0.999}
---@field eps? number added to the root; default 1e-8
---@field weight_decay? number apart from the gradient; default 0.01

---Adam after p ← (1 − lr·weight_decay)·p.
---@param params tide.Tensor[]|table[]
---@param opts? tide.optim.AdamW.options
---@return tide.Optimiser
function tide.optim.AdamW(params, opts) end

---@class tide.optim.LBFGS.options
---@field lr? number the first step length tried; default 1
---@field iterations? integer of one call of step; default 20
---@field history? integer changes remembered; default 10
---@field tolerance_grad? number stop at this largest component of the gradient; default 1e-7
---@field tolerance_change? number stop when a step changes the loss no more than this; default 1e-9
---@field line_search? string or "backtracking"; default "strong_wolfe"
---@field evaluations? integer bounds each search; default 25

---Quasi-Newton steps from the last changes of the gradient, with a line search; opt:step(closure) makes up to `iterations` of them.
---@param params tide.Tensor[]
---@param opts? tide.optim.LBFGS.options
---@return tide.Optimiser
function tide.optim.LBFGS(params, opts) end

---One step from the gradients at hand; a closure is called first, and what it returns becomes opt.loss.
---@param closure? function
---@return tide.Optimiser
function Optimiser:step(closure) end

---Drops all gradients.
---@return tide.Optimiser
function Optimiser:zero_grad() end

---All parameters, group after group.
---@return tide.Tensor[]
function Optimiser:parameters() end

---Sets the learning rate of every group.
---@param lr number
---@return tide.Optimiser
function Optimiser:set_lr(lr) end

---The state as a flat table of tensors, copied: "state.3.m", "group.1.lr".
---@return table
function Optimiser:state_dict() end

---Takes the state of an optimiser of the same kind over the same parameters.
---@param state table
---@return tide.Optimiser
function Optimiser:load_state_dict(state) end

---Sets every group's rate for step 0 now, and for the next step at each sched:step().
---@param opt tide.Optimiser
---@param shape fun(k: integer, lr: number): number
---@return tide.Schedule
function tide.optim.Schedule(opt, shape) end

---On to the next step.
---@return tide.Schedule
function Schedule:step() end

---The rates now, group by group.
---@return number[]
function Schedule:rates() end

---Where the schedule is, as tensors.
---@return table
function Schedule:state_dict() end

---Continues where state_dict was taken.
---@param state table
---@return tide.Schedule
function Schedule:load_state_dict(state) end

---The rate as it is.
---@return fun(k: integer, lr: number): number
function tide.optim.constant() end

---@class tide.optim.step_decay.options
---@field every? integer n
---@field factor? number the factor; default 0.1

---Times factor after every n steps.
---@param opts tide.optim.step_decay.options
---@return fun(k: integer, lr: number): number
function tide.optim.step_decay(opts) end

---@class tide.optim.multistep.options
---@field at? integer[] the steps
---@field factor? number the factor; default 0.1

---Times factor at each of the steps named.
---@param opts tide.optim.multistep.options
---@return fun(k: integer, lr: number): number
function tide.optim.multistep(opts) end

---@class tide.optim.exponential.options
---@field factor? number the factor

---Times factor after every step.
---@param opts tide.optim.exponential.options
---@return fun(k: integer, lr: number): number
function tide.optim.exponential(opts) end

---@class tide.optim.cosine.options
---@field steps? integer n
---@field minimum? number the last rate; default 0

---Half a cosine from the rate down to the minimum at step n, and that from there on.
---@param opts tide.optim.cosine.options
---@return fun(k: integer, lr: number): number
function tide.optim.cosine(opts) end

---@class tide.optim.one_cycle.options
---@field steps? integer n
---@field rise? number fraction of the steps that rise; default 0.3
---@field start? number divides lr at first; default 25
---@field finish? number divides the first rate at the end; default 1e4

---Half a cosine up from lr/start to lr, then one down to lr/start/finish at the last of n steps.
---@param opts tide.optim.one_cycle.options
---@return fun(k: integer, lr: number): number
function tide.optim.one_cycle(opts) end

---n steps in a line up to where the shape starts, then the shape (constant by default).
---@param n integer
---@param shape? fun(k: integer, lr: number): number
---@return fun(k: integer, lr: number): number
function tide.optim.warmup(n, shape) end

---Scales all gradients together so that their common Euclidean norm is at most max; returns the norm before.
---@param params tide.Tensor[]
---@param max number
---@return number
function tide.optim.clip_grad_norm(params, max) end

---Limits every element of every gradient to [−max, max].
---@param params tide.Tensor[]
---@param max number
function tide.optim.clip_grad_value(params, max) end

---Averages of the parameters, at first their values.
---@param params tide.Tensor[]
---@param decay? number default 0.999
---@return tide.EMA
function tide.optim.EMA(params, decay) end

---average ← decay·average + (1 − decay)·p; after every step.
---@return tide.EMA
function EMA:update() end

---The parameters take the averages' values.
---@return tide.EMA
function EMA:apply() end

---The parameters take the values they had before apply.
---@return tide.EMA
function EMA:restore() end

---f(…) while the parameters have the averages' values.
---@param f function
---@param ... any
---@return any ...
function EMA:with(f, ...) end

---The averages, "1", "2", … in the order of the parameters.
---@return table
function EMA:state_dict() end

---Takes such averages.
---@param state table
---@return tide.EMA
function EMA:load_state_dict(state) end

---@class tide.ode.solve.options
---@field method? string see ode.methods; default "tsit5"
---@field rtol? number|tide.Tensor|table relative tolerance; one for each element, or for each part of a nested state; default 1e-6
---@field atol? number|tide.Tensor|table absolute tolerance, in units of y; likewise; default 1e-8
---@field norm? string|table|function of the scaled error over the whole state; "max"; "parts" or {sizes of groups}: the greatest root mean square of a group; or a function of the scaled error; default "rms"
---@field controller? string|table see ode.controllers; default "pi"
---@field safety? number the controller's, 0.9
---@field ifactor? number greatest growth of a step, 10
---@field dfactor? number greatest shrinking of a step, 0.2
---@field first_step? number chosen by default (Hairer, Nørsett and Wanner, II.4)
---@field min_step? number a smaller one ends the solve; default 0
---@field on_min_step? string or "accept": steps of min_step are accepted whatever their error; default "fail"
---@field max_step? number no bound by default
---@field max_steps? integer accepted and rejected; default 1e5
---@field max_num_steps? integer another name for it
---@field step_t? number[]|tide.Tensor times to step onto
---@field jump_t? number[]|tide.Tensor times at which f jumps: it is asked from one side before and from the other after
---@field grid_constructor? function grid_constructor(f, y0, t) → the nodes of a fixed grid, both ends included
---@field interp? string save times on fixed steps by the method's extension; "linear": by straight lines; default "dense"
---@field save? string|integer values at t; "steps" or every how many steps: at those instead; default "times"
---@field save_fn? function save_fn(t, y): what is saved of every state, in ys
---@field dense? boolean sol(t) gives y and dy/dt at any time; keeps the states of all steps. Of a batch it gives those of all rows, sol.rows[i](t) of one; default false
---@field event? function|table fn(t, y) ends the solve where it changes its sign (a boolean: at the step's end); or a table {fn, direction = 1 | -1 | 0, terminal = true | false | after how many, reset = function(t, y) → y after}; an event with a reset goes on. A zero at the first time does not count. In a batch both get the row's number too
---@field events? table a list of such
---@field event_points? integer places in a step at which signs are looked at; default 10
---@field checkpoints? integer states kept for the reverse pass, the rest made again at least cost; 0: as memory allows; default 0
---@field memory? number bytes of states kept for the reverse pass; default 2^30
---@field step_size? number fixed steps; methods without an error estimate need it, or grid_constructor, or land
---@field land? boolean step onto the times instead of interpolating; alone, it takes a method without an error estimate from time to time in one step each; default false
---@field grad? string exact for the steps taken; "full": the same, all states kept; "forward": the same derivative by tangents that ride on the steps, see Solution:sensitivity; "interp": continuous over the forward solve's own interpolation; "gauss": the same, parameters by Gauss quadrature; "adjoint" (or "backsolve"): continuous, memory independent of the number of steps; "frozen": wrong on purpose, for comparison; "reversible": discrete, the states rebuilt backwards by a reversible method, nothing kept but the end. Events pass in "discrete", "full" and "forward"; default "discrete"
---@field max_tangents? integer of grad = "forward": more numbers that need a gradient are refused; default 200
---@field params? tide.Tensor[] further tensors that need gradients
---@field capture? boolean|string run f as a captured program: where it can be, true: or raise, false: never; default "auto"
---@field keep? number bytes that one captured evaluation may keep for its reverse pass; beyond, it is computed again; default 2^28
---@field hold? number bytes of evaluations, the last ones of a captured solve, that stay kept for its discrete gradient, which need not compute them again: no less than those of a step, 0: none; by default those of three steps, up to 2 GB
---@field jac? function jac(t, y) → ∂f/∂y (n × n; rows or a tensor) and, for Rosenbrock methods, ∂f/∂t; of a batch jac(t, y, rows) → tensors of rows × n × n and rows × n; by default from the tape, or from dual numbers when f is on plain numbers; of the implicit half where f has two and the method takes them apart
---@field jac_sparsity? tide.Tensor|table where ∂f/∂y may differ from zero: a matrix of marks, or {lower = l, upper = u}, a band; then few reverse passes find it and its factors stay in a band. Nothing outside may depend
---@field preconditioner? function preconditioner(r, t, y, shift) → nearly the solution x of shift·x − ∂f/∂y x = r, for GMRES in diagonally implicit methods and bdf beyond 600 elements
---@field mass? tide.Tensor|table M of M y' = f, a matrix or the numbers of a diagonal, constant; rows may be zero (algebraic equations, which y0 has to satisfy) in Rosenbrock methods, Radau, Gauss and bdf. Others solve y' = M⁻¹ f
---@field base? string of mccallum_foster, any explicit method; default "tsit5"
---@field linear? tide.Tensor the stiff linear part L of f, for exponential methods: as many numbers as the state has (a diagonal), or a square matrix for the state or for its last dim; f is the whole right-hand side, L counts as a constant
---@field coupling? number of mccallum_foster: less damps more forward and amplifies rounding backward; default 0.999
---@field max_order? integer of bdf, 5 at most, and abm, 12 at most; the order of explicit_adams and implicit_adams, 4 by default; 0: no bound; default 0
---@field max_iters? integer corrections of implicit_adams, 5 at most; 0: 4; default 0
---@field batch? boolean every row of y0 is an equation of its own, solved as if alone: f(t, y, rows) gets the rows that are still at work (t: rows×1…, rows: their numbers); t and the tolerances may be one for each row; the result has rows (a solution each), lists status, message and stats, and ys (rows × times × state) where all rows have equally many. f is captured as for one equation; default false
---@field throw? boolean false returns a failed or refused solve instead of raising (default of a batch); default true
---@field adjoint_method? string of the backward solve; as forward by default, but "kvaerno5" for Rosenbrock and exponential methods and "auto", "tsit5" for symplectic ones
---@field adjoint_rtol? number as forward by default
---@field adjoint_atol? number as forward by default
---@field adjoint_norm? string parameters stay out of the backward error; "rms": all count; default "seminorm"

---Solves from y(t[1]) = y0, with values at the times t, ascending or descending; {t0, t1} for the two ends.
---@param f function f(t, y) → dy/dt; t is a 0-d float64 tensor and y like y0. It must give the same again for the same arguments. false instead of a derivative means that there is none: a smaller step is tried. Or {explicit = function, implicit = function}, two halves of it: kencarp3, kencarp4 and kencarp5 take the first explicitly and solve for the second, all other methods see the sum
---@param y0 tide.Tensor|number[]|table a tensor; a table of numbers (then f takes a number and a table and returns a table); or nested tables of tensors
---@param t number[]|tide.Tensor
---@param opts? tide.ode.solve.options
---@return tide.Solution
function tide.ode.solve(f, y0, t, opts) end

---What happened, in words: why it ended, where steps were smallest, which components limited them.
---@return string
function Solution:explain() end

---sol:at(t), or sol(t): y and dy/dt at a time inside the solve, with dense = true; side = "left" asks before a jump or a reset.
---@param t number
---@param side? string
---@return tide.Tensor|number[]|table
---@return tide.Tensor|number[]|table
function Solution:at(t, side) end

---The derivative of ys by x, times × state × shape of x, of a solve with grad = "forward". x is y0 or a tensor that f closes over and that needs a gradient; of a nested state, y0's parts get theirs by backward only.
---@param x tide.Tensor
---@return tide.Tensor
function Solution:sensitivity(x) end

---@class tide.ode.odeint.options
---@field method? string with its embedded weights; any of ode.methods; default "dopri5"
---@field rtol? number relative tolerance; default 1e-7
---@field atol? number absolute tolerance; default 1e-9
---@field controller? string|table see ode.controllers; default "torchdiffeq"
---@field first_step? number chosen by default
---@field min_step? number smallest step; default 0
---@field max_step? number greatest step
---@field max_num_steps? integer no bound by default
---@field step_size? number for fixed steps
---@field safety? number the controller's
---@field ifactor? number the controller's greatest growth
---@field dfactor? number the controller's greatest shrinking
---@field norm? string|function see ode.solve; default "rms"
---@field step_t? number[]|tide.Tensor times to step onto
---@field jump_t? number[]|tide.Tensor times at which f jumps
---@field grid_constructor? function (f, y0, t) → the nodes of a fixed grid
---@field interp? string or "linear", on fixed steps; default "dense"
---@field perturb? boolean f is asked beside the times t, never at them; default false
---@field max_order? integer of methods that choose; 0: their own; default 0
---@field max_iters? integer of methods that iterate; default 0
---@field event_fn? function (t, y) → a number: the solve ends where it changes its sign, and the results are the event's time and the values up to it

---The values at the times t, with torchdiffeq's names and defaults and exact gradients through the solver.
---@param f function
---@param y0 tide.Tensor|number[]|table
---@param t number[]|tide.Tensor
---@param opts? tide.ode.odeint.options
---@return tide.Tensor|table
function tide.ode.odeint(f, y0, t, opts) end

---@class tide.ode.odeint_adjoint.options
---@field method? string with its embedded weights; any of ode.methods; default "dopri5"
---@field rtol? number relative tolerance; default 1e-7
---@field atol? number absolute tolerance; default 1e-9
---@field controller? string|table see ode.controllers; default "torchdiffeq"
---@field first_step? number chosen by default
---@field min_step? number smallest step; default 0
---@field max_step? number greatest step
---@field max_num_steps? integer no bound by default
---@field step_size? number for fixed steps
---@field safety? number the controller's
---@field ifactor? number the controller's greatest growth
---@field dfactor? number the controller's greatest shrinking
---@field norm? string|function see ode.solve; default "rms"
---@field step_t? number[]|tide.Tensor times to step onto
---@field jump_t? number[]|tide.Tensor times at which f jumps
---@field grid_constructor? function (f, y0, t) → the nodes of a fixed grid
---@field interp? string or "linear", on fixed steps; default "dense"
---@field perturb? boolean f is asked beside the times t, never at them; default false
---@field max_order? integer of methods that choose; 0: their own; default 0
---@field max_iters? integer of methods that iterate; default 0
---@field event_fn? function (t, y) → a number: the solve ends where it changes its sign, and the results are the event's time and the values up to it
---@field adjoint_method? string of the backward solve
---@field adjoint_rtol? number as forward by default
---@field adjoint_atol? number as forward by default
---@field adjoint_norm? string or "seminorm"; default "rms"
---@field adjoint_params? tide.Tensor[] further tensors that need gradients

---odeint with the gradient of the continuous adjoint.
---@param f function
---@param y0 tide.Tensor|number[]|table
---@param t number[]|tide.Tensor
---@param opts? tide.ode.odeint_adjoint.options
---@return tide.Tensor|table
function tide.ode.odeint_adjoint(f, y0, t, opts) end

---@class tide.ode.odeint_event.options
---@field method? string with its embedded weights; any of ode.methods; default "dopri5"
---@field rtol? number relative tolerance; default 1e-7
---@field atol? number absolute tolerance; default 1e-9
---@field controller? string|table see ode.controllers; default "torchdiffeq"
---@field first_step? number chosen by default
---@field min_step? number smallest step; default 0
---@field max_step? number greatest step
---@field max_num_steps? integer no bound by default
---@field step_size? number for fixed steps
---@field safety? number the controller's
---@field ifactor? number the controller's greatest growth
---@field dfactor? number the controller's greatest shrinking
---@field norm? string|function see ode.solve; default "rms"
---@field step_t? number[]|tide.Tensor times to step onto
---@field jump_t? number[]|tide.Tensor times at which f jumps
---@field grid_constructor? function (f, y0, t) → the nodes of a fixed grid
---@field interp? string or "linear", on fixed steps; default "dense"
---@field perturb? boolean f is asked beside the times t, never at them; default false
---@field max_order? integer of methods that choose; 0: their own; default 0
---@field max_iters? integer of methods that iterate; default 0
---@field event_fn? function (t, y) → a number: the solve ends where it changes its sign, and the results are the event's time and the values up to it
---@field reverse_time? boolean go back in time; default false
---@field odeint_interface? function taken for torchdiffeq's sake, not used

---From t0 until event_fn changes its sign, however long that takes: the time, and the states at t0 and then.
---@param f function
---@param y0 tide.Tensor|number[]|table
---@param t0 number
---@param opts tide.ode.odeint_event.options
---@return tide.Tensor|number
---@return tide.Tensor|table
function tide.ode.odeint_event(f, y0, t0, opts) end

---@class tide.ode.solve_ivp.options
---@field method? string or any of ode.methods; default "RK45"
---@field t_eval? number[]|tide.Tensor the times to give; all steps by default
---@field dense_output? boolean sol(t) anywhere; default false
---@field events? function|table one or a list; {fn, terminal = true, direction = 1} for more
---@field args? table further arguments of fun
---@field rtol? number relative tolerance; default 1e-3
---@field atol? number absolute tolerance; default 1e-6
---@field first_step? number chosen by default
---@field max_step? number no bound by default
---@field jac? function see ode.solve
---@field jac_sparsity? tide.Tensor|table see ode.solve
---@field lband? integer with uband: the Jacobian is a band of so many diagonals below the main one
---@field uband? integer and above

---SciPy's solve_ivp: fun(t, y, …args) from t_span[1] to t_span[2], with its method names (RK45, RK23, DOP853, Radau, BDF), step control and default tolerances.
---@param fun function
---@param t_span number[]|tide.Tensor
---@param y0 tide.Tensor|number[]|table
---@param opts? tide.ode.solve_ivp.options
---@return table
function tide.ode.solve_ivp(fun, t_span, y0, opts) end

---The methods by name: {name, source, family, order, error_order, dense_order, stages, stiff}, and their coefficients: fsal, a, b, c, e and extended (the rows of all stages that the extension uses) of explicit ones, or the tables dirk, rosenbrock, collocation.
tide.ode.methods = {}

---The step controllers by name: exponents k1, k2, k3 of the last three errors and k4, k5 of the last ratios of step sizes, safety, shrink, grow.
tide.ode.controllers = {}

---@class tide.ode.steady_state.options
---@field t? number the time at which f is asked; default 0
---@field rtol? number of |f|, relative to |y|; default 1e-10
---@field atol? number of |f|; default 1e-12
---@field max_iters? integer steps; default 200
---@field first_step? number in pseudo-time; a smaller one follows the flow longer; default 0.1
---@field gmres_rtol? number of the adjoint system; default 1e-12
---@field gmres_restart? integer directions kept; default 60
---@field gmres_iters? integer at most; default 600
---@field throw? boolean false gives nil and the second result; default true

---y with f(t, y) = 0 near y0, by pseudo-transient continuation, which follows the flow first and ends as Newton's method; its gradient by the implicit function theorem, with GMRES on products with the transposed Jacobian. The second result has status, residual and iterations.
---@param f function
---@param y0 tide.Tensor
---@param opts? tide.ode.steady_state.options
---@return tide.Tensor
---@return table
function tide.ode.steady_state(f, y0, opts) end

---@class tide.ode.brownian.options
---@field seed? integer of the path; default 0
---@field dtype? string of its values; default "float32"
---@field depth? integer resolved to (t1 − t0)/2^depth, straight lines within; default 20

---A path of independent Brownian motions on [t0, t1], 0 at t0, that can be asked at any time in any order and gives the same for the same seed. path:at(t) gives W(t) and its time integral since t0; path:increment(s, t) gives W(t) − W(s) and ∫(W(r) − W(s)) dr.
---@param shape integer[]
---@param t0 number
---@param t1 number
---@param opts? tide.ode.brownian.options
---@return table
function tide.ode.brownian(shape, t0, t1, opts) end

---@class tide.ode.sde.options
---@field method? string Itô, strong order 1/2; "milstein": Itô, diagonal noise, 1; "heun": Stratonovich, 1; "sra1": additive noise, 3/2; default "euler_maruyama"
---@field step_size? number at most; every stretch between two times is divided evenly
---@field path? table of ode.brownian; made from seed by default
---@field seed? integer of the path that is made; default 0
---@field noise? string g is like y; "general": g is (elements of y) × m and the path has shape {m}; default "diagonal"
---@field checkpoint? boolean keep the states at the times only and repeat the steps in the backward pass; default false

---Solves dy = f(t, y) dt + g(t, y) dW in fixed steps over a path, with values at the ascending times t. Gradients reach y0 and all that f and g close over, exact for the steps taken with the noise as it is.
---@param f function
---@param g function
---@param y0 tide.Tensor
---@param t number[]|tide.Tensor
---@param opts tide.ode.sde.options
---@return table
function tide.ode.sde(f, g, y0, t, opts) end

---The methods of ode.sde, each with the sense of its integral: ito, stratonovich or both.
tide.ode.sde_methods = {}

---@class tide.implicit.HomoODE.options
---@field kind? string z' = F(z; x), as released; "residual": z' = F(z; x) − z, whose rest points are the equilibria z = F(z; x); default "learned"
---@field inputs? integer channels of the images; default 3
---@field channels? integer of features and state; default 64
---@field classes? integer logits; default 10
---@field groups? integer of every group norm; divides channels; default 32
---@field stem_stride? integer of the stem's first convolution; the second has 2; default 1
---@field head_width? integer of the head's 1×1 convolution; default 256
---@field dropout? number of channels in the field, one mask for a whole solve; default 0
---@field point? string see implicit.SharedPoint; default "regress"
---@field point_lr? number of its own steps; default 0.02
---@field point_every? integer calls between them; default 20
---@field horizon? number the end time; default 1
---@field method? string see ode.methods; default "dopri5_shampine"
---@field controller? string|table see ode.controllers; default "torchdiffeq"
---@field rtol? number relative tolerance; default 1e-3
---@field atol? number absolute tolerance; default 1e-3
---@field step_size? number for fixed steps
---@field grad? string "adjoint", or "frozen": what the released adjoint computes, wrong, for comparison only; default "discrete"
---@field adjoint_norm? string or "seminorm"; default "rms"

---Images N×H×W×inputs → logits N×classes.
---@param opts? tide.implicit.HomoODE.options
---@return tide.implicit.HomoODE
function tide.implicit.HomoODE(opts) end

---The hyper-parameters of the authors' scripts: cifar10, cifar100, tiny_imagenet; model holds HomoODE's options, the rest is the training.
tide.implicit.configs = {}

---@class tide.implicit.Stem.options
---@field stride? integer of the first; the second has 2; default 1

---Two 3×3 convolutions with batch norm and relu: N×H×W×inputs → N×H/(2·stride)×W/(2·stride)×channels.
---@param inputs integer
---@param channels integer
---@param opts? tide.implicit.Stem.options
---@return tide.nn.Module
function tide.implicit.Stem(inputs, channels, opts) end

---@class tide.implicit.Field.options
---@field groups? integer of both norms; default 32
---@field dropout? number of channels, chosen once for a whole solve; default 0

---F(z; x) = GN₂(drop(conv₂(relu(GN₁(conv₁ z)) + x))), with 3×3 convolutions; z and x are N×H×W×C.
---@param channels integer
---@param opts? tide.implicit.Field.options
---@return tide.nn.Module
function tide.implicit.Field(channels, opts) end

---@class tide.implicit.Head.options
---@field groups? integer of the norm; default 32
---@field width? integer channels after the convolution; default 256

---GN, relu, 1×1 convolution to `width`, batch norm, relu, mean over the image, linear: N×H×W×channels → N×classes.
---@param channels integer
---@param classes integer
---@param opts? tide.implicit.Head.options
---@return tide.nn.Module
function tide.implicit.Head(channels, classes, opts) end

---@class tide.implicit.SharedPoint.options
---@field mode? string "zero"; "pattern": −1 and +1 alternating; "regress": steps towards the batch's endpoints, as released; "joint": trained by the loss through the solve; "ema": running mean of the endpoints; default "regress"
---@field groups? integer of its group norm (regress, joint); default 32
---@field lr? number of a regression step; default 0.02
---@field every? integer calls of update between steps; default 20
---@field decay? number of the running mean; default 0.99

---One number per channel from which every solve starts.
---@param channels integer
---@param opts? tide.implicit.SharedPoint.options
---@return tide.implicit.SharedPoint
function tide.implicit.SharedPoint(channels, opts) end

---@class tide.diffusion.Schedule.options
---@field steps? integer times of training; networks see 0 to steps − 1 (flow: 0 to steps, edm: ¼·log σ); default 1000
---@field beta_start? number of linear (1e-4), scaled_linear (0.00085), vp (0.1)
---@field beta_end? number of linear (0.02), scaled_linear (0.012), vp (20)
---@field betas? number[] of "betas"
---@field sigma_min? number of edm, 0.002
---@field sigma_max? number of edm, 80
---@field shift? number of flow: grids use k·σ/(1 + (k−1)·σ); default 1
---@field prediction? string what networks on this schedule predict, "epsilon", on a flow "flow"

---A noise schedule: "linear" (DDPM), "scaled_linear" (Stable Diffusion), "cosine", "vp" (the linear one as a continuous function), "betas" (your own), "flow" (rectified flow), "edm" or "karras" (α = 1, Karras' steps), "exponential" (α = 1, log-uniform steps).
---@param name string
---@param opts? tide.diffusion.Schedule.options
---@return tide.NoiseSchedule
function tide.diffusion.Schedule(name, opts) end

---Is x a noise schedule?
---@param x any
---@return boolean
function tide.diffusion.is_schedule(x) end

---α at a time, or at every time of a tensor (as a tensor of its shape).
---@param t tide.Tensor|number
---@param dtype? tide.dtype
---@return tide.Tensor|number
function NoiseSchedule:alpha(t, dtype) end

---σ at a time or at the times of a tensor.
---@param t tide.Tensor|number
---@param dtype? tide.dtype
---@return tide.Tensor|number
function NoiseSchedule:sigma(t, dtype) end

---λ = log(α/σ), half the log-SNR.
---@param t tide.Tensor|number
---@param dtype? tide.dtype
---@return tide.Tensor|number
function NoiseSchedule:lambda(t, dtype) end

---σ̂ = σ/α.
---@param t tide.Tensor|number
---@param dtype? tide.dtype
---@return tide.Tensor|number
function NoiseSchedule:ratio(t, dtype) end

---The time with this λ.
---@param lambda number
---@return number
function NoiseSchedule:time(lambda) end

---{t, alpha, sigma, lambda, ratio} at a time.
---@param t number
---@return table
function NoiseSchedule:node(t) end

---The same at a λ; beyond the ends of training the time is that of the end.
---@param lambda number
---@return table
function NoiseSchedule:node_at(lambda) end

---α·x0 + σ·noise at a time, or at one time for each of the batch.
---@param x0 tide.Tensor
---@param noise tide.Tensor
---@param t tide.Tensor|number
---@return tide.Tensor
function NoiseSchedule:add_noise(x0, noise, t) end

---What a network that predicts `kind` should give at add_noise(x0, noise, t).
---@param x0 tide.Tensor
---@param noise tide.Tensor
---@param t tide.Tensor|number
---@param kind? string
---@return tide.Tensor
function NoiseSchedule:target(x0, noise, t, kind) end

---A prediction at (x, t) of one kind as one of another.
---@param p tide.Tensor
---@param x tide.Tensor
---@param t tide.Tensor|number
---@param from string
---@param to string
---@return tide.Tensor
function NoiseSchedule:convert(p, x, t, from, to) end

---@class tide.NoiseSchedule.noise.options
---@field generator? tide.Generator the default one
---@field dtype? tide.dtype of the result; default float32

---Where sampling starts: normal noise with the standard deviation of x at the last time.
---@param sizes integer|integer[]
---@param opts? tide.NoiseSchedule.noise.options
---@return tide.Tensor
function NoiseSchedule:noise(sizes, opts) end

---@class tide.NoiseSchedule.nodes.options
---@field steps? integer N; default 50
---@field spacing? string "trailing" (the default but for edm), "leading", "linspace" in time; "karras", "exponential" (also called "logsnr") in σ̂
---@field final? string ends without noise; "min": at the first time of training; "none": at the last point of the spacing, which then has N + 1; default "zero"
---@field timesteps? number[] times of your own, descending
---@field sigmas? number[] σ̂ of your own, descending
---@field offset? number of leading; default 0
---@field rho? number of karras; default 7
---@field sigma_min? number of karras and exponential, as trained
---@field sigma_max? number of karras and exponential, as trained

---The points a sampler of N steps walks on, from noise to data: N + 1 tables as of node; a last one without noise has no time.
---@param opts? tide.NoiseSchedule.nodes.options
---@return table[]
function NoiseSchedule:nodes(opts) end

---@class tide.NoiseSchedule.timesteps.options
---@field steps? integer and the other options of nodes; default 50

---The times of nodes(opts).
---@param opts? tide.NoiseSchedule.timesteps.options
---@return number[]
function NoiseSchedule:timesteps(opts) end

---@class tide.diffusion.sample.options
---@field schedule? string|tide.NoiseSchedule see diffusion.Schedule; default "linear"
---@field prediction? string of the model; the schedule's by default
---@field sampler? string see diffusion.samplers; default "ddim"
---@field steps? integer and spacing, final, timesteps, sigmas, offset, rho, sigma_min, sigma_max as in NoiseSchedule:nodes; default 50
---@field strength? number less than 1 begins at a later step, for an image to which noise was added; default 1
---@field condition? any given to the model
---@field negative? any the condition to be guided away from
---@field guidance? number|tide.Tensor classifier-free: negative + guidance·(condition − negative); 7.5 with a negative, else 1 (off)
---@field rescale? number share of the guided prediction that gets the spread of the conditional one; default 0
---@field classifier? function classifier(x, t) → log-probabilities, for classifier guidance
---@field classifier_scale? number of its gradient; default 1
---@field clip? number x0 is limited to ±clip in every step
---@field grad? string exact, the latents are kept; "reversible": exact, latents are computed back (bdia, o_belm, edict, mf); "full": everything on the tape; "adjoint": AdjointDPM's, "adjoint_2m": AdjointDEIS-2M's, both for comparison; "none"; default "discrete"
---@field checkpoint? integer with "discrete": keeps the latents of every k-th step only
---@field truncated? integer with "discrete": gradients through the last k steps only
---@field wrt? tide.Tensor[] of the leaves that the model closes over, only these get gradients
---@field noise? tide.Generator|tide.Tensor[] of samplers that inject noise; the default generator
---@field latents? boolean also give the states, stacked along a first dim, with gradients; default false
---@field callback? function callback(step, steps, node, x) after every step; further options are the sampler's own

---Goes from noise x_T to x0. Gradients reach x_T, the noises, the condition, the negative condition, the guidance scale and every parameter that the model closes over, by the mode `grad`. A model that is a module runs as captured programs; a function runs as it is, unless it is one of tide.capture. Of a network that gives twice as many channels as it takes (a learned variance) the first half is taken.
---@param model function
---@param x_T tide.Tensor
---@param opts? tide.diffusion.sample.options
---@return tide.Sample
function tide.diffusion.sample(model, x_T, opts) end

---x_T computed back from the end, of a sample made with grad = "reversible".
---@return tide.Tensor
function Sample:reconstruct() end

---The samplers by name: {name, source, order, options}. The options are given to diffusion.sample with their defaults here. ddim, dpm_solver_1/2/3, dpm_solver_fast, dpm_solver_1_sde, dpmpp_1/2s/2m/3m, dpmpp_2m_sde, dpmpp_3m_sde, deis, lms, plms, unip, unipc, euler, heun, dpm2, euler_a, dpm2_a, dpmpp_2s_a, flow_euler, flow_midpoint, flow_heun; reversible: bdia, o_belm, edict, mf; "ode": AdjointDPM's form with any method of tide.ode.
tide.diffusion.samplers = {}

---@class tide.diffusion.optimise.options
---@field targets? tide.Tensor[] what is changed: x_T by default; a condition, adapters, weights
---@field iterations? integer steps of the optimiser; default 30
---@field lr? number its rate; default 0.05
---@field optimiser? string|function "adamw", "sgd", or a function of the targets that makes one; default "adam"
---@field keep_norm? boolean every noise is brought back to the norm it began with; default true
---@field shell? number weight of minus the log-density of |x_T|², instead of a kept norm; default 0
---@field clip_grad? number greatest norm of the gradient
---@field callback? function callback(iteration, iterations, loss, out)
---@field sampling? table options of diffusion.sample

---Changes x_T, or the leaves in `targets`, in place so that metric(x0, out), a tensor of one element, becomes small.
---@param model function
---@param x_T tide.Tensor
---@param metric function
---@param opts? tide.diffusion.optimise.options
---@return table
function tide.diffusion.optimise(model, x_T, metric, opts) end

---@class tide.diffusion.attack.options
---@field bound? number greatest distance from x_T; default 0.1
---@field norm? string of the distance, over elements, or "l2"; default "max"
---@field step? number of every element along the gradient's sign ("max"), or of the whole ("l2"); default 0.02
---@field iterations? integer steps; default 30
---@field success? function success(x0) → N of 0 or 1; noises that succeeded are left alone
---@field callback? function callback(iteration, iterations, loss, found)
---@field sampling? table options of diffusion.sample

---Looks, from a batch of noises, for others within a bound whose samples make metric(x0), one number for each of the batch, large. x_T is not changed.
---@param model function
---@param x_T tide.Tensor
---@param metric function
---@param opts? tide.diffusion.attack.options
---@return table
function tide.diffusion.attack(model, x_T, metric, opts) end

---@class tide.diffusion.guide.options
---@field schedule? string|tide.NoiseSchedule as in diffusion.sample; default "linear"
---@field steps? integer of the sample; default 50
---@field spacing? string of the sample
---@field substeps? integer of the short sampler; default 4
---@field subsampler? string its name; default "ddim"
---@field from? integer first step that is guided; after 30 % of them
---@field to? integer last one; at 70 %
---@field strength? number a push is as long as the sampler's own step, times this; default 1
---@field repeats? integer times that a guided step is taken, with fresh noise between; default 1
---@field noise? tide.Generator for repeats
---@field callback? function callback(step, steps, node, x, loss), loss nil where a step was not guided
---@field sampling? table options of diffusion.sample, such as condition, negative, guidance, prediction

---A DDIM sample whose states are moved against the gradient of loss(x0), taken through a short sampler from each state to its end (symplectic adjoint guidance).
---@param model function
---@param x_T tide.Tensor
---@param loss function
---@param opts? tide.diffusion.guide.options
---@return table
function tide.diffusion.guide(model, x_T, loss, opts) end

---Products of channels, averaged over positions: N×C×C of N×H×W×C or N×L×C. Differences of these measure style.
---@param features tide.Tensor
---@return tide.Tensor
function tide.diffusion.gram(features) end

---@class tide.diffusion.UNet2DModel.options
---@field sample_size? integer|integer[] not used by the network
---@field in_channels? integer of the image; default 3
---@field out_channels? integer of the prediction; default 3
---@field block_out_channels? integer[] channels of each resolution; default {224, 448, 672, 896}
---@field layers_per_block? integer residual blocks of a resolution, one more on the way up; default 2
---@field down_block_types? string[] DownBlock2D, AttnDownBlock2D (with attention between positions), ResnetDownsampleBlock2D
---@field up_block_types? string[] UpBlock2D, AttnUpBlock2D, ResnetUpsampleBlock2D
---@field mid_block_type? string or false for none; default "UNetMidBlock2D"
---@field attention_head_dim? integer channels of a head; false: one head; default 8
---@field norm_num_groups? integer of group norms; default 32
---@field norm_eps? number added to variances; default 1e-5
---@field act_fn? string or "swish", "mish", "gelu", "relu"; default "silu"
---@field dropout? number in residual blocks; default 0
---@field resnet_time_scale_shift? string the time is added; "scale_shift": it scales and shifts; default "default"
---@field downsample_padding? integer 0 puts zeros at the right and the bottom alone, as DDPM; default 1
---@field mid_block_scale_factor? number divides the sums of the middle; default 1
---@field flip_sin_to_cos? boolean cosines of the time before its sines; default true
---@field freq_shift? number 1 in DDPM; default 0
---@field time_embedding_dim? integer 4·block_out_channels[1]
---@field time_embedding_type? string "fourier": of random frequencies, stored with the weights; UNet2DModel then takes the noise's σ as its time and divides its result by it; default "positional"
---@field num_class_embeds? integer classes that may be a condition
---@field class_embed_type? string "timestep": the condition is a number, embedded as times are; "identity": a vector
---@field center_input_sample? boolean the image comes as 0 to 1; default false
---@field attn_norm_num_groups? integer of the middle's attention
---@field add_attention? boolean in the middle; default true
---@field downsample_type? string or "resnet", in blocks with attention; default "conv"
---@field upsample_type? string or "resnet", in blocks with attention; default "conv"
---@field num_train_timesteps? integer not used
---@field dtype? tide.dtype of the parameters; default "float32"
---@field generator? tide.Generator for the first values

---The U-Net of DDPM. The condition, where there are classes, is a class (from 1), int64 classes, or real vectors that stand for classes (width time_embedding_dim; gradients reach them).
---@param config? tide.diffusion.UNet2DModel.options
---@return tide.nn.Module
function tide.diffusion.UNet2DModel(config) end

---@class tide.diffusion.UNet2DConditionModel.options
---@field sample_size? integer|integer[] not used by the network
---@field in_channels? integer of the image; default 4
---@field out_channels? integer of the prediction; default 4
---@field block_out_channels? integer[] channels of each resolution; default {320, 640, 1280, 1280}
---@field layers_per_block? integer residual blocks of a resolution, one more on the way up; default 2
---@field down_block_types? string[] DownBlock2D, CrossAttnDownBlock2D (with transformers), ResnetDownsampleBlock2D
---@field up_block_types? string[] UpBlock2D, CrossAttnUpBlock2D, ResnetUpsampleBlock2D
---@field mid_block_type? string or false for none; default "UNetMidBlock2DCrossAttn"
---@field attention_head_dim? integer the number of heads, in spite of its name; or a list; default 8
---@field norm_num_groups? integer of group norms; default 32
---@field norm_eps? number added to variances; default 1e-5
---@field act_fn? string or "swish", "mish", "gelu", "relu"; default "silu"
---@field dropout? number in residual blocks; default 0
---@field resnet_time_scale_shift? string the time is added; "scale_shift": it scales and shifts; default "default"
---@field downsample_padding? integer 0 puts zeros at the right and the bottom alone, as DDPM; default 1
---@field mid_block_scale_factor? number divides the sums of the middle; default 1
---@field flip_sin_to_cos? boolean cosines of the time before its sines; default true
---@field freq_shift? number 1 in DDPM; default 0
---@field time_embedding_dim? integer 4·block_out_channels[1]
---@field time_embedding_type? string "fourier": of random frequencies, stored with the weights; UNet2DModel then takes the noise's σ as its time and divides its result by it; default "positional"
---@field num_class_embeds? integer classes that may be a condition
---@field class_embed_type? string "timestep": the condition is a number, embedded as times are; "identity": a vector
---@field center_input_sample? boolean the image comes as 0 to 1; default false
---@field cross_attention_dim? integer|integer[] width of the condition's vectors; default 1280
---@field transformer_layers_per_block? integer|integer[] depth of the transformers; default 1
---@field use_linear_projection? boolean around them, instead of 1×1 convolutions; default false
---@field upcast_attention? boolean not used; default false
---@field dtype? tide.dtype of the parameters; default "float32"
---@field generator? tide.Generator for the first values

---The U-Net of Stable Diffusion. The condition is vectors N×S×C (or S×C for all images), or {vectors, mask =, class =}; a mask of S or N×S: uint8 (1 takes part), or real (added to the scores).
---@param config? tide.diffusion.UNet2DConditionModel.options
---@return tide.nn.Module
function tide.diffusion.UNet2DConditionModel(config) end

---@class tide.diffusion.DiT.options
---@field sample_size? integer height and width of the image; default 32
---@field patch_size? integer of the squares that become vectors; default 2
---@field in_channels? integer of the image; default 4
---@field out_channels? integer of the prediction, in_channels by default
---@field num_layers? integer blocks; default 28
---@field num_attention_heads? integer of each; default 16
---@field attention_head_dim? integer channels of a head; default 72
---@field num_embeds_ada_norm? integer classes; one more stands for none; default 1000
---@field attention_bias? boolean of queries, keys and values; default true
---@field norm_eps? number added to variances; default 1e-5
---@field norm_num_groups? integer not used; default 32
---@field upcast_attention? boolean not used; default false
---@field dtype? tide.dtype of the parameters; default "float32"
---@field generator? tide.Generator for the first values

---A diffusion transformer in the layout of diffusers' DiTTransformer2DModel. The condition is a class, int64 classes (the last stands for none), or vectors of its width in their place.
---@param config? tide.diffusion.DiT.options
---@return tide.nn.Module
function tide.diffusion.DiT(config) end

---@class tide.diffusion.EDM.options
---@field sigma_data? number the data's standard deviation; default 0.5
---@field prediction? string or "v", by which diffusers means the network's value with the other sign; default "epsilon"

---A network with the preconditioning of Karras et al.: net sees x/√(σ² + sigma_data²), the result is x0, for a schedule "edm" or "exponential" with prediction = "x0". diffusion.load wraps the network of a folder with an EDM scheduler in it; diffusion.save writes such a folder.
---@param net tide.nn.Module
---@param opts? tide.diffusion.EDM.options
---@return tide.nn.Module
function tide.diffusion.EDM(net, opts) end

---@class tide.diffusion.Classifier.options
---@field in_channels? integer of the images; default 1
---@field num_classes? integer logits; default 10
---@field sample_size? integer not used
---@field block_out_channels? integer[] channels of each resolution; default {16, 32, 64}
---@field norm_num_groups? integer of group norms; default 8
---@field dropout? number before the last layer; default 0
---@field dtype? tide.dtype of the parameters; default "float32"
---@field generator? tide.Generator for the first values

---A small convolutional classifier, smooth and without batch statistics: images N×H×W×C to logits.
---@param config? tide.diffusion.Classifier.options
---@return tide.diffusion.Classifier
function tide.diffusion.Classifier(config) end

---@class tide.diffusion.load.options
---@field dtype? tide.dtype of the parameters; default "float32"

---The network of a folder in diffusers' layout (config.json and diffusion_pytorch_model.safetensors, at the top or under unet/), in evaluation mode, and {config, scheduler, schedule}: the contents of config.json and scheduler_config.json, and the noise schedule of the latter (nil without one).
---@param dir string
---@param opts? tide.diffusion.load.options
---@return tide.nn.Module
---@return table
function tide.diffusion.load(dir, opts) end

---@class tide.diffusion.save.options
---@field dtype? string of weights of float32, in the file: "float16" and "bfloat16" take half the space; default "float32"

---Writes a folder that diffusers loads: config.json, the weights, and scheduler_config.json of a noise schedule (or of a table).
---@param dir string
---@param model tide.nn.Module
---@param schedule? any
---@param opts? tide.diffusion.save.options
---@return boolean
function tide.diffusion.save(dir, model, schedule, opts) end

---A model that comes with tide, as diffusion.load gives it: "digits" (28×28, predicts v, classes 1 to 10 for the digits 0 to 9 and 11 for none), "digits-classifier", or "cifar10" (32×32×3, the same, classes in CIFAR-10's order). Images are from −1 to 1.
---@param name string
---@return tide.nn.Module
---@return table
function tide.diffusion.pretrained(name) end

---@class tide.diffusion.Trainer.options
---@field schedule? string|tide.NoiseSchedule see diffusion.Schedule; default "linear"
---@field prediction? string "epsilon", "x0", "v" or "flow"; the schedule's by default
---@field weighting? string see diffusion.loss_weight; default "uniform"
---@field gamma? number of min_snr; default 5
---@field times? string or "logit_normal", towards the middle; default "uniform"
---@field optimiser? tide.Optimiser AdamW by default, with the next two
---@field lr? number the learning rate; default 1e-3
---@field weight_decay? number of AdamW; default 0
---@field warmup? integer steps in which the rate rises from 0; default 0
---@field rate? fun(k: integer, lr: number): number of the rate over steps, such as optim.cosine {steps = n}
---@field clip? number|boolean largest norm of the gradient, or false; default 1
---@field ema? number decay of the averages of the weights; default 0.999
---@field null? any the condition that stands for none: a class, or a vector
---@field drop? number share of the images that get it; default 0.1
---@field seed? integer of noise, times and dropped conditions; default 0
---@field capture? boolean steps run as a captured program, see train_step; default true

---Trains a network to predict ε, x0, v or the flow at random times of a noise schedule.
---@param model tide.nn.Module
---@param opts? tide.diffusion.Trainer.options
---@return tide.Trainer
function tide.diffusion.Trainer(model, opts) end

---One step on a batch; its loss.
---@param x0 tide.Tensor
---@param condition? any
---@return number
function Trainer:step(x0, condition) end

---The loss of a batch with its graph, for steps of your own.
---@param x0 tide.Tensor
---@param condition? any
---@return tide.Tensor
function Trainer:loss_of(x0, condition) end

---@class tide.Trainer.run.options
---@field loader? tide.Loader of images and conditions
---@field steps? integer in all, also those of earlier runs
---@field every? integer steps between calls of progress; default 100
---@field progress? function progress(trainer, mean_loss); false stops

---Trains up to a number of steps in all.
---@param opts tide.Trainer.run.options
---@return tide.Trainer
function Trainer:run(opts) end

---f(…) while the model has the averages of its weights, in evaluation mode, without recording.
---@param f function
---@param ... any
---@return any ...
function Trainer:with_average(f, ...) end

---A checkpoint: weights, averages, the optimiser's state, generators and steps. A run that goes on from it gives the same bits as one that was never stopped.
---@param path string
---@return boolean
function Trainer:save(path) end

---Goes on from a checkpoint of a trainer with the same model and options.
---@param path string
---@return tide.Trainer
function Trainer:load(path) end

---The weight of a squared error of a prediction at a time: "uniform" 1; of the error in x0 "min_snr" min(SNR, γ), "snr" SNR, "truncated_snr" max(SNR, 1).
---@param schedule tide.NoiseSchedule
---@param t number
---@param kind string
---@param weighting string
---@param gamma? number default 5
---@return number
function tide.diffusion.loss_weight(schedule, t, kind, weighting, gamma) end

---The Fréchet distance of two sets of features (N×C, M×C), taken for normal distributions, and {samples, channels, singular}.
---@param a tide.Tensor
---@param b tide.Tensor
---@return number
---@return table
function tide.diffusion.frechet(a, b) end

---@class tide.diffusion.features.options
---@field batch? integer images at a time; default 200

---classifier:features of all images, without recording.
---@param classifier tide.nn.Module
---@param images tide.Tensor
---@param opts? tide.diffusion.features.options
---@return tide.Tensor
function tide.diffusion.features(classifier, images, opts) end

---@class tide.diffusion.recognised.options
---@field batch? integer images at a time; default 200

---The share of images that a classifier takes for their classes (int64), and {samples, low, high, by_class}: the 95 % interval, and each class's share.
---@param classifier tide.nn.Module
---@param images tide.Tensor
---@param classes tide.Tensor
---@param opts? tide.diffusion.recognised.options
---@return number
---@return table
function tide.diffusion.recognised(classifier, images, classes, opts) end

---@class tide.diffusion.invert.options
---@field schedule? string|tide.NoiseSchedule see diffusion.Schedule; default "linear"
---@field prediction? string of the model; the schedule's by default
---@field steps? integer more are more exact; default 50
---@field condition? any given to the model

---The noise from which DDIM leads to x0: DDIM's steps backwards, right to the first order.
---@param model tide.nn.Module
---@param x0 tide.Tensor
---@param opts? tide.diffusion.invert.options
---@return tide.Tensor
function tide.diffusion.invert(model, x0, opts) end

---@class tide.diffusion.inversion_error.options
---@field schedule? string|tide.NoiseSchedule see diffusion.Schedule; default "linear"
---@field prediction? string of the model; the schedule's by default
---@field steps? integer both ways; default 50
---@field condition? any given to the model

---The relative root mean square difference of x0 and what DDIM makes of its noise, and {samples, steps, x_T, x0}.
---@param model tide.nn.Module
---@param x0 tide.Tensor
---@param opts? tide.diffusion.inversion_error.options
---@return number
---@return table
function tide.diffusion.inversion_error(model, x0, opts) end

---8,000 and 2,000 handwritten digits (28×28×1) that come with tide.
---@return tide.Dataset
---@return tide.Dataset
function tide.data.digits() end

---MNIST in its four files, gzip or plain, 28×28×1.
---@param dir string
---@return tide.Dataset
---@return tide.Dataset
function tide.data.mnist(dir) end

---Fashion-MNIST; without a folder, where Debian's package dataset-fashion-mnist has it.
---@param dir? string
---@return tide.Dataset
---@return tide.Dataset
function tide.data.fashion_mnist(dir) end

---CIFAR-10's binary version, 32×32×3.
---@param dir string
---@return tide.Dataset
---@return tide.Dataset
function tide.data.cifar10(dir) end

---CIFAR-100's binary version; also coarse_labels, raw_coarse_labels and coarse_classes of the 20 groups.
---@param dir string
---@return tide.Dataset
---@return tide.Dataset
function tide.data.cifar100(dir) end

---PNG images of one size in sub-folders named after their classes; `files` has each path.
---@param dir string
---@return tide.Dataset
function tide.data.image_folder(dir) end

---@class tide.data.Loader.options
---@field images? tide.Tensor N×H×W×C, uint8 or float32
---@field labels? tide.Tensor N; batches have none when absent
---@field batch? integer images in a batch; default 64
---@field shuffle? boolean a new order in every epoch; default true
---@field seed? integer of the order and of the augmentation; default 0
---@field normalize? table {mean =, std =}: numbers or one a channel, on the scale of 0 to 1
---@field crop? integer zero pixels put around, of which a random window is cut; default 0
---@field flip? number probability of mirroring left and right; default 0
---@field drop_last? boolean leave out a smaller last batch; default false

---Batches of images (float32, N×H×W×C, uint8 scaled to 0 … 1, then normalised) and labels (int64).
---@param opts tide.data.Loader.options
---@return tide.Loader
function tide.data.Loader(opts) end

---An iterator over the batches of an epoch; without a number, of the next one.
---@param number? integer
---@return function
function Loader:epoch(number) end

---@class tide.io.save_safetensors.options
---@field dtype? string of tensors of float32, in the file; default "float32"

---Writes tensors by name, and strings by key; equal tables give equal files. dtype "float16" or "bfloat16" stores tensors of float32 in half the space, each number rounded to nearest; numbers that float16 cannot hold (beyond 65,504) are refused. They are float32 again when loaded.
---@param path string
---@param tensors table
---@param metadata? table
---@param opts? tide.io.save_safetensors.options
---@return boolean
function tide.io.save_safetensors(path, tensors, metadata, opts) end

---The tensors by name (mapped from the file), the strings, and the names in the file's order.
---@param path string
---@return table
---@return table
---@return string[]
function tide.io.load_safetensors(path) end

---Writes one array as numpy does.
---@param path string
---@param t tide.Tensor
---@return boolean
function tide.io.save_npy(path, t) end

---Reads one array written by numpy.
---@param path string
---@return tide.Tensor
function tide.io.load_npy(path) end

---Writes an image H×W×C with 1 to 4 channels: uint8, or real from 0 to 1.
---@param path string
---@param image tide.Tensor
---@return boolean
function tide.io.write_png(path, image) end

---An image as H×W×C uint8.
---@param path string
---@return tide.Tensor
function tide.io.read_png(path) end

---An array in MNIST's format, gzip or plain.
---@param path string
---@return tide.Tensor
function tide.io.read_idx(path) end

---Images and labels (from 0) of one file of CIFAR-10's binary version.
---@param path string
---@return tide.Tensor
---@return tide.Tensor
function tide.io.read_cifar10(path) end

---Images, fine labels and coarse labels (from 0) of one file of CIFAR-100's binary version.
---@param path string
---@return tide.Tensor
---@return tide.Tensor
---@return tide.Tensor
function tide.io.read_cifar100(path) end

---The names of the files and of the folders inside, sorted.
---@param path string
---@return string[]
---@return string[]
function tide.io.list_folder(path) end

---Makes a folder and those above it that are missing; one that is there is no failure.
---@param path string
---@return boolean
function tide.io.make_folder(path) end

---@class tide.plot.figure.options
---@field width? integer pixels; default 900
---@field height? integer pixels; default 600
---@field rows? integer of axes; default 1
---@field cols? integer of axes; default 1
---@field title? string above all
---@field pixel_ratio? number 2 draws everything at twice the size; default 1

---A new figure with a grid of axes.
---@param opts? tide.plot.figure.options
---@return tide.Figure
function tide.plot.figure(opts) end

---The i-th axes, from the left, row after row; options as Axes:set.
---@param i? integer default 1
---@param opts? table
---@return tide.Axes
function Figure:axes(i, opts) end

---Draws everything onto a new canvas.
---@return tide.Canvas
function Figure:render() end

---Draws and writes a PNG; the path, or nil and a message.
---@param path string
---@return string?
---@return string?
function Figure:save(path) end

---@class tide.plot.image_grid.options
---@field cols? integer about a square by default
---@field scale? number pixels for each pixel of an image; about 96 a side by default
---@field labels? table a caption under each
---@field label_colors? string|number|number[]|(string|number|number[])[] of the captions
---@field size? number of the text; default 12
---@field title? string above
---@field row_labels? string[] at the left
---@field col_labels? string[] above
---@field gap? number pixels between
---@field range? number[] {black, white}; guessed
---@field colormap? string for one channel; default "gray"
---@field smooth? boolean interpolate; default false
---@field path? string writes a PNG there

---Many small images (a list, N×H×W or N×H×W×C) in one picture.
---@param images tide.Tensor|table
---@param opts? tide.plot.image_grid.options
---@return tide.Canvas
function tide.plot.image_grid(images, opts) end

---Writes a PNG; the path, or nil and a message.
---@param path string
---@return string?
---@return string?
function Canvas:save(path) end

---All pixels, width × height × 3 bytes.
---@return string
function Canvas:rgb() end

---The colour of a pixel (from 0), 0 … 255.
---@param x integer
---@param y integer
---@return integer
---@return integer
---@return integer
function Canvas:pixel(x, y) end

---The k-th colour of the default cycle, {r, g, b} in 0 … 1.
---@param k integer
---@return number[]
function tide.plot.color(k) end

---256 colours of "viridis", "magma", "plasma", "coolwarm" or "gray"; "_r" at the end reverses.
---@param name string
---@return number[][]
function tide.plot.colormap(name) end

---Lets f(path, width, height, bytes) write pictures; nil goes back to the core's PNG writer.
---@param f? function
function tide.plot.set_writer(f) end

---@class tide.Axes.set.options
---@field xlabel? string under the axis
---@field ylabel? string beside the axis
---@field title? string above
---@field xscale? string or "log"; default "linear"
---@field yscale? string or "log"; default "linear"
---@field xlim? number[] {lo, hi}, either may be nil
---@field ylim? number[] {lo, hi}, either may be nil
---@field xticks? number[] positions
---@field yticks? number[] positions
---@field xticklabels? string[] names of the positions
---@field yticklabels? string[] names of the positions
---@field grid? boolean|string or "x", "y": lines at the ticks of that axis; default true
---@field legend? string|boolean where it hides least; false; "top right" …; "outside"; default "auto"
---@field aspect? string "equal": one unit is as long in x as in y
---@field yreverse? boolean y grows downwards
---@field box? boolean a frame on all four sides

---Changes options.
---@param opts tide.Axes.set.options
---@return tide.Axes
function Axes:set(opts) end

---@class tide.Axes.twin.options
---@field ylabel? string beside it
---@field yscale? string or "log"
---@field ylim? number[] {lo, hi}
---@field yticks? number[] positions
---@field yticklabels? string[] names

---A second y axis at the right, sharing x.
---@param opts? tide.Axes.twin.options
---@return tide.Axes
function Axes:twin(opts) end

---@class tide.Axes.line.options
---@field label? string for the legend
---@field color? string|number|number[] the next of the cycle by default
---@field width? number pixels; 0 is none; default 2
---@field dash? boolean|string|number[] true, "dashed", "dotted", "dashdot" or lengths
---@field marker? string "o", "s", "^", …
---@field size? number of markers; default 7
---@field every? integer a marker each so many points; default 1
---@field alpha? number opacity; default 1

---A line through points; a matrix of #xs rows draws one line for each column.
---@param xs number[]|tide.Tensor
---@param ys number[]|tide.Tensor|number[][]|tide.Tensor
---@param opts? tide.Axes.line.options
---@return tide.Axes
function Axes:line(xs, ys, opts) end

---@class tide.Axes.scatter.options
---@field label? string for the legend
---@field color? string|number|number[] the next of the cycle by default
---@field colormap? string "viridis"
---@field colorbar? boolean|string true, or its title; default false
---@field size? number|number[]|tide.Tensor pixels; default 6
---@field marker? string its form; default "o"
---@field alpha? number opacity; default 0.85
---@field edge? string|number|number[] of a rim

---Separate points; a list of whole numbers as color makes classes, other numbers go through the colour map.
---@param xs number[]|tide.Tensor
---@param ys number[]|tide.Tensor
---@param opts? tide.Axes.scatter.options
---@return tide.Axes
function Axes:scatter(xs, ys, opts) end

---@class tide.Axes.errorbar.options
---@field label? string for the legend
---@field color? string|number|number[] the next of the cycle by default
---@field width? number of the bars; default 1.5
---@field cap? number of the end strokes; default 6
---@field marker? string its form; default "o"
---@field size? number pixels; default 6
---@field line? boolean join the points; default false

---Points with vertical error bars, {lower, upper} or one list.
---@param xs number[]|tide.Tensor
---@param ys number[]|tide.Tensor
---@param errs number|number[]|tide.Tensor|table
---@param opts? tide.Axes.errorbar.options
---@return tide.Axes
function Axes:errorbar(xs, ys, errs, opts) end

---@class tide.Axes.fill_between.options
---@field label? string for the legend
---@field color? string|number|number[] the next of the cycle by default
---@field alpha? number opacity; default 0.25

---The band between two curves.
---@param xs number[]|tide.Tensor
---@param lo number|number[]|tide.Tensor
---@param hi number|number[]|tide.Tensor
---@param opts? tide.Axes.fill_between.options
---@return tide.Axes
function Axes:fill_between(xs, lo, hi, opts) end

---@class tide.Axes.bar.options
---@field label? string for the legend
---@field color? string|number|number[] the next of the cycle by default
---@field width? number in data units; default 0.7
---@field offset? number sideways, for groups; default 0
---@field alpha? number opacity; default 1

---Bars over positions or names.
---@param xs number[]|tide.Tensor|string[]
---@param heights number[]|tide.Tensor
---@param opts? tide.Axes.bar.options
---@return tide.Axes
function Axes:bar(xs, heights, opts) end

---@class tide.Axes.hist.options
---@field label? string for the legend
---@field color? string|number|number[] the next of the cycle by default
---@field bins? string|integer|number[] how many, or their edges; default "auto"
---@field range? number[] {lo, hi}
---@field density? boolean area 1; default false
---@field alpha? number opacity; default 0.85

---A histogram.
---@param values number[]|tide.Tensor
---@param opts? tide.Axes.hist.options
---@return tide.Axes
function Axes:hist(values, opts) end

---@class tide.Axes.hline.options
---@field label? string for the legend
---@field color? string|number|number[] of the line; default "gray"
---@field width? number pixels; default 1.25
---@field dash? boolean|string as Axes:line; default "dashed"
---@field alpha? number opacity; default 1

---A horizontal line across the axes.
---@param y number
---@param opts? tide.Axes.hline.options
---@return tide.Axes
function Axes:hline(y, opts) end

---A vertical line across the axes; options as hline.
---@param x number
---@param opts? table
---@return tide.Axes
function Axes:vline(x, opts) end

---@class tide.Axes.text.options
---@field color? string|number|number[] ink
---@field size? number pixels; default 12
---@field bold? boolean heavy; default false
---@field align? string "center", "right"; default "left"
---@field valign? string "middle", "top"; default "baseline"
---@field angle? number degrees; default 0
---@field dx? number pixels to the right; default 0
---@field dy? number pixels upwards; default 0

---Text at a point of the data.
---@param x number
---@param y number
---@param s string
---@param opts? tide.Axes.text.options
---@return tide.Axes
function Axes:text(x, y, s, opts) end

---@class tide.Axes.image.options
---@field range? number[] {black, white}; guessed
---@field colormap? string for one channel; default "gray"
---@field smooth? boolean interpolate; default false
---@field extent? number[] {x0, x1, y0, y1}

---An image, H×W or H×W×C, its first row at the top; pixel (i, j) is about x = j, y = i.
---@param pixels number[][]|tide.Tensor
---@param opts? tide.Axes.image.options
---@return tide.Axes
function Axes:image(pixels, opts) end

---@class tide.Axes.heatmap.options
---@field colormap? string see plot.colormap; default "viridis"
---@field colorbar? boolean|string or its title; default true
---@field range? number[] that of the values
---@field smooth? boolean interpolate; default false
---@field extent? number[] {x0, x1, y0, y1}
---@field annotate? boolean|string write the numbers, in a format; default false

---A matrix as colours; with an extent, a function on that rectangle, row 1 at the bottom.
---@param matrix number[][]|tide.Tensor
---@param opts? tide.Axes.heatmap.options
---@return tide.Axes
function Axes:heatmap(matrix, opts) end

---@class tide.Axes.contour.options
---@field levels? integer|number[] about so many, or values; default 8
---@field extent? number[] {x0, x1, y0, y1}
---@field color? string|number|number[] by value by default
---@field colormap? string see plot.colormap; default "viridis"
---@field width? number pixels; default 1.25
---@field label? string for the legend

---Lines of equal value of a matrix, which lies as in heatmap.
---@param matrix number[][]|tide.Tensor
---@param opts? tide.Axes.contour.options
---@return tide.Axes
function Axes:contour(matrix, opts) end

---@class tide.Axes.arrows.options
---@field scale? number factor of their length; default 1
---@field label? string for the legend
---@field color? string|number|number[] the next of the cycle by default
---@field width? number pixels; default 1.5
---@field alpha? number opacity; default 1

---Arrows from (x, y) along (u, v), in data units.
---@param xs number[]|tide.Tensor
---@param ys number[]|tide.Tensor
---@param us number[]|tide.Tensor
---@param vs number[]|tide.Tensor
---@param opts? tide.Axes.arrows.options
---@return tide.Axes
function Axes:arrows(xs, ys, us, vs, opts) end

---@class tide.Axes.vector_field.options
---@field n? integer along the longer side; default 20
---@field normalize? boolean arrows of one length; default false
---@field colormap? string by speed
---@field color? string|number|number[] without a colour map; default "#9aa3ad"
---@field width? number pixels; default 1.3
---@field alpha? number opacity; default 1

---f(x, y) → u, v as arrows on a grid over the axes; their length shows the root of the speed.
---@param f function
---@param opts? tide.Axes.vector_field.options
---@return tide.Axes
function Axes:vector_field(f, opts) end

---Bytes of tensor memory: live, cached, peak; calls of the allocator and blocks asked from the system.
---@param what? string "reset" starts the peak anew, "trim" gives the cache back to the system
---@return table
function tide.memory(what) end

---The number of threads; with a number (1 to 64), sets it. It begins as OMP_NUM_THREADS, or the processors at hand.
---@param n? integer
---@return integer
function tide.threads(n) end

---"fast", "strict" or "bfloat16", the mode as it is now; with a mode, sets it. "fast", the default, lets 3×3 convolutions of stride 1 and their gradients use Winograd's filtering where that is quicker, which rounds a little more: about 2e-6 of the largest element instead of 1e-6 in float32. "strict" always sums the products that define a convolution. "bfloat16" rounds the float32 operands of convolutions, of their gradients and of products of more than 32³ multiplications to bfloat16 (eight bits, ties to even, a relative error of 2^-9 each) and sums in float32, by the processor's instruction for that (AVX512-BF16) where there is one: results then differ from those elsewhere by the rounding of float32 sums, and subnormal operands count as 0. Depthwise and thin products, attention and float64 stay as they are.
---@param mode? string
---@return string
function tide.precision(mode) end

---The instruction set the kernels run on: "baseline", "avx2", "avx512" or "neon".
---@return string
function tide.isa() end

---@class tide.set_print.options
---@field edge? integer items kept at each end of an elided dim; default 3
---@field threshold? integer elements from which a tensor is elided; default 1000
---@field digits? integer after the point; default 4
---@field width? integer of a line; default 100

---How tensors print.
---@param opts tide.set_print.options
function tide.set_print(opts) end

---Prints the entry of a function, a class, an object or a name such as "matmul", "ode.solve" or "Linear"; without one, an overview.
---@param what? any
function tide.help(what) end

---The prompt of bin/tide: evaluates what is typed, keeps locals from line to line, remembers history.
function tide.repl.run() end

---@class tide.diffusion.Classifier: tide.nn.Module
local Classifier = {}

---@class tide.implicit.HomoODE: tide.nn.Module
---@field endpoint tide.Tensor? z(horizon) of the last call, detached
---@field stats table? of the last solve, see Solution.stats
---@field stem tide.nn.Module implicit.Stem
---@field field tide.nn.Module implicit.Field
---@field head tide.nn.Module implicit.Head
---@field point tide.nn.Module implicit.SharedPoint
local HomoODE = {}

---@class tide.implicit.SharedPoint: tide.nn.Module
local SharedPoint = {}

---@class tide.nn.BatchNorm2d: tide.nn.Module
---@field weight tide.Tensor? channels
---@field bias tide.Tensor? channels
---@field running_mean tide.Tensor channels, a buffer
---@field running_var tide.Tensor channels, unbiased, a buffer
local BatchNorm2d = {}

---@class tide.nn.Conv2d: tide.nn.Module
---@field weight tide.Tensor kh×kw×(inputs/groups)×outputs, uniform in ±1/√(kh·kw·inputs/groups)
---@field bias tide.Tensor? outputs, likewise
local Conv2d = {}

---@class tide.nn.ConvTranspose2d: tide.nn.Module
---@field weight tide.Tensor kh×kw×(outputs/groups)×inputs
---@field bias tide.Tensor? outputs
local ConvTranspose2d = {}

---@class tide.nn.Embedding: tide.nn.Module
---@field weight tide.Tensor count×size, standard normal at first
local Embedding = {}

---@class tide.nn.GroupNorm: tide.nn.Module
---@field weight tide.Tensor? channels
---@field bias tide.Tensor? channels
local GroupNorm = {}

---@class tide.nn.LayerNorm: tide.nn.Module
---@field weight tide.Tensor? channels
---@field bias tide.Tensor? channels
local LayerNorm = {}

---@class tide.nn.Linear: tide.nn.Module
---@field weight tide.Tensor inputs×outputs, uniform in ±1/√inputs
---@field bias tide.Tensor? outputs, likewise
local Linear = {}

---@class tide.nn.MultiheadAttention: tide.nn.Module
---@field query_weight tide.Tensor channels×channels
---@field key_value_weight tide.Tensor context×(2·channels), keys first
---@field out_weight tide.Tensor channels×channels
local MultiheadAttention = {}

---@class tide.nn.Sequential: tide.nn.Module
local Sequential = {}

---@class tide.nn.VariationalDropout: tide.nn.Module
local VariationalDropout = {}

---Forgets the mask; with a tensor or sizes, draws the next one for it now.
---@param x? tide.Tensor|integer[]
---@return tide.nn.Module
function VariationalDropout:resample(x) end

---Adds one at the end.
---@param f tide.nn.Module|function
---@return tide.nn.Module
function Sequential:append(f) end

---The solve from the shared point under the condition x (features), at times t.
---@param x tide.Tensor
---@param t? number[]|tide.Tensor {0, horizon} by default
---@return tide.Solution
function HomoODE:solve(x, t) end

---How far z is from rest under the condition x: ‖z'‖/‖z‖, and for the kind "residual" also ‖z'‖/‖F(z; x)‖.
---@param z tide.Tensor
---@param x tide.Tensor
---@return number
---@return number?
function HomoODE:unrest(z, x) end

---The parameters that the classification loss trains: all but the shared point's, which belong to it in the mode "joint" only.
---@return tide.Tensor[]
function HomoODE:trained_parameters() end

---Learns from the endpoints z(1) of a batch; once a training iteration. Gives the regression loss when a step was taken.
---@param endpoint tide.Tensor
---@return number?
function SharedPoint:update(endpoint) end

---The start of a solve, of the features' shape.
---@param features tide.Tensor
---@return tide.Tensor
function SharedPoint:start(features) end

---−1, +1, −1, …
---@return tide.Tensor
function SharedPoint:pattern() end

---The last stage averaged over positions: N×channels, what diffusion.frechet is measured on.
---@param x tide.Tensor
---@return tide.Tensor
function Classifier:features(x) end

---The result of every stage, N×h×w×channels: what Gram matrices are made of.
---@param x tide.Tensor
---@return tide.Tensor[]
function Classifier:maps(x) end

Tensor.zeros_like = tide.zeros_like
Tensor.ones_like = tide.ones_like
Tensor.empty_like = tide.empty_like
Tensor.full_like = tide.full_like
Tensor.equal = tide.equal
Tensor.allclose = tide.allclose
Tensor.any = tide.any
Tensor.all = tide.all
Tensor.float = tide.float
Tensor.double = tide.double
Tensor.long = tide.long
Tensor.byte = tide.byte
Tensor.add = tide.add
Tensor.add_ = tide.add
Tensor.sub = tide.sub
Tensor.sub_ = tide.sub
Tensor.mul = tide.mul
Tensor.mul_ = tide.mul
Tensor.div = tide.div
Tensor.div_ = tide.div
Tensor.pow = tide.pow
Tensor.pow_ = tide.pow
Tensor.neg = tide.neg
Tensor.neg_ = tide.neg
Tensor.mod = tide.mod
Tensor.mod_ = tide.mod
Tensor.floor_div = tide.floor_div
Tensor.floor_div_ = tide.floor_div
Tensor.fma = tide.fma
Tensor.fma_ = tide.fma
Tensor.square = tide.square
Tensor.square_ = tide.square
Tensor.reciprocal = tide.reciprocal
Tensor.reciprocal_ = tide.reciprocal
Tensor.abs = tide.abs
Tensor.abs_ = tide.abs
Tensor.sign = tide.sign
Tensor.sign_ = tide.sign
Tensor.maximum = tide.maximum
Tensor.maximum_ = tide.maximum
Tensor.minimum = tide.minimum
Tensor.minimum_ = tide.minimum
Tensor.clamp = tide.clamp
Tensor.clamp_ = tide.clamp
Tensor.where = tide.where
Tensor.where_ = tide.where
Tensor.masked_fill = tide.masked_fill
Tensor.masked_select = tide.masked_select
Tensor.eq = tide.eq
Tensor.eq_ = tide.eq
Tensor.ne = tide.ne
Tensor.ne_ = tide.ne
Tensor.lt = tide.lt
Tensor.lt_ = tide.lt
Tensor.le = tide.le
Tensor.le_ = tide.le
Tensor.gt = tide.gt
Tensor.gt_ = tide.gt
Tensor.ge = tide.ge
Tensor.ge_ = tide.ge
Tensor.logical_and = tide.logical_and
Tensor.logical_and_ = tide.logical_and
Tensor.logical_or = tide.logical_or
Tensor.logical_or_ = tide.logical_or
Tensor.logical_xor = tide.logical_xor
Tensor.logical_xor_ = tide.logical_xor
Tensor.logical_not = tide.logical_not
Tensor.logical_not_ = tide.logical_not
Tensor.isnan = tide.isnan
Tensor.isnan_ = tide.isnan
Tensor.isinf = tide.isinf
Tensor.isinf_ = tide.isinf
Tensor.isfinite = tide.isfinite
Tensor.isfinite_ = tide.isfinite
Tensor.exp = tide.exp
Tensor.exp_ = tide.exp
Tensor.expm1 = tide.expm1
Tensor.expm1_ = tide.expm1
Tensor.log = tide.log
Tensor.log_ = tide.log
Tensor.log1p = tide.log1p
Tensor.log1p_ = tide.log1p
Tensor.log2 = tide.log2
Tensor.log2_ = tide.log2
Tensor.log10 = tide.log10
Tensor.log10_ = tide.log10
Tensor.sqrt = tide.sqrt
Tensor.sqrt_ = tide.sqrt
Tensor.rsqrt = tide.rsqrt
Tensor.rsqrt_ = tide.rsqrt
Tensor.sin = tide.sin
Tensor.sin_ = tide.sin
Tensor.cos = tide.cos
Tensor.cos_ = tide.cos
Tensor.tan = tide.tan
Tensor.tan_ = tide.tan
Tensor.asin = tide.asin
Tensor.asin_ = tide.asin
Tensor.acos = tide.acos
Tensor.acos_ = tide.acos
Tensor.atan = tide.atan
Tensor.atan_ = tide.atan
Tensor.atan2 = tide.atan2
Tensor.atan2_ = tide.atan2
Tensor.sinh = tide.sinh
Tensor.sinh_ = tide.sinh
Tensor.cosh = tide.cosh
Tensor.cosh_ = tide.cosh
Tensor.tanh = tide.tanh
Tensor.tanh_ = tide.tanh
Tensor.erf = tide.erf
Tensor.erf_ = tide.erf
Tensor.erfc = tide.erfc
Tensor.erfc_ = tide.erfc
Tensor.sigmoid = tide.sigmoid
Tensor.sigmoid_ = tide.sigmoid
Tensor.log_sigmoid = tide.log_sigmoid
Tensor.log_sigmoid_ = tide.log_sigmoid
Tensor.softplus = tide.softplus
Tensor.softplus_ = tide.softplus
Tensor.relu = tide.relu
Tensor.relu_ = tide.relu
Tensor.silu = tide.silu
Tensor.silu_ = tide.silu
Tensor.gelu = tide.gelu
Tensor.gelu_ = tide.gelu
Tensor.gelu_tanh = tide.gelu_tanh
Tensor.gelu_tanh_ = tide.gelu_tanh
Tensor.floor = tide.floor
Tensor.floor_ = tide.floor
Tensor.ceil = tide.ceil
Tensor.ceil_ = tide.ceil
Tensor.round = tide.round
Tensor.round_ = tide.round
Tensor.trunc = tide.trunc
Tensor.trunc_ = tide.trunc
Tensor.sum = tide.sum
Tensor.prod = tide.prod
Tensor.mean = tide.mean
Tensor.var = tide.var
Tensor.std = tide.std
Tensor.max = tide.max
Tensor.min = tide.min
Tensor.argmax = tide.argmax
Tensor.argmin = tide.argmin
Tensor.argsort = tide.argsort
Tensor.one_hot = tide.one_hot
Tensor.norm = tide.norm
Tensor.logsumexp = tide.logsumexp
Tensor.cumsum = tide.cumsum
Tensor.softmax = tide.softmax
Tensor.log_softmax = tide.log_softmax
Tensor.sort = tide.sort
Tensor.topk = tide.topk
Tensor.matmul = tide.matmul
Tensor.mm = tide.mm
Tensor.dot = tide.dot
Tensor.outer = tide.outer
Tensor.reshape = tide.reshape
Tensor.permute = tide.permute
Tensor.expand = tide.expand
Tensor.unsqueeze = tide.unsqueeze
Tensor.squeeze = tide.squeeze
Tensor.transpose = tide.transpose
Tensor.t = tide.t
Tensor.flatten = tide.flatten
Tensor.contiguous = tide.contiguous
Tensor.clone = tide.clone
Tensor.to = tide.to
Tensor.narrow = tide.narrow
Tensor.select = tide.select
Tensor.split = tide.split
Tensor.chunk = tide.chunk
Tensor.flip = tide.flip
Tensor.tile = tide.tile
Tensor.pad = tide.pad
Tensor.tril = tide.tril
Tensor.triu = tide.triu
Tensor.diag = tide.diag
Tensor.index_select = tide.index_select
Tensor.gather = tide.gather
Tensor.index_add = tide.index_add
Tensor.scatter_add = tide.scatter_add
Tensor.narrow_grad = tide.narrow_grad
Tensor.conv2d = tide.conv2d
Tensor.conv2d_fused = tide.conv2d_fused
Tensor.conv2d_input_grad = tide.conv2d_input_grad
Tensor.conv2d_weight_grad = tide.conv2d_weight_grad
Tensor.max_pool2d = tide.max_pool2d
Tensor.avg_pool2d = tide.avg_pool2d
Tensor.adaptive_avg_pool2d = tide.adaptive_avg_pool2d
Tensor.upsample_nearest = tide.upsample_nearest
Tensor.upsample_bilinear = tide.upsample_bilinear
Tensor.group_norm = tide.group_norm
Tensor.group_norm_act = tide.group_norm_act
Tensor.attention = tide.attention
Tensor.channel_norm = tide.channel_norm
Tensor.solve = tide.solve
Tensor.inv = tide.inv
Tensor.det = tide.det
Tensor.slogdet = tide.slogdet
Tensor.solve_triangular = tide.solve_triangular
Tensor.cholesky = tide.cholesky
Tensor.lu_factor = tide.lu_factor
Tensor.lu_solve = tide.lu_solve
Tensor.qr = tide.qr
Tensor.svd = tide.svd
Tensor.svdvals = tide.svdvals
Tensor.eigh = tide.eigh
Tensor.eigvalsh = tide.eigvalsh
Tensor.lstsq = tide.lstsq
Tensor.pinv = tide.pinv
Tensor.matrix_exp = tide.matrix_exp
Tensor.trace = tide.linalg.trace
Tensor.kron = tide.linalg.kron
Tensor.matrix_power = tide.linalg.matrix_power
Tensor.matrix_rank = tide.linalg.matrix_rank
Tensor.adaptive_avg_pool2d_grad = tide.adaptive_avg_pool2d_grad
Tensor.attention_grad = tide.attention_grad
Tensor.avg_pool2d_grad = tide.avg_pool2d_grad
Tensor.channel_norm_act = tide.channel_norm_act
Tensor.channel_norm_act_grad = tide.channel_norm_act_grad
Tensor.channel_norm_grad = tide.channel_norm_grad
Tensor.gelu_grad = tide.gelu_grad
Tensor.gelu_grad_ = tide.gelu_grad
Tensor.gelu_tanh_grad = tide.gelu_tanh_grad
Tensor.gelu_tanh_grad_ = tide.gelu_tanh_grad
Tensor.group_norm_act_grad = tide.group_norm_act_grad
Tensor.group_norm_grad = tide.group_norm_grad
Tensor.log_softmax_grad = tide.log_softmax_grad
Tensor.max_pool2d_gather = tide.max_pool2d_gather
Tensor.max_pool2d_grad = tide.max_pool2d_grad
Tensor.relu_grad = tide.relu_grad
Tensor.relu_grad_ = tide.relu_grad
Tensor.silu_grad = tide.silu_grad
Tensor.silu_grad_ = tide.silu_grad
Tensor.softmax_grad = tide.softmax_grad
Tensor.upsample_bilinear_grad = tide.upsample_bilinear_grad
Tensor.upsample_nearest_grad = tide.upsample_nearest_grad
Module.parameters = tide.nn.parameters
Module.buffers = tide.nn.buffers
Module.named_parameters = tide.nn.named_parameters
Module.named_buffers = tide.nn.named_buffers
Module.named_modules = tide.nn.named_modules
Module.count = tide.nn.count
Module.apply = tide.nn.apply
Module.train = tide.nn.train
Module.eval = tide.nn.eval
Module.zero_grad = tide.nn.zero_grad
Module.freeze = tide.nn.freeze
Module.unfreeze = tide.nn.unfreeze
Module.to = tide.nn.to
Module.float = tide.nn.float
Module.double = tide.nn.double
Module.clone = tide.nn.clone
Module.state_dict = tide.nn.state_dict
Module.load_state_dict = tide.nn.load_state_dict
Module.resample = tide.nn.resample

return tide
