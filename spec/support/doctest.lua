-- Runs examples of the documentation: a chunk in which a line "expression --> text" also says what the value
-- prints as (several values with two spaces between them; runs of white space count as one).

local M = {}

local tide = require "tide"

local function squeezed(text) return (text:gsub("%s+", " "):gsub("^ ", ""):gsub(" $", "")) end

local function shown(...)
  local list = {}
  for i = 1, select("#", ...) do list[i] = tostring((select(i, ...))) end
  return squeezed(table.concat(list, "  "))
end

-- Each "expression --> text" as a call of the check, in the line where it stands.
local function rewritten(code)
  local lines = {}
  for line in (code .. "\n"):gmatch "(.-)\n" do
    local expression, text = line:match "^(.-)%s+%-%->%s(.*)$"
    if expression then line = ("__check(%q, %s)"):format(text, expression) end
    lines[#lines + 1] = line
  end
  return table.concat(lines, "\n")
end

--- A fresh environment for examples: the parts of tide by name, nothing printed.
function M.environment()
  local env = {tide = tide, print = function() end}
  for part in ("nn optim ode implicit diffusion data plot linalg"):gmatch "%a+" do env[part] = tide[part] end
  function env.help() end
  return setmetatable(env, {__index = _G})
end

--- Runs a chunk in an environment; raises where it raises or prints something else than it says.
function M.run(code, name, env)
  local text = rewritten(code)
  -- an example may be a single expression
  local chunk, message = loadstring(text, "=" .. name)
  if not chunk then chunk = loadstring("local _ = " .. text, "=" .. name) end
  if not chunk then error(message, 0) end
  env = env or M.environment()
  function env.__check(expected, ...)
    local got = shown(...)
    expected = squeezed(expected)
    if got ~= expected then error(("expected %s\n     got %s"):format(expected, got), 2) end
  end
  setfenv(chunk, env)
  local was = tide.is_grad_enabled()
  local ok, problem = pcall(chunk)
  require("tide.core").recording(was)
  if not ok then error(problem, 0) end
end

--- The ```lua blocks of a Markdown text as {code, line of its first line}.
function M.blocks(text)
  local list, block, number = {}, nil, 0
  for line in (text .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    if block and line:match "^```" then
      list[#list + 1] = {code = table.concat(block, "\n"), line = block.line}
      block = nil
    elseif block then
      block[#block + 1] = line
    elseif line:match "^```lua" then
      block = {line = number + 1}
    end
  end
  return list
end

return M
