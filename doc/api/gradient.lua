-- Gradients: recording, backward, derivatives as functions, operations of one's own.

return {
  title = "Gradients",
  text = "What is computed from a tensor with requires_grad is recorded; backward walks the record and adds "
    .. "gradients to the leaves. A derivative is itself recorded on request, so derivatives nest.",

  {
    title = "Recording and walking back",
    {"Tensor:requires_grad", "on: boolean = true -> tensor",
      "Makes a real tensor a leaf that receives a gradient, or a constant again; returns it.",
      errors = "A result of an operation cannot become a constant: detach it. Integers have no gradient."},
    {"Tensor:backward", "cotangent: tensor?, opts: options?",
      "Adds gradients to the .grad of the leaves the tensor was made from.",
      args = {cotangent = "of the tensor's shape; needed unless it has one element"},
      options = [[
retain_graph: boolean = false | keep the record, to walk it again
create_graph: boolean = false | record the walk too, for second derivatives]],
      errors = "The record was used before and not retained; an operand was written in place since.",
      example = [[
local x = tide.tensor({1, 2, 3}):requires_grad()
local y = (x ^ 2):sum()
y:backward()
x.grad --> [2., 4., 6.]  (3 float32)]]},
    {"Tensor:detach", "-> tensor", "The same values on the same memory, without a record."},
    {"Tensor:register_hook", "f: function -> tensor",
      "f(gradient) is called in every backward; a tensor that it returns replaces the gradient.",
      example = [[
local x = tide.ones(2):requires_grad()
local y = x * 3
y:register_hook(function(g) return g * 10 end)
y:sum():backward()
x.grad --> [30., 30.]  (2 float32)]]},
    {"no_grad", "f: function, ...: any -> ...any", "f(…) without recording.",
      example = "tide.no_grad(function() return (tide.ones(1):requires_grad() * 2).needs_grad end) --> "
        .. "false"},
    {"enable_grad", "f: function, ...: any -> ...any", "f(…) with recording, also inside no_grad."},
    {"is_grad_enabled", "-> boolean", "Is recording on?", example = "tide.is_grad_enabled() --> true"},
    {"checkpoint", "f: function, ...: any -> ...tensor",
      "f(…) that keeps its arguments only and runs f again in the backward pass: less memory for more time.",
      note = "Parameters that f closes over get their gradients too. f must compute the same both times. "
        .. "One to four results.",
      example = [[
local x = tide.ones(2):requires_grad()
tide.checkpoint(function(v) return v:exp():sin():sum() end, x):backward()
assert(x.grad)]]},
  },

  {
    title = "Derivatives as functions",
    {"gradients", "outputs: tensor|tensor[], inputs: tensor|tensor[], opts: options? -> table",
      "Gradients of outputs with respect to inputs, as a table.",
      options = [[
cotangents: tensor|tensor[]? | of the outputs; needed for those of more than one element
create_graph: boolean = false | record the walk, for further derivatives
retain_graph: boolean = false | keep the record
unused: string = "nil" | an input without influence gives false; "zeros" gives zeros]],
      example = [[
local x = tide.tensor({2, 3}):requires_grad()
local g = tide.gradients((x ^ 3):sum(), x, {create_graph = true})[1]
tide.gradients(g:sum(), x)[1] --> [12., 18.]  (2 float32)]]},
    {"grad", "f: function, opts: options? -> function",
      "A function that returns f's gradient for each tensor argument; it nests.",
      options = "wrt: integer[]? | positions of the arguments; all real tensors by default",
      errors = "f gives anything but a tensor of one element.",
      note = "While recording is on the result is recorded too, so that it nests; detach it to keep "
        .. "the values only.",
      example = [[
local slope = tide.grad(function(x) return x ^ 3 end)
slope(tide.tensor(2)):item() --> 12
tide.grad(slope)(tide.tensor(2)):item() --> 12]]},
    {"value_and_grad", "f: function, opts: options? -> function",
      "A function that returns f(…) and the gradients.",
      options = "wrt: integer[]? | positions of the arguments; all real tensors by default",
      example = [[
local y, g = tide.value_and_grad(function(x) return x:square():sum() end)(tide.tensor {3, 4})
y:item() --> 25]]},
    {"vjp", "f: function, ...: any -> tensor, function",
      "f(…), and a function from a cotangent of its shape to one for each tensor argument.",
      example = [[
local y, pull = tide.vjp(function(x) return x:sin() end, tide.zeros(2))
pull(tide.ones(2)):detach() --> [1., 1.]  (2 float32)]]},
    {"jvp", "f: function, primals: tensor|tensor[], tangents: tensor|tensor[] -> tensor, tensor",
      "f(primals), and its derivative along the tangents, exactly: the derivative of u ↦ Jᵀu.",
      example = [[
local y, dy = tide.jvp(function(x) return x ^ 2 end, tide.tensor {3}, tide.tensor {1})
dy --> [6.]  (1 float32)]]},
    {"hvp", "f: function, x: tensor, v: tensor -> tensor, tensor",
      "f(x), and the product of f's Hessian at x with v.",
      example = [[
local y, h = tide.hvp(function(x) return (x ^ 3):sum() end, tide.tensor {1, 2}, tide.tensor {1, 1})
h --> [ 6., 12.]  (2 float32)]]},
  },

  {
    title = "Your own, and the check",
    {"custom", "forward: function, backward: function -> function",
      "An operation with a derivative of one's own.",
      args = {
        forward = "forward(ctx, …) returns one to four tensors and may keep things in the table ctx",
        backward = "backward(ctx, cotangents…) returns a cotangent or nil for each tensor argument",
      },
      note = "Derivatives of the derivative exist where backward is made of tide's operations.",
      example = [[
local straight = tide.custom(
  function(ctx, x) return x:round() end,
  function(ctx, dy) return dy end)
local x = tide.tensor({0.4, 1.7}):requires_grad()
straight(x):sum():backward()
x.grad --> [1., 1.]  (2 float32)]]},
    {"gradcheck", "f: function, inputs: tensor[], opts: options? -> boolean, string?",
      "Compares first and second derivatives of f with central differences; true, or raises saying which "
        .. "element is off.",
      options = [[
eps: number = 1e-6 | the step, relative above 1
rtol: number = 1e-6 | of the first derivative
rtol_second: number = 1e-5 | of the second
atol: number = 1e-8 | of both
second: boolean = true | check the second derivative too
raise: boolean = true | false returns false and the message]],
      errors = "A float32 input: its rounding hides errors.",
      example = "tide.gradcheck(function(x) return x:tanh() end, {tide.randn(3, \"float64\")})"},
  },
}
