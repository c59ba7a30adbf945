-- A line editor for terminals, in plain Lua: movement, deletion, history. It reads bytes and writes text
-- through the functions it is given, so that it knows nothing of the terminal but its codes (those of a
-- VT100).
--
-- Ctrl-A, Home: to the start; Ctrl-E, End: to the end; Ctrl-B, Ctrl-F, arrows: a character; Ctrl-P, Ctrl-N,
-- arrows: older and newer lines; Ctrl-K, Ctrl-U: delete to the end, to the start; Ctrl-W: the word before;
-- Ctrl-L: clear the screen; Ctrl-C: drop the line; Ctrl-D: delete a character, or the end
-- of input when there is none.

local M = {}

-- What the bytes after ESC [ or ESC O mean.
local sequences = {
  A = "up", B = "down", C = "right", D = "left", H = "home", F = "end", ["1~"] = "home", ["7~"] = "home",
  ["4~"] = "end", ["8~"] = "end", ["3~"] = "delete",
}

local controls = {
  [1] = "home", [2] = "left", [3] = "interrupt", [4] = "eof", [5] = "end", [6] = "right",
  [8] = "backspace", [10] = "enter", [11] = "kill", [12] = "clear", [13] = "enter", [14] = "down",
  [16] = "up", [21] = "kill before", [23] = "kill word", [127] = "backspace",
}

-- The key that the next bytes are: a name from above, a character's bytes, or nil at the end of input.
local function read_key(next_byte)
  local b = next_byte()
  if not b then return nil end
  local code = b:byte()
  if code == 27 then
    local kind = next_byte()
    if kind ~= "[" and kind ~= "O" then return "unknown" end
    local text = ""
    repeat
      local c = next_byte()
      if not c then return nil end
      text = text .. c
    until c:match "[%a~]"
    return sequences[text] or "unknown"
  elseif code < 32 or code == 127 then
    return controls[code] or (code == 9 and "tab") or "unknown"
  end
  local more = code >= 240 and 3 or code >= 224 and 2 or code >= 192 and 1 or 0
  for _ = 1, more do b = b .. (next_byte() or "") end
  return nil, b
end

-- The line is a list of characters and a place between them; what the keys do to it.
local actions = {}

function actions.left(s) s.at = math.max(0, s.at - 1) end
function actions.right(s) s.at = math.min(#s.chars, s.at + 1) end
function actions.home(s) s.at = 0 end
actions["end"] = function(s) s.at = #s.chars end

function actions.delete(s)
  if s.at < #s.chars then table.remove(s.chars, s.at + 1) end
end

function actions.backspace(s)
  if s.at == 0 then return end
  table.remove(s.chars, s.at)
  s.at = s.at - 1
end

function actions.kill(s)
  for i = #s.chars, s.at + 1, -1 do s.chars[i] = nil end
end

actions["kill before"] = function(s)
  for _ = 1, s.at do table.remove(s.chars, 1) end
  s.at = 0
end

actions["kill word"] = function(s)
  while s.at > 0 and s.chars[s.at] == " " do actions.backspace(s) end
  while s.at > 0 and s.chars[s.at] ~= " " do actions.backspace(s) end
end

local function insert(s, char)
  table.insert(s.chars, s.at + 1, char)
  s.at = s.at + 1
end

function actions.tab(s)
  insert(s, " ")
  insert(s, " ")
end

local function characters(text)
  local list = {}
  for c in text:gmatch "[%z\1-\127\194-\244][\128-\191]*" do list[#list + 1] = c end
  return list
end

-- Another line of the history; the one being written is kept as its newest.
local function recall(s, step)
  local place = s.place + step
  if place < 1 or place > #s.history + 1 then return end
  if s.place > #s.history then s.draft = s.chars end
  s.place = place
  s.chars = place > #s.history and s.draft or characters(s.history[place])
  s.at = #s.chars
end

function actions.up(s) recall(s, -1) end
function actions.down(s) recall(s, 1) end
function actions.clear(s) s.write "\27[H\27[2J" end

-- The window of the line that fits beside the prompt, with the cursor inside.
local function draw(s)
  local room = math.max(10, s.columns - #s.prompt - 1)
  if s.at < s.first then s.first = s.at end
  if s.at > s.first + room then s.first = s.at - room end
  local shown = table.concat(s.chars, "", s.first + 1, math.min(#s.chars, s.first + room))
  s.write("\r" .. s.prompt .. shown .. "\27[K\r\27[" .. (#s.prompt + s.at - s.first) .. "C")
end

--- Reads a line. terminal = {read = function() → a byte or nil, write = function(text), columns = number};
--- history is
--- a list of lines, oldest first. Gives the line; or nil and "eof" or "interrupt".
function M.read(prompt, history, terminal)
  local s = {
    prompt = prompt, history = history, chars = {}, at = 0, first = 0, place = #history + 1,
    write = terminal.write, columns = terminal.columns or 80,
  }
  draw(s)
  while true do
    local key, char = read_key(terminal.read)
    if char then
      insert(s, char)
    elseif key == nil or (key == "eof" and #s.chars == 0) then
      s.write "\r\n"
      return nil, "eof"
    elseif key == "enter" then
      s.write "\r\n"
      return table.concat(s.chars)
    elseif key == "interrupt" then
      s.write "^C\r\n"
      return nil, "interrupt"
    elseif key == "eof" then
      actions.delete(s)
    elseif actions[key] then
      actions[key](s)
    end
    draw(s)
  end
end

return M
