-- Captured programs.

return {
  title = "Captured programs",
  text = "A function of tensors is run once on tensors without values; what it does becomes a program, planned "
    .. "as a whole, which then runs without Lua, without recording and without allocating. Solvers capture the "
    .. "fields that they are given by themselves.",

  {
    title = "Capturing",
    {"capture", "f: function, opts: options? -> captured",
      "f as an object that is called like f and runs captured programs, one for each combination of types and "
        .. "shapes of the tensors, of the other arguments' values, and of whether gradients are recorded.",
      options = [[
fallback: string = "error" | what to do when f cannot be captured: raise, or "eager": run f as it is
name: string = "a function" | for print
keep: number = math.huge | bytes that a call may keep for its reverse pass; beyond, it is computed again]],
      errors = "f reads a value (item, comparison with a number, printing, a mask as an index), at its line; it "
        .. "changes what it closes over (a counter, a list); it returns no tensor.",
      note = "Tensors that f closes over are read where they lie at every run; a number, string, boolean or function "
        .. "that is assigned anew is noticed, a global too, what changes inside a table is not (train() and eval() "
        .. "are). Gradients of every order flow through a call.",
      example = [[
local w = tide.tensor {2, 3}
local f = tide.capture(function(x) return (x * w + 1):square():sum() end)
f(tide.tensor {1, 1}) --> 25.  (float32)
w:add_(1)
f(tide.tensor {1, 1}) --> 41.  (float32)]]},
    {"Captured:programs", "-> table",
      "What was captured so far: a table of {key, forward, backward}; both have lines() and memory()."},
    {"Captured:profile", "...: any -> table",
      "Runs f(…) and measures each step: a table of {text, seconds, flops, bytes} with totals and the "
        .. "processor's peak and bandwidth, which prints itself. Without arguments the program captured last, on ones.",
      example = "assert(tide.capture(function(x) return x:exp() end):profile(tide.ones(8)).seconds > 0)"},
    {"Captured:reason", "-> string?", "Why it runs as it is, or nil."},
    {"Captured:forget", "", "Captures anew from the next call on."},
  },

  {
    title = "Training steps",
    {"train_step", "f: function, optimiser: optimiser, opts: options? -> step",
      "An object step: step(…) computes the loss f(…) and its gradient for the optimiser's parameters as one "
        .. "program, and lets the optimiser take a step.",
      options = [[
before_step: function? | before_step(optimiser), called between gradient and step: clipping, schedules
fallback: string = "eager" | run f as it is when it cannot be captured; "error" raises]],
      returns = "The loss as a number, then what else f returned (tensors of one element as numbers).",
      errors = "f's first result is no loss: not one element, or without a gradient.",
      example = [[
local net = tide.nn.Linear(2, 1)
local opt = tide.optim.SGD(net:parameters(), {lr = 0.1})
local step = tide.train_step(function(x, y) return (net(x) - y):square():mean() end, opt)
local x, y = tide.ones(4, 2), tide.zeros(4, 1)
local first = step(x, y)
for _ = 1, 20 do step(x, y) end
assert(step(x, y) < first)]]},
    {"TrainStep:programs", "-> table", "What was captured so far, as Captured:programs."},
    {"TrainStep:reason", "-> string?", "Why it runs as it is, or nil."},
    {"TrainStep:forget", "", "Captures anew from the next step on."},
  },
}
