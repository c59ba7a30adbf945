-- The prompt: what a line prints, what stays from line to line, what a pipe gives, and the line editor's
-- keys.

local editor = require "tide.repl.editor"
local repl = require "tide.repl"

describe("a session", function()
  local out, session

  before_each(function()
    out = {}
    session = repl.session(function(text) out[#out + 1] = text end)
  end)

  -- The output of the lines, or the last status and text when it is not "ok".
  local function type_in(...)
    out = {}
    local status, text
    for _, line in ipairs {...} do status, text = session:line(line) end
    if status ~= "ok" then return status, text end
    return table.concat(out)
  end

  it("prints the values of expressions", function()
    assert.are.equal("3\n", type_in "1 + 2")
    assert.are.equal("3\n", type_in "=1 + 2")
    assert.are.equal("1\n2\n", type_in "1, 2 -- a comment")
    assert.are.equal("nil\n", type_in "nothing")
    assert.are.equal("[1., 1.]  (2 float32)\n", type_in "tide.ones(2)")
    assert.are.equal("a\"b\n", type_in "'a\"b'")
  end)

  it("shows what a plain table holds", function()
    local shown = type_in "{1, 2, x = tide.ones(3), s = 'q'}"
    assert.are.equal("{1, 2, s = \"q\", x = tensor(3 float32)}\n", shown)
    assert.are.equal("{}\n", type_in "{}")
    assert.matches("… 10 more", type_in "tide.arange(30):totable()", 1, true)
  end)

  it("prints nothing for statements, calls without results and after a semicolon", function()
    assert.are.equal("", type_in "x = 5")
    assert.are.equal("", type_in "(function() end)()")
    assert.are.equal("", type_in "x + 1;")
    assert.are.equal("", type_in "   ")
  end)

  it("keeps locals from line to line", function()
    type_in "local a, b = 3, 4"
    assert.are.equal("7\n", type_in "a + b")
    type_in "local function f(x) return x * a end"
    assert.are.equal("6\n", type_in "f(2)")
    assert.is_nil(rawget(_G, "a"))
  end)

  it("keeps globals to itself", function()
    type_in "made_at_the_prompt = 1"
    assert.are.equal("1\n", type_in "made_at_the_prompt")
    assert.is_nil(rawget(_G, "made_at_the_prompt"))
  end)

  it("knows the last value as _", function()
    type_in "21"
    assert.are.equal("42\n", type_in "_ * 2")
  end)

  it("knows the parts of tide", function()
    assert.are.equal("Linear(2 → 3)  9 parameters\n", type_in "nn.Linear(2, 3)")
    for part in ("tide nn optim ode implicit diffusion linalg plot data"):gmatch "%a+" do
      assert.are.equal("table\n", type_in("type(" .. part .. ")"))
    end
    assert.matches("help(x) explains", type_in "help", 1, true)
  end)

  it("goes on over incomplete lines", function()
    assert.are.equal("more", (type_in "for i = 1, 2 do"))
    assert.are.equal("", type_in "last = i end")
    assert.are.equal("2\n", type_in "last")
    assert.are.equal("more", (type_in "x ="))
    assert.are.equal("", type_in "4")
    assert.are.equal("more", (type_in "{1,"))
    assert.are.equal("{1, 2}\n", type_in "2}")
    assert.are.equal("more", (type_in "s = [["))
    assert.are.equal("", type_in "a]]")
    assert.are.equal("more", (type_in "1 +"))
    assert.are.equal("3\n", type_in "2")
  end)

  it("gives errors with their line, and goes on", function()
    local status, text = type_in "tide.ones(2, 3):matmul(tide.ones(4, 5))"
    assert.are.equal("error", status)
    assert.are.equal("prompt:1: matmul: inner sizes differ: (2×3)·(4×5)", text)
    status, text = type_in "x = = 2"
    assert.are.equal("error", status)
    assert.matches("prompt:1:", text, 1, true)
    status, text = type_in "error({})"
    assert.are.equal("error", status)
    assert.are.equal("error: (a table)", text)
    assert.are.equal("2\n", type_in "1 + 1")
  end)

  it("traces the user's own functions, and none of tide's", function()
    type_in "function g(x) local y = x.y.z return y end"
    type_in "function f(x) local r = g(x) return r end"
    local _, text = type_in "f {}"
    assert.matches("in function 'g'", text, 1, true)
    assert.matches("in function 'f'", text, 1, true)
    assert.is_nil(text:find("repl.lua", 1, true))
  end)

  it("records again after an error inside no_grad", function()
    type_in "tide.no_grad(function() error 'x' end)"
    assert.are.equal("true\n", type_in "tide.is_grad_enabled()")
  end)
end)

describe("bin/tide with a pipe", function()
  local function piped(input)
    local name = os.tmpname()
    local f = assert(io.open(name, "w"))
    f:write(input)
    f:close()
    local pipe = assert(io.popen(("bin/tide < %s 2>&1; echo status $?"):format(name)))
    local text = pipe:read "*a"
    pipe:close()
    os.remove(name)
    local body, status = text:match "^(.*)status (%d+)\n$"
    return body, tonumber(status)
  end

  it("prints what the lines print, and nothing else", function()
    local text, status = piped "print(tide.ones(2))\nlocal a = 2\na * 3\n"
    assert.are.equal("[1., 1.]  (2 float32)\n6\n", text)
    assert.are.equal(0, status)
  end)

  it("ends with status 1 at the first error", function()
    local text, status = piped "1\nnil_value.x = 1\n2\n"
    assert.matches("^1\nprompt:1: attempt to index", text)
    assert.is_nil(text:find "\n2\n")
    assert.are.equal(1, status)
  end)

  it("says so when the input ends inside a statement", function()
    local text, status = piped "for i = 1, 2 do\n"
    assert.matches("ended inside a statement", text, 1, true)
    assert.are.equal(1, status)
  end)
end)

describe("the line editor", function()
  local ESC = "\27["
  local UP, DOWN, LEFT = ESC .. "A", ESC .. "B", ESC .. "D"
  local HOME, END, DELETE = ESC .. "H", ESC .. "F", ESC .. "3~"

  -- The line (or nil and why) that these bytes give.
  local function typed(bytes, history, columns)
    local at, written = 0, {}
    local terminal = {
      columns = columns,
      read = function()
        at = at + 1
        return at <= #bytes and bytes:sub(at, at) or nil
      end,
      write = function(text) written[#written + 1] = text end,
    }
    local line, why = editor.read("> ", history or {}, terminal)
    return line, why, table.concat(written)
  end

  it("reads a line", function()
    assert.are.equal("abc", (typed "abc\r"))
    assert.are.equal("äöü", (typed "äöü\n"))
    assert.are.equal("", (typed "\r"))
  end)

  it("moves and deletes", function()
    assert.are.equal("axb", (typed("ab" .. LEFT .. "x\r")))
    assert.are.equal("xab", (typed("ab" .. HOME .. "x\r")))
    assert.are.equal("abx", (typed("ab\1" .. END .. "x\r")))
    assert.are.equal("b", (typed("ab" .. HOME .. DELETE .. "\r")))
    assert.are.equal("a", (typed "ab\127\r"))
    assert.are.equal("ö", (typed "öä\127\r"))
    assert.are.equal("a", (typed("abc\1\6\11\r")))
    assert.are.equal("c", (typed("abc" .. LEFT .. "\21\r")))
    assert.are.equal("a ", (typed "a bc\23\r"))
    assert.are.equal("ac", (typed("abc\1\6\4\r")))
  end)

  it("recalls the history and keeps what was being written", function()
    local history = {"one", "two"}
    assert.are.equal("two", (typed(UP .. "\r", history)))
    assert.are.equal("one", (typed(UP .. UP .. UP .. "\r", history)))
    assert.are.equal("new", (typed("new" .. UP .. DOWN .. "\r", history)))
    assert.are.equal("two!", (typed(UP .. "!\r", history)))
    assert.are.same({"one", "two"}, history)
  end)

  it("ends at Ctrl-D on an empty line and at the end of input, and drops a line at Ctrl-C", function()
    local line, why = typed "\4"
    assert.is_nil(line)
    assert.are.equal("eof", why)
    assert.are.equal("eof", select(2, typed "abc"))
    assert.are.equal("interrupt", select(2, typed "abc\3"))
  end)

  it("shows a window of a line that is longer than the terminal", function()
    local line, _, written = typed(("x"):rep(50) .. "y\r", {}, 20)
    assert.are.equal(("x"):rep(50) .. "y", line)
    for shown in written:gmatch "> (x*)" do assert.is_true(#shown <= 20) end
  end)

  it("passes over keys that it does not know", function()
    assert.are.equal("ab", (typed("a" .. ESC .. "5~\27[1;5Cb\r")))
  end)
end)
