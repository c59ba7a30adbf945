-- Every public function and class of tide, found by walking its tables: what the documentation must cover,
-- and how tide.help finds the name of what it is given.

local core = require "tide.core"

local parts = {"nn", "optim", "ode", "implicit", "diffusion", "data", "io", "plot", "linalg"}
local hooks = {init = true, forward = true, describe = true}  -- what a module's author writes

local function is_class(t) return type(t) == "table" and type(rawget(t, "class_name")) == "string" end

-- Functions of a table whose names do not begin with "_".
local function functions(t, visit)
  for name, value in pairs(t) do
    local named = type(name) == "string" and name:sub(1, 1) ~= "_"
    if named and type(value) == "function" then visit(name, value) end
  end
end

-- One object of each class that has no table of its own in the library.
local function objects(tide)
  local p = tide.ones(1):requires_grad()
  local opt = tide.optim.SGD {p}
  local figure = tide.plot.figure()
  return {
    Generator = getmetatable(tide.generator(0)).__index, Optimiser = getmetatable(tide.optim.SGD).__index,
    Schedule = getmetatable(tide.optim.Schedule(opt, tide.optim.constant())),
    EMA = getmetatable(tide.optim.EMA {p}),
    Loader = getmetatable(tide.data.Loader {images = tide.zeros(1, 1, 1, 1)}), Figure = getmetatable(figure),
    Captured = getmetatable(tide.capture(function() end)),
    TrainStep = getmetatable(tide.train_step(function() end, opt)),
    Axes = getmetatable(figure:axes(1)), Canvas = require "tide.plot.canvas",
    NoiseSchedule = getmetatable(tide.diffusion.Schedule "linear"),
    Trainer = getmetatable(tide.diffusion.Trainer {p}),
    Solution = getmetatable(tide.ode.solve(function(_, y) return y end, 1, {0})),
    Sample = getmetatable(tide.diffusion.sample(function(x) return x end, tide.ones(1), {steps = 1})),
  }
end

-- Methods of a module's class that are not inherited from nn.Module's functions.
local function class_methods(name, class, nn, see, also)
  functions(class, function(method, f)
    if hooks[method] then return end
    if nn[method] == f then also("nn." .. method, f) else see(name .. ":" .. method, f) end
  end)
end

--- names → values of everything public, and values → names (several values may share one: x:sum is tide.sum).
return function(tide)
  local names, values = {}, {}
  local function also(name, value) values[value] = values[value] or name end
  local function see(name, value)
    names[name] = value
    also(name, value)
  end
  functions(tide, see)
  see("help", require "tide.help")
  see("capture", tide.capture)
  see("train_step", tide.train_step)
  see("repl.run", require("tide.repl").run)
  for _, part in ipairs(parts) do
    for name, value in pairs(tide[part]) do
      local path = part .. "." .. name
      if path == "nn.init" or path == "nn.lora" then
        functions(value, function(own, f) see(path .. "." .. own, f) end)
      elseif part ~= "linalg" or names[values[value] or ""] ~= value then  -- it has the core's operations too
        if type(value) == "function" or type(value) == "table" then see(path, value) end
        if is_class(value) then class_methods(path, value, tide.nn, see, also) end
      end
    end
  end
  local operations = core.operations()
  functions(core.methods, function(name, f)
    local plain = name:match "^(.*)_$"
    if type(rawget(tide, name)) == "function" then also(name, f)
    elseif plain and operations[plain] and operations[plain].elementwise then also(plain, f)
    elseif tide.linalg[name] then also("linalg." .. name, f)
    else see("Tensor:" .. name, f) end
  end)
  for name, class in pairs(objects(tide)) do
    functions(class, function(method, f) see(name .. ":" .. method, f) end)
    also(name, class)
  end
  for name, value in pairs(names) do  -- of two names for one thing, the first in the alphabet
    if names[values[value]] == value and name < values[value] then values[value] = name end
  end
  return names, values
end
