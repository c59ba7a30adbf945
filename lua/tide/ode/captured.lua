-- Whether the core may capture a right-hand side: run it as a program.

local watch = require "tide.capture.watch"

local M = {}

--- What the core asks before it captures f, which was called once by then, and tells when that fails. A function that
--- changes what it closes over (it counts its calls, say) runs as it is, unless capture = true insists.
function M.accepts(wanted, f, outcome)
  local before = watch.snapshot(f)
  return function(err)
    if not err and not watch.untouched(before) then err = "ode.solve: f changes what it closes over" end
    outcome.used, outcome.why = not err, err
    if err and wanted == true then error(err, 0) end
    return not err
  end
end

return M
