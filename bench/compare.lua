-- tide beside its peers, one command:
--
--   bin/tide bench/compare.lua [names…] --python PATH [--repeats 3] [--rounds 2] [--threads 2] [--layout nchw]
--     [--case NAME] [--only PART] [--list]
--
-- Every side of a comparison is a process of its own (bench/peers/NAME.lua and NAME.py), so that its peak memory is
-- its own. The sides take turns, and ratios are medians over the rounds, so that the machine's drift cancels. Before
-- the clock runs both sides compute the same and are compared; a difference above the case's bound is an error.
-- With --threads 1 the ratios are those of processor time, which is worth something on a busy machine too.
-- --layout keeps to one of torch's layouts (nchw, channels_last) instead of trying both, --case to one case, --only to
-- the rows of `ode` whose names contain it.
-- What is printed is a table in Markdown: seconds (or processor seconds), peak memory, ratio peer / tide.

local here = arg[0]:match "^(.*)/bench/[^/]*$" or "."
package.path = here .. "/bench/peers/?.lua;" .. package.path
local process = require "process"
local fail = process.fail

-- ---- What is compared ----

-- torch's allocator told to keep what it has, in huge pages.
local tuned = "MALLOC_TRIM_THRESHOLD_=1000000000000 MALLOC_MMAP_MAX_=0 MALLOC_TOP_PAD_=67108864 "
  .. "GLIBC_TUNABLES=glibc.malloc.hugetlb=1"

-- A side: script and arguments; `of` names the group of which only the fastest counts (layouts, say).
local function torch(script, arguments, of, environment)
  return {label = of, script = script, arguments = arguments, environment = environment or ""}
end

-- torch in both layouts, with its allocator as it is and tuned.
local function layouts(script, arguments, label)
  local list = {}
  for _, layout in ipairs {"nchw", "channels_last"} do
    list[#list + 1] = torch(script, arguments .. " --layout " .. layout, label)
    list[#list + 1] = torch(script, arguments .. " --layout " .. layout, label .. ", tuned allocator", tuned)
  end
  return list
end

-- The gradient of a sample for batches of several sizes.
local function batches(sizes)
  local cases = {}
  for i, n in ipairs(sizes) do
    cases[i] = {name = "sample", title = "batch " .. n, bound = 1e-4, tide = {"--grad full --batch " .. n}, slow = true,
      peers = layouts("unet", "--memory full --batch " .. n, "diffusers")}
  end
  return cases
end

local function joined(a, b)
  for _, x in ipairs(b) do a[#a + 1] = x end
  return a
end

-- needs: Python modules. check: who writes the exchange file first and how far apart results may be.
local comparisons = {
  {name = "primitives", needs = {"torch", "numpy"}, script = "primitives", cases = {
    {name = "", bound = 1e-4, tide = {""}, peers = {
      torch("primitives", "--layout nchw", "torch"), torch("primitives", "--layout channels_last", "torch")}},
  }},
  {name = "homoode", needs = {"torch", "torchdiffeq", "safetensors"}, script = "homoode", cases = {
    {name = "cifar10", bound = 1e-2, tide = {"--grad discrete"},
      peers = layouts("homoode", "--grad plain", "torchdiffeq odeint")},
    {name = "cifar10", bound = 1e-2, tide = {"--grad adjoint"},
      peers = layouts("homoode", "--grad adjoint", "torchdiffeq odeint_adjoint")},
  }},
  {name = "homoode_wide", needs = {"torch", "torchdiffeq", "safetensors"}, script = "homoode", cases = {
    {name = "wide", bound = 1e-2, tide = {"--grad discrete"},
      peers = layouts("homoode", "--grad plain", "torchdiffeq odeint"), slow = true},
    {name = "wide", bound = 1e-2, tide = {"--grad adjoint"},
      peers = layouts("homoode", "--grad adjoint", "torchdiffeq odeint_adjoint"), slow = true},
  }},
  {name = "unet", needs = {"torch", "diffusers", "safetensors"}, script = "unet", folder = true, cases = {
    {name = "train", bound = 1e-4, tide = {""}, peers = layouts("unet", "", "diffusers"), slow = true},
    {name = "infer", bound = 1e-4, tide = {""}, peers = layouts("unet", "", "diffusers"), repeats = 11},
    {name = "sample", bound = 1e-4, tide = {"--grad discrete"}, slow = true,
      peers = joined(layouts("unet", "--memory full", "diffusers"),
        {torch("unet", "--memory checkpoint --layout nchw", "diffusers, checkpointed")})},
    {name = "sample", bound = 1e-4, tide = {"--grad full"}, peers = layouts("unet", "--memory full", "diffusers"),
      slow = true},
  }},
  {name = "unet_batches", needs = {"torch", "diffusers", "safetensors"}, script = "unet", folder = true,
    cases = batches {1, 2, 4, 8}},
  {name = "ode", needs = {"torch", "torchdiffeq", "jax", "diffrax", "scipy", "safetensors"}, script = "ode", cases = {
    {name = "", title = "float64", rows_check = 1e-3, tide = {"--dtype float64"}, peers = {
      torch("ode", "--dtype float64 --peer torchdiffeq", "torchdiffeq"),
      torch("ode", "--dtype float64 --peer diffrax", "diffrax"),
      torch("ode", "--dtype float64 --peer scipy", "SciPy")}},
    {name = "", title = "float32", rows_check = 1e-3, tide = {"--dtype float32"}, peers = {
      torch("ode", "--dtype float32 --peer torchdiffeq", "torchdiffeq"),
      torch("ode", "--dtype float32 --peer diffrax", "diffrax")}},
  }},
}

-- ---- Running sides ----

local o = {python = "", repeats = 3, rounds = 2, threads = 2, layout = "", case = "", only = ""}
local wanted = {}

local function read_arguments()
  local i = 1
  while arg[i] do
    local key = arg[i]:match "^%-%-(%a+)$"
    if key == "list" then
      for _, c in ipairs(comparisons) do print(c.name) end
      os.exit(0)
    elseif key then
      if o[key] == nil or not arg[i + 1] then fail("unknown option or no value: %s", arg[i]) end
      o[key], i = type(o[key]) == "number" and tonumber(arg[i + 1]) or arg[i + 1], i + 2
    else
      wanted[arg[i]], i = true, i + 1
    end
  end
  if o.python == "" then fail "--python PATH is missing: the Python that has torch and the other peers" end
end

local function run(command, environment) return process.run(command, o.threads, environment) end

local function tide_command(c, case, more)
  local case_option = case.name ~= "" and "--case " .. case.name or ""
  return ("%s/bin/tide %s/bench/peers/%s.lua --threads %d %s %s"):format(here, here, c.script, o.threads, case_option,
    more)
end

local function peer_command(c, case, side, more)
  local case_option = case.name ~= "" and "--case " .. case.name or ""
  return ("'%s' %s/bench/peers/%s.py --threads %d %s %s %s"):format(o.python, here, side.script or c.script, o.threads,
    case_option, side.arguments, more)
end

-- ---- One case ----

-- Writes the exchange file or folder and compares the two sides' results.
local function check(c, case, exchange)
  if c.name == "primitives" then return nil end
  if c.folder then
    if not c.prepared then
      os.execute(("mkdir -p '%s'"):format(exchange))
      run(peer_command(c, case, case.peers[1], "--prepare " .. exchange))
      c.prepared = true
    end
    local apart = run(tide_command(c, case, "--check --exchange " .. exchange))[1].difference
    return apart
  end
  os.execute(tide_command(c, case, case.tide[1] .. " --check --exchange " .. exchange))
  if case.rows_check then return nil end
  return run(peer_command(c, case, case.peers[1], "--check --exchange " .. exchange))[1].difference
end

local function median(list)
  table.sort(list)
  local n = #list
  return n % 2 == 1 and list[(n + 1) / 2] or (list[n / 2] + list[n / 2 + 1]) / 2
end

local function spent(record) return o.threads == 1 and record.cpu or record.seconds end

-- Adds records to results[row][label], keeping in one round the fastest of a label.
local function note(results, order, label, records, round, variant)
  for _, r in ipairs(records) do
    if not results[r.case] then
      results[r.case] = {}
      order[#order + 1] = r.case
    end
    local row = results[r.case]
    row[label] = row[label] or {}
    local best = row[label][round]
    if not best or spent(r) < spent(best) then
      r.how = (variant .. " " .. (r.variant or "")):match "^%s*(.-)%s*$"
      row[label][round] = r
    end
  end
end

local function load_average()
  local f = io.open "/proc/loadavg"
  if not f then return "?" end
  local text = f:read "*l"
  f:close()
  return text:match "^%S+"
end

local function seconds_text(s)
  if s >= 1 then return ("%.2f s"):format(s) end
  if s >= 1e-3 then return ("%.3g ms"):format(s * 1e3) end
  return ("%.3g µs"):format(s * 1e6)
end

-- A record's time, and its rate where it has one.
local function time_text(median_time, record)
  local text = seconds_text(median_time)
  return record.gflops and record.gflops > 0 and ("%s (%.0f GF/s)"):format(text, record.gflops) or text
end

local function bytes_text(b) return ("%.0f MB"):format(b / 1e6) end

-- One row of the table for each peer, in the order of the case's sides.
local function print_rows(case, results, order, labels)
  for _, row in ipairs(order) do
    local ours = results[row].tide
    for _, label in ipairs(labels) do
      local theirs = results[row][label]
      if theirs and ours then
        local ratio, memory, tide_time, peer_time = {}, {}, {}, {}
        for round, t in pairs(theirs) do
          ratio[#ratio + 1] = spent(t) / spent(ours[round])
          memory[#memory + 1] = t.rss / ours[round].rss
          tide_time[#tide_time + 1], peer_time[#peer_time + 1] = spent(ours[round]), spent(t)
        end
        local last = theirs[#theirs]
        if last.sum and math.abs(last.sum / ours[1].sum - 1) > 1e-3 then
          fail("%s: sums of the results differ: %g and %g", row, ours[1].sum, last.sum)
        end
        if case.rows_check and last.difference and last.difference > case.rows_check then
          fail("%s: results are %.2g apart (%s)", row, last.difference, label)
        end
        print(("| %s | %s, %s | %s %s, %s | %.2f | %.2f |"):format(row .. (case.tide[1] ~= "" and " " ..
          case.tide[1]:gsub("%-%-", "") or ""), time_text(median(tide_time), ours[1]), bytes_text(ours[1].rss),
          label .. (last.how ~= "" and " (" .. last.how .. ")" or ""), time_text(median(peer_time), last),
          bytes_text(last.rss), median(ratio), median(memory)))
      end
    end
  end
  io.flush()
end

local function variant_of(side)
  return side.arguments:match "%-%-layout (%S+)" or ""
end

-- Rounds of all sides. After the first one only the fastest of a label runs again.
local function compare(c, case, exchange)
  local apart = check(c, case, exchange)
  if apart and apart > case.bound then fail("%s %s: results are %.2g apart", c.name, case.name, apart) end
  local repeats = case.slow and math.max(1, math.floor(o.repeats / 2)) or case.repeats or o.repeats
  local more = ("--repeats %d --exchange %s"):format(repeats, exchange)
  if o.only ~= "" and c.name == "ode" then more = more .. (" --only '%s'"):format(o.only) end
  local results, order, labels, sides = {}, {}, {}, case.peers
  for round = 1, o.rounds do
    note(results, order, "tide", run(tide_command(c, case, case.tide[1] .. " " .. more)), round, "")
    local fastest = {}
    for _, side in ipairs(sides) do
      local records = run(peer_command(c, case, side, more), side.environment)
      note(results, order, side.label, records, round, c.name == "primitives" and "" or variant_of(side))
      if not labels[side.label] then
        labels[side.label], labels[#labels + 1] = true, side.label
      end
      local time, best = records[1] and spent(records[1]) or math.huge, fastest[side.label]
      if not best or time < best.time then fastest[side.label] = {time = time, side = side} end
    end
    if c.name ~= "primitives" and round == 1 then
      sides = {}
      for _, side in ipairs(case.peers) do
        if fastest[side.label].side == side then sides[#sides + 1] = side end
      end
    end
  end
  if apart then print(("| %s %s: results %.1e apart | | | | |"):format(c.name, case.name, apart)) end
  print_rows(case, results, order, labels)
end

-- Only the peers that use the layout asked for.
local function in_layout(peers)
  local kept = {}
  for _, side in ipairs(peers) do
    local layout = side.arguments:match "%-%-layout (%S+)"
    if o.layout == "" or not layout or layout == o.layout then kept[#kept + 1] = side end
  end
  if #kept == 0 then fail("no peer has the layout %q, expected nchw or channels_last", o.layout) end
  return kept
end

read_arguments()
for _, c in ipairs(comparisons) do
  if not next(wanted) or wanted[c.name] then
    process.check_modules(o.python, c.needs, c.name)
    print(("\n## %s: %d thread(s), %s, load average %s\n"):format(c.name, o.threads,
      o.threads == 1 and "processor time" or "wall time", load_average()))
    print "| case | tide | peer | times faster | memory ratio |\n| --- | --- | --- | --- | --- |"
    local exchange = os.tmpname()
    os.remove(exchange)
    for _, case in ipairs(c.cases) do
      if o.case == "" or o.case == case.name or o.case == case.title then
        case.peers = in_layout(case.peers)
        compare(c, case, c.folder and exchange or exchange .. ".safetensors")
      end
    end
    os.execute(("rm -rf '%s' '%s.safetensors'"):format(exchange, exchange))
  end
end
