-- What tide's sides of the comparisons share: options, threads, timing, peak memory, and one JSON line for each
-- measurement. A side measures one case in one process, so that its peak memory is that case's. With --check it
-- measures nothing: it writes weights, inputs and results to the exchange file, and the peer compares.

local ffi = require "ffi"
local tide = require "tide"

local M = {}

ffi.cdef "typedef struct { long sec, nsec; } tide_bench_time; int clock_gettime(int, tide_bench_time *);"
local now = ffi.new "tide_bench_time"

--- Wall time in seconds.
function M.clock()
  ffi.C.clock_gettime(1, now)
  return tonumber(now.sec) + tonumber(now.nsec) * 1e-9
end

--- The command line as a table: `--name value` for the names of `more` (with their defaults) and case, repeats,
--- threads, exchange; `--check` alone.
function M.options(more)
  local o = {case = "", repeats = 5, threads = 2, exchange = "", check = false}
  for name, value in pairs(more or {}) do o[name] = value end
  local i = 1
  while arg[i] do
    local name = arg[i]:match "^%-%-([%w_]+)$"
    if o[name] == nil then error(("unknown option %s"):format(arg[i]), 0) end
    if type(o[name]) == "boolean" then
      o[name], i = true, i + 1
    else
      local value = arg[i + 1] or error(("option %s needs a value"):format(arg[i]), 0)
      o[name], i = type(o[name]) == "number" and assert(tonumber(value)) or value, i + 2
    end
  end
  tide.threads(o.threads)
  return o
end

--- The median of a list of numbers.
function M.median(list)
  local sorted = {}
  for i, v in ipairs(list) do sorted[i] = v end
  table.sort(sorted)
  local n = #sorted
  return n % 2 == 1 and sorted[(n + 1) / 2] or (sorted[n / 2] + sorted[n / 2 + 1]) / 2
end

--- The medians of one call of f after a first one: {seconds = wall time, cpu = processor time of all threads}. A
--- sample lasts at least `least` (0.02) seconds.
function M.measure(f, repeats, least)
  f()
  local wall, cpu, calls = {}, {}, 0
  while #wall < repeats do
    local start, used, n = M.clock(), os.clock(), math.max(1, calls)
    for _ = 1, n do f() end
    local seconds = M.clock() - start
    used = os.clock() - used
    if calls == 0 then calls = math.max(1, math.floor((least or 0.02) / seconds)) end
    if n == calls then wall[#wall + 1], cpu[#cpu + 1] = seconds / n, used / n end
  end
  return {seconds = M.median(wall), cpu = M.median(cpu)}
end

--- The greatest resident memory of this process so far, in bytes.
function M.peak_rss()
  for line in io.lines "/proc/self/status" do
    local kib = line:match "^VmHWM:%s+(%d+)"
    if kib then return tonumber(kib) * 1024 end
  end
end

local function json(v)
  if type(v) == "string" then return '"' .. v:gsub('[\\"]', "\\%0") .. '"' end
  if type(v) == "number" then return ("%.9g"):format(v) end
  return tostring(v)
end

--- Prints a measurement.
function M.report(case, record)
  record.rss = M.peak_rss()
  local names, fields = {}, {'"case": ' .. json(case)}
  for name in pairs(record) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do fields[#fields + 1] = json(name) .. ": " .. json(record[name]) end
  print("{" .. table.concat(fields, ", ") .. "}")
  io.flush()
end

--- Adds the entries of a state dict to `out`, their names after `prefix`.
function M.add(out, prefix, state)
  for name, t in pairs(state) do out[prefix .. name] = t:detach() end
  return out
end

return M
