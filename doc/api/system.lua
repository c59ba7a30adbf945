-- The library itself: memory, threads, printing, help.

return {
  title = "The library",

  {
    title = "Memory, threads, printing, help",
    {"memory", "what: string? -> table",
      "Bytes of tensor memory: live, cached, peak; calls of the allocator and blocks asked from the system.",
      args = {what = "\"reset\" starts the peak anew, \"trim\" gives the cache back to the system"},
      note = "Lua's collector runs by itself when live bytes pass a limit.",
      example = [[
local before = tide.memory().live
local x = tide.zeros(1000)
assert(tide.memory().live >= before + 4000)]]},
    {"threads", "n: integer? -> integer",
      "The number of threads; with a number (1 to 64), sets it. It begins as OMP_NUM_THREADS, or the "
        .. "processors at hand.",
      note = "Results do not depend on it.", example = "assert(tide.threads() >= 1)"},
    {"precision", "mode: string? -> string",
      "\"fast\", \"strict\" or \"bfloat16\", the mode as it is now; with a mode, sets it. \"fast\", the "
        .. "default, lets 3×3 convolutions of stride 1 and their gradients use Winograd's filtering where that is "
        .. "quicker, which "
        .. "rounds a little more: about 2e-6 of the largest element instead of 1e-6 in float32. \"strict\" always "
        .. "sums the products that define a convolution. \"bfloat16\" rounds the float32 operands of convolutions, of "
        .. "their gradients and of products of more than 32³ multiplications to bfloat16 (eight bits, ties to even, a "
        .. "relative error of 2^-9 each) and sums in float32, by the processor's instruction for that (AVX512-BF16) "
        .. "where there is one: results then differ from those elsewhere by the rounding of float32 sums, and "
        .. "subnormal operands count as 0. Depthwise and thin products, attention and float64 stay as they are.",
      note = "A sample's result does not depend on the others of its batch in either mode.",
      example = "tide.precision() --> fast"},
    {"isa", "-> string",
      "The instruction set the kernels run on: \"baseline\", \"avx2\", \"avx512\" or \"neon\"."},
    {"set_print", "opts: options", "How tensors print.",
      options = [[
edge: integer = 3 | items kept at each end of an elided dim
threshold: integer = 1000 | elements from which a tensor is elided
digits: integer = 4 | after the point
width: integer = 100 | of a line]], example = "tide.set_print {digits = 4}"},
    {"help", "what: any?",
      "Prints the entry of a function, a class, an object or a name such as \"matmul\", \"ode.solve\" or "
        .. "\"Linear\"; without one, an overview."},
    {"repl.run", "",
      "The prompt of bin/tide: evaluates what is typed, keeps locals from line to line, remembers history."},
  },
}
