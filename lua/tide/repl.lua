-- The prompt of bin/tide: evaluates what is typed, prints what comes out, and goes on.
--
-- Names live in an environment of the prompt's own, in which tide, nn, ode and the other parts are there
-- already. A local of one line is still there in the next: its value when the line ended becomes a name of
-- the environment, so a function that changed the local afterwards changes its own. `_` is the last value. A
-- line that ends with a semicolon prints nothing.
--
-- With a pipe as input nothing is shown but what the lines print, and the first error ends it with status 1.

local editor = require "tide.repl.editor"
local tide = require "tide"

local M = {}

local CHUNK = "=prompt"
local KEEP = "__keep"  -- called at the end of a chunk of statements, to look at its locals
local PASS = "__pass"  -- gets the values of an expression: a frame of the chunk stays, for messages
local HISTORY_LINES = 500

-- ---- Evaluation ----

-- tide.x for x, on first use: the parts are loaded when they are named.
local function predefined(_, name)
  if name == "tide" then return tide end
  for part in ("nn optim ode implicit diffusion linalg data plot help"):gmatch "%a+" do
    if name == part then return tide[part] end
  end
  return _G[name]
end

local function pass(...) return ... end

local function load_chunk(code, env)
  if setfenv then
    local f, message = loadstring(code, CHUNK)
    return f and setfenv(f, env), message
  end
  return load(code, CHUNK, "t", env)
end

-- The environment, and the function that keeps the locals of the chunk that calls it.
local function new_environment()
  local env = {}
  local function keep()
    local i = 1
    while true do
      local name, value = debug.getlocal(2, i)
      if not name then return end
      if name:sub(1, 1) ~= "(" then env[name] = value end
      i = i + 1
    end
  end
  return setmetatable(env, {__index = function(t, name)
    if name == KEEP then return keep end
    if name == PASS then return pass end
    return predefined(t, name)
  end})
end

local function is_incomplete(message) return message and message:match "<eof>'?%s*$" ~= nil end

-- The code as a function: an expression that returns its values, or statements whose locals are kept. nil and
-- "more" when it goes on, nil and a message when it is wrong.
local function compile(code, env)
  local expression = (code:match "^%s*=(.*)$" or code):gsub(";%s*$", "")
  local f, first = load_chunk("return " .. expression, env)
  if f then
    f = load_chunk(("return %s(%s)"):format(PASS, expression), env)
    return f or load_chunk(("return %s(%s\n)"):format(PASS, expression), env)  -- after a comment
  end
  local message
  f, message = load_chunk(code, env)
  if f then return load_chunk(code .. "\n" .. KEEP .. "()", env) or f end
  if is_incomplete(message) or is_incomplete(first) then return nil, "more" end
  return nil, message
end

-- Frames of the traceback that are the user's: from the top down to the prompt's own.
local function short_traceback(message)
  if type(message) ~= "string" then
    local mt = debug.getmetatable(message)
    if not (mt and mt.__tostring) then return ("error: (a %s)"):format(type(message)) end
    message = tostring(message)
  end
  local frames = {}
  for line in debug.traceback("", 2):gmatch "\n%s*([^\n]+)" do
    if line:match "tide/repl%.lua" then break end
    local own = line:match "/tide/[%w_/]+%.lua:" or line:match "^%[C%]" or line:match "^stack traceback"
    if not own then frames[#frames + 1] = "  " .. line end
  end
  if #frames > 0 and frames[#frames]:match "prompt:%d+: in " and #frames == 1 then frames = {} end
  for i = #frames, 6, -1 do frames[i] = nil end
  return table.concat({message, unpack(frames)}, "\n")
end

-- A plain table as its contents, one level deep and not too long.
local function table_text(t)
  local parts, n = {}, 0
  local function add(text)
    n = n + 1
    if n <= 20 then parts[n] = text end
  end
  local function item(v)
    if type(v) == "string" then return ("%q"):format(v) end
    if type(v) == "table" and not getmetatable(v) then return next(v) == nil and "{}" or "{…}" end
    if tide.is_tensor(v) then return ("tensor(%s %s)"):format(table.concat(v.shape, "×"), v.dtype) end
    return tostring(v)
  end
  for _, v in ipairs(t) do add(item(v)) end
  local keys = {}
  for k in pairs(t) do
    if not (type(k) == "number" and k >= 1 and k <= #t and k % 1 == 0) then keys[#keys + 1] = k end
  end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, k in ipairs(keys) do
    local name = type(k) == "string" and k:match "^[%a_][%w_]*$" or "[" .. item(k) .. "]"
    add(name .. " = " .. item(t[k]))
  end
  if n > 20 then parts[21] = ("… %d more"):format(n - 20) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function value_text(v)
  if type(v) == "table" and not getmetatable(v) then return table_text(v) end
  return tostring(v)
end

local Session = {}
Session.__index = Session

-- Whatever was interrupted, recording is on again at the prompt.
local function protected(f)
  local core = require "tide.core"
  local function finish(ok, ...)
    core.recording(true)
    return ok, select("#", ...), ...
  end
  return finish(xpcall(f, short_traceback))
end

local function show(self, quiet, ok, n, ...)
  if not ok then return "error", (...) end
  if n > 0 then self.env._ = (...) end
  for i = 1, quiet and 0 or n do self.write(value_text((select(i, ...))) .. "\n") end
  return "ok"
end

--- Takes one line. Gives "ok", "more" (the lines so far are not complete), or "error" and the text.
function Session:line(text)
  local code = self.pending and self.pending .. "\n" .. text or text
  self.pending = nil
  if code:match "^%s*$" then return "ok" end
  local f, problem = compile(code, self.env)
  if problem == "more" and not f then
    self.pending = code
    return "more"
  end
  if not f then return "error", problem end
  return show(self, code:match ";%s*$" ~= nil, protected(f))
end

--- A session that writes values through `write`: s:line(text) evaluates, s.env is its environment.
function M.session(write)
  return setmetatable({env = new_environment(), write = write}, Session)
end

-- ---- The terminal ----

local function succeeded(command)
  local a, _, c = os.execute(command)
  return a == true or a == 0 or (a == nil and c == 0)
end

local function output_of(command)
  local pipe = io.popen(command, "r")
  local text = pipe and pipe:read "*a" or ""
  if pipe then pipe:close() end
  return text
end

-- The interpreter obeys one Ctrl-C and goes back to the system's own handling, which ends the process. Where
-- there is an FFI this puts the interpreter's handler back after each.
local function interrupt_guard()
  local ok, guard = pcall(function()
    local ffi = require "ffi"
    ffi.cdef "void *signal(int number, void *handler);"
    local SIGINT = 2
    local handler = ffi.C.signal(SIGINT, ffi.cast("void *", 0))
    ffi.C.signal(SIGINT, handler)
    return function() ffi.C.signal(SIGINT, handler) end
  end)
  return ok and guard or function() end
end

-- Reads lines with the editor: the terminal gives single keys while a line is typed.
local function edited_reader()
  local size = tonumber(output_of("stty size 2>/dev/null"):match "%d+ (%d+)")
  local before = output_of("stty -g 2>/dev/null"):match "%S+"
  if not before or not succeeded "stty -icanon -echo min 1 2>/dev/null" then return nil end
  os.execute("stty " .. before)
  local terminal = {
    columns = size and size > 0 and size or 80,
    read = function() return io.read(1) end,
    write = function(text)
      io.write(text)
      io.flush()
    end,
  }
  return function(prompt, history)
    os.execute "stty -icanon -echo -isig -icrnl min 1"
    local ok, line, why = pcall(editor.read, prompt, history, terminal)
    os.execute("stty " .. before)
    if not ok then return nil, "interrupt" end
    return line, why
  end
end

-- Reads lines as they come.
local function plain_reader(prompt)
  io.write(prompt)
  io.flush()
  local ok, line = pcall(function()
    local text = io.read "*l"
    return text
  end)
  if not ok then return nil, "interrupt" end
  return line, not line and "eof" or nil
end

local function history_path()
  local home = os.getenv "HOME"
  return os.getenv "TIDE_HISTORY" or (home and home .. "/.tide_history")
end

local function load_history(path)
  local list = {}
  local f = path and io.open(path, "r")
  if not f then return list end
  for line in f:lines() do list[#list + 1] = line end
  f:close()
  while #list > HISTORY_LINES do table.remove(list, 1) end
  return list
end

local function save_history(path, list)
  local f = path and io.open(path, "w")
  if not f then return end
  for i = math.max(1, #list - HISTORY_LINES + 1), #list do f:write(list[i], "\n") end
  f:close()
end

local function greeting()
  local interpreter = rawget(_G, "jit") and jit.version or _VERSION
  local n = tide.threads()
  local threads = ("%d thread%s"):format(n, n == 1 and "" or "s")
  local form = "%s, %s, %s, %s; help() explains, Ctrl-D leaves"
  return form:format(tide._VERSION, interpreter, threads, tide.isa())
end

local function interactive()
  local history, path = {}, history_path()
  local reader = os.getenv "TERM" ~= "dumb" and edited_reader() or nil
  if reader then history = load_history(path) end
  reader = reader or plain_reader
  local restore_interrupt = interrupt_guard()
  local session = M.session(function(text) io.write(text) end)
  io.write(greeting(), "\n")
  while true do
    local line, why = reader(session.pending and ">> " or "> ", history)
    restore_interrupt()
    if line then
      if line:match "%S" and history[#history] ~= line then history[#history + 1] = line end
      local status, text = session:line(line)
      restore_interrupt()
      if status == "error" then io.write(text, "\n") end
    elseif why == "interrupt" then
      session.pending = nil
      if reader == plain_reader then io.write "\n" end
    else
      if reader == plain_reader then io.write "\n" end
      break
    end
  end
  if reader ~= plain_reader then save_history(path, history) end
end

local function piped()
  local session = M.session(function(text) io.write(text) end)
  local status, text = "ok", nil
  for line in io.lines() do
    status, text = session:line(line)
    if status == "error" then break end
  end
  if status == "more" then
    status, text = "error", "prompt: the input ended inside a statement:\n" .. session.pending
  end
  if status == "error" then
    io.stdout:flush()
    io.stderr:write(text, "\n")
    os.exit(1)
  end
end

--- The prompt, until the end of input.
function M.run()
  if succeeded "test -t 0" then interactive() else piped() end
end

return M
