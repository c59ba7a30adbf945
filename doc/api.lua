-- The documentation of every public function, as data. The manual's reference, tide.help, the annotations for
-- editors and the coverage test are made from this table.
--
-- A part is a list of sections, a section a list of entries. An entry is
--
--   {"optim.Adam", "params: tensor[], opts: options? -> optimiser", "A sentence.", example = …, …}
--
-- with the name below `tide` ("Tensor:backward" is a method, "Tensor.shape" a property of every tensor), the
-- signature, and what it does. A signature lists "name: type", "name: type?" (may be absent), "name: type =
-- default" and "...: type"; results follow the arrow. The type of an options table is "options", its fields
-- are the lines of `options`. Further fields, all optional:
--
--   args = {name = meaning}     arguments whose name does not say enough
--   options = "name: type = default | meaning", one a line; an indented line goes on with it
--   fields = the same for the fields of what a constructor makes
--   returns, errors, source, note: a sentence each
--   example: Lua; a line "expression --> text" is also a test of the text
--
-- An operation of the core's table takes its signature and its sentence from there: its entry is the name and
-- an example, {"exp", "tide.exp(x)"}, and may have the further fields. An operation without an entry is
-- documented too, in the last section of its part, so that adding one needs nothing here.

local here = ...

local api = {
  parts = {},

  -- Types of signatures, and what they are for an editor.
  types = {
    tensor = "tide.Tensor", ["tensor[]"] = "tide.Tensor[]", operand = "tide.Tensor|number",
    sizes = "integer|integer[]", dims = "integer|integer[]", dim = "integer", pair = "integer|integer[]",
    dtype = "tide.dtype", generator = "tide.Generator", module = "tide.nn.Module",
    optimiser = "tide.Optimiser", schedule = "tide.Schedule", ema = "tide.EMA",
    noise_schedule = "tide.NoiseSchedule", sample = "tide.Sample", trainer = "tide.Trainer",
    captured = "tide.Captured", step = "tide.TrainStep", solution = "tide.Solution", loader = "tide.Loader",
    dataset = "tide.Dataset", figure = "tide.Figure", axes = "tide.Axes", canvas = "tide.Canvas",
    numbers = "number[]|tide.Tensor", matrix = "number[][]|tide.Tensor", color = "string|number|number[]",
    state = "tide.Tensor|number[]|table", shape = "fun(k: integer, lr: number): number",
  },

  -- Names that tables hold for tide's own files; they may change without notice.
  internal = {
    "implicit.SharedPoint:regression_step", "operations", "statistics", "ode_solve",
    "ode_methods", "ode_dense", "ode_example", "ode_native", "ode_numbers", "ode_march", "ode_marched", "code_of",
    "ode_revolve", "ode_check", "ode_solve_batch", "ode_options",
    "Axes:add", "Axes:option", "Axes:default", "Axes:next_color", "Axes:last_color", "Axes:categories",
    "Axes:set_colorbar", "Axes:resolve", "Axes:fit", "Axes:sorted", "Axes:apply", "Axes:new", "Figure:new",
    "Canvas:new", "Canvas:clip", "Canvas:unclip", "Canvas:paint", "Canvas:cover", "Canvas:stroke",
    "Canvas:hair", "Canvas:disc", "Canvas:fill", "Canvas:rect",
  },
}

for i, part in ipairs {
  "make", "tensor", "operation", "gradient", "capture", "nn", "optim", "ode", "implicit", "diffusion",
  "diffusion_tasks", "diffusion_networks", "data", "plot", "system",
} do
  api.parts[i] = require(here .. "." .. part)
end

return api
