-- Whether the core may capture a right-hand side: run it as a program.

local core = require "tide.core"
local watch = require "tide.capture.watch"

local M = {}

-- What functions that proved clean closed over then, by their code.
local clean, count, MOST = setmetatable({}, {__mode = "k"}), 0, 256

-- A function's code; an object that is called, and a function of C, is its own.
local function code_of(f) return core.code_of(f) or f end

local function remember(code, signature)
  if count == MOST then
    for k in pairs(clean) do clean[k] = nil end
    count = 0
  end
  clean[code], count = signature, count + 1
end

-- Why f is not captured that changed something.
local function impure(f, changed)
  local place = watch.place(f)
  return ("ode.solve: f%s changes what it closes over: %s; a program would do so once only. Take it out of f to have f "
    .. "captured"):format(place and " (" .. place .. ")" or "", changed)
end

--- What the core asks before it captures f, which was called once by then, and tells when that fails. A function that
--- changes what it closes over (it counts its calls, say) runs as it is, unless capture = true insists. Second value:
--- is f known to be clean? Then its code was called before and changed nothing, and it closes over the same, but for
--- tensors; so it need not be called before it is captured.
function M.accepts(wanted, f, outcome)
  local before, code = watch.snapshot(f), code_of(f)
  local known = watch.matches(before, clean[code])
  return function(err)
    local changed = not err and watch.changed(before)
    if changed then err = impure(f, changed) end
    outcome.used, outcome.why = not err, err
    if err then clean[code] = nil
    elseif not known then remember(code, watch.signature(before)) end
    if err and wanted == true then error(err, 0) end
    return not err
  end, known
end

return M
