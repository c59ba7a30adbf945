-- Making tensors: constants, ranges, tables, random numbers.

return {
  title = "Making tensors",
  text = "Sizes are numbers or one table of them; the element type comes last, as a name or as {dtype = "
    .. "name}: \"float32\" (the default), \"float64\", \"int64\" or \"uint8\".",

  {
    title = "Constants and ranges",
    {"tensor", "values: table|number|boolean|tensor, dtype: dtype? -> tensor",
      "A tensor from nested tables of one shape, from a number (0-d), or a converted copy of a tensor.",
      errors = "Ragged tables, and elements that are no numbers.",
      example = [[
tide.tensor {{1, 2}, {3, 4}}
tide.tensor({1, 2, 3}, "int64") --> [1, 2, 3]  (3 int64)]]},
    {"zeros", "...: sizes, dtype: dtype? -> tensor", "All zeros.",
      example = "tide.zeros(2, 3).shape[2] --> 3"},
    {"ones", "...: sizes, dtype: dtype? -> tensor", "All ones.",
      example = "tide.ones({2}, \"float64\") --> [1., 1.]  (2 float64)"},
    {"full", "sizes: sizes, value: number, dtype: dtype? -> tensor", "All of one value.",
      args = {sizes = "a table"}, example = "tide.full({2}, 0.5) --> [0.5000, 0.5000]  (2 float32)"},
    {"empty", "...: sizes, dtype: dtype? -> tensor", "Memory as it is found, to be written.",
      example = "tide.empty(2, 2):fill_(7):sum():item() --> 28"},
    {"eye", "n: integer, m: integer?, dtype: dtype? -> tensor", "The n×m identity matrix; m is n by default.",
      example = "tide.eye(3):sum():item() --> 3"},
    {"arange", "first: number, last: number, step: number = 1, dtype: dtype? -> tensor",
      "first, first + step, … up to and including last, as Lua's for counts; arange(n) is 1 … n.",
      example = "tide.arange(0, 1, 0.25) --> [0.0000, 0.2500, 0.5000, 0.7500, 1.0000]  (5 float32)"},
    {"linspace", "first: number, last: number, count: integer, dtype: dtype? -> tensor",
      "count numbers at equal distances, both ends included.",
      example = "tide.linspace(0, 1, 3) --> [0.0000, 0.5000, 1.0000]  (3 float32)"},
    {"zeros_like", "x: tensor, dtype: dtype? -> tensor", "Zeros of x's shape and type."},
    {"ones_like", "x: tensor, dtype: dtype? -> tensor", "Ones of x's shape and type."},
    {"empty_like", "x: tensor, dtype: dtype? -> tensor", "Unwritten memory of x's shape and type."},
    {"full_like", "x: tensor, value: number, dtype: dtype? -> tensor", "One value in x's shape and type.",
      example = "tide.full_like(tide.zeros(2), 3) --> [3., 3.]  (2 float32)"},
    {"frombytes", "bytes: string, sizes: sizes, dtype: dtype = uint8 -> tensor",
      "A tensor from raw memory: row-major, in this machine's byte order.",
      errors = "The length does not fit the sizes.",
      example = "tide.frombytes(\"abc\", {3}) --> [97, 98, 99]  (3 uint8)"},
    {"meshgrid", "...: tensor -> ...tensor",
      "Grids of coordinates from 1-d tensors; result i varies along dim i.",
      example = [[
local y, x = tide.meshgrid(tide.arange(2), tide.arange(3))
x[2] --> [1., 2., 3.]  (3 float32)]]},
  },

  {
    title = "Random numbers",
    text = "Numbers come from a counter and a seed (Philox): the same on every machine and for any number "
      .. "of threads. The default generator begins with seed 0, so scripts repeat. Salmon et al. 2011.",
    {"rand", "...: sizes, dtype: dtype? -> tensor", "Uniform in [0, 1).",
      example = "assert(tide.rand(100):max():item() < 1)"},
    {"randn", "...: sizes, dtype: dtype? -> tensor", "Standard normal.",
      example = "assert(math.abs(tide.randn(1000):mean():item()) < 0.2)"},
    {"randint", "low: integer, high: integer, ...: sizes -> tensor",
      "Whole numbers from low to high, both included, int64.",
      example = "assert(tide.randint(1, 6, 100):min():item() >= 1)"},
    {"randperm", "n: integer -> tensor", "1 … n in random order, int64.",
      example = "tide.randperm(5):sum():item() --> 15"},
    {"bernoulli", "p: number, ...: sizes, dtype: dtype? -> tensor", "1 with probability p, else 0.",
      example = "tide.bernoulli(1, 3) --> [1., 1., 1.]  (3 float32)"},
    {"manual_seed", "seed: integer", "Starts the default generator anew.",
      example = [[
tide.manual_seed(7)
local a = tide.rand(3)
tide.manual_seed(7)
tide.equal(a, tide.rand(3)) --> true]]},
    {"default_generator", "-> generator", "The generator behind tide.rand and the others."},
    {"generator", "seed: integer? -> generator",
      "A generator of its own; without a seed it takes the clock's. It has the methods rand, randn, "
        .. "randint, randperm and bernoulli, with the arguments of the functions above.",
      example = [[
local g = tide.generator(1)
tide.equal(g:randn(4), tide.generator(1):randn(4)) --> true]]},
    {"Generator:seed", "seed: integer -> generator", "Starts the generator anew; returns it."},
    {"Generator:state", "seed: integer?, counter: integer? -> integer, integer",
      "The seed and the counter; with two numbers, sets them.",
      example = [[
local g = tide.generator(1)
local seed, counter = g:state()
local a = g:rand(2)
g:state(seed, counter)
tide.equal(a, g:rand(2)) --> true]]},
    {"Generator:rand", "...: sizes, dtype: dtype? -> tensor", "Uniform in [0, 1), as tide.rand."},
    {"Generator:randn", "...: sizes, dtype: dtype? -> tensor", "Standard normal, as tide.randn."},
    {"Generator:randint", "low: integer, high: integer, ...: sizes -> tensor",
      "Whole numbers, as tide.randint."},
    {"Generator:randperm", "n: integer -> tensor", "A permutation, as tide.randperm."},
    {"Generator:bernoulli", "p: number, ...: sizes, dtype: dtype? -> tensor", "0 or 1, as tide.bernoulli."},
  },
}
