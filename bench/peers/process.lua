-- Sides of comparisons as processes: starts one, reads its measurements, fails with its last words.

local M = {}

--- Ends the program with a message.
function M.fail(...)
  io.stderr:write("bench: ", (...):format(select(2, ...)), "\n")
  os.exit(1)
end

--- Ends the program unless `python` can import all of a list of modules.
function M.check_modules(python, modules, what)
  for _, module in ipairs(modules) do
    local found = os.execute(("'%s' -c 'import %s' >/dev/null 2>&1"):format(python, module))
    if found ~= 0 and found ~= true then
      M.fail("%s needs the Python module %s, which %s cannot import: install it there with pip", what, module, python)
    end
  end
end

-- A line of JSON without nesting as a table.
local function parsed(line)
  local record = {}
  for key, text in line:gmatch '"([%w_]+)": "([^"]*)"' do record[key] = text end
  for key, number in line:gmatch '"([%w_]+)": ([%-%d%.e+]+)' do record[key] = tonumber(number) end
  return record
end

--- The measurements that a command prints, with the environment's further settings ("NAME=value …"); ends the
--- program with the command's last words if it prints none. OpenBLAS chooses its own kernels on both sides.
function M.run(command, threads, environment)
  local errors = os.tmpname()
  local settings = ("-u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OMP_NUM_THREADS=%d PYTHONWARNINGS=ignore %s")
    :format(threads, environment or "")
  local pipe = io.popen(("env %s %s 2>%s"):format(settings, command, errors))
  local records = {}
  for line in pipe:lines() do
    if line:sub(1, 1) == "{" then records[#records + 1] = parsed(line) end
  end
  pipe:close()
  local file = io.open(errors)
  local words = file:read "*a"
  file:close()
  os.remove(errors)
  if #records == 0 and words ~= "" then
    M.fail("this side gave no measurement:\n  %s\n%s", command, words:sub(-2000))
  end
  return records
end

return M
