-- Programs in words: what print shows of a captured function, and profiles.

local core = require "tide.core"
local message = require "tide.message"

local M = {}

local function quantity(x, unit)
  local prefixes = {{1e9, "G"}, {1e6, "M"}, {1e3, "k"}}
  for _, p in ipairs(prefixes) do
    if x >= p[1] then return ("%.4g %s%s"):format(x / p[1], p[2], unit) end
  end
  return ("%.4g %s"):format(x, unit)
end

local function totals(lines)
  local flops, bytes, seconds = 0, 0, 0
  for _, line in ipairs(lines) do
    flops, bytes, seconds = flops + line.flops, bytes + line.bytes, seconds + line.seconds
  end
  return flops, bytes, seconds
end

--- A program as text: one step a line, x… inputs, y… results, p… tensors closed over, t… temporaries.
function M.program(program, indent)
  indent = indent or ""
  local lines, out = program:lines(), {}
  local flops, bytes = totals(lines)
  out[1] = ("%s%d step%s, %s moved, %s, %s of own memory"):format(indent, #lines, #lines == 1 and "" or "s",
    quantity(bytes, "B"), quantity(flops, "FLOP"), quantity(program:memory(), "B"))
  if program:numbers() > 0 then
    out[1] = ("%s, run as %d operations on single numbers"):format(out[1], program:numbers())
  end
  for i, line in ipairs(lines) do out[#out + 1] = ("%s%4d %s"):format(indent, i, line.text) end
  return table.concat(out, "\n")
end

-- Arguments in words, from their form (cache.form_of) and the tensors' shapes and types.
local function words(form, inputs)
  local x = inputs[form.place]
  if x then return ("%s %s"):format(x.dtype, #x.shape > 0 and message.shape(x) or "0-d") end
  if not form.keys then return tostring(form.constant) end
  local parts = {}
  for i, key in ipairs(form.keys) do
    local text = words(form[i], inputs)
    parts[i] = key == i and text or ("%s = %s"):format(tostring(key), text)
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function arguments(entry)
  local list = {}
  for i in ipairs(entry.arguments.keys) do list[i] = words(entry.arguments[i], entry.inputs) end
  return ("for (%s)%s"):format(table.concat(list, ", "), entry.backward and ", with gradients" or "")
end

function M.captured(c)
  local out = {("captured %s: "):format(c.name)}
  local list = c:programs()
  if c:reason() then
    out[1] = out[1] .. "runs as it is: " .. c:reason()
  elseif #list == 0 then
    out[1] = out[1] .. "not called yet"
  else
    out[1] = out[1] .. ("%d program%s"):format(#list, #list == 1 and "" or "s")
  end
  for _, entry in ipairs(list) do
    out[#out + 1] = arguments(entry)
    out[#out + 1] = " forward: " .. M.program(entry.forward, "  "):gsub("^%s+", "")
    if entry.backward then out[#out + 1] = " backward: " .. M.program(entry.backward, "  "):gsub("^%s+", "") end
  end
  return table.concat(out, "\n")
end

local Profile = {}
Profile.__index = Profile

function Profile:__tostring()
  local out = {("%10s %6s %9s %9s  step"):format("us", "%", "GFLOP/s", "GB/s")}
  for _, line in ipairs(self) do
    local s = math.max(line.seconds, 1e-9)
    out[#out + 1] = ("%10.1f %6.1f %9.2f %9.2f %s"):format(line.seconds * 1e6, 100 * line.seconds / self.seconds,
      line.flops / s / 1e9, line.bytes / s / 1e9, line.text)
  end
  out[#out + 1] = ("%10.1f %6s %9.2f %9.2f  in all; this processor: %.0f GFLOP/s, %.1f GB/s with %d thread%s"):format(
    self.seconds * 1e6, "", self.flops / self.seconds / 1e9, self.bytes / self.seconds / 1e9, self.peak / 1e9,
    self.bandwidth / 1e9, core.threads(), core.threads() == 1 and "" or "s")
  return table.concat(out, "\n")
end

--- The last measured run of a program: {seconds, flops, bytes, peak, bandwidth, {text, seconds, flops, bytes}, …}.
function M.profile(program)
  local lines = program:lines()
  lines.flops, lines.bytes, lines.seconds = totals(lines)
  lines.seconds = math.max(lines.seconds, 1e-9)
  lines.peak, lines.bandwidth = core.peak()
  return setmetatable(lines, Profile)
end

return M
