-- The documentation is complete, its examples run, and what is generated from it is up to date.

local doctest = require "spec.support.doctest"
local entries = require "tide.help.entries"
local public = require "tide.help.public"
local tide = require "tide"

local function content(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read "*a"
  f:close()
  return text
end

local function each_entry(visit)
  for _, part in ipairs(entries.all().parts) do
    for _, section in ipairs(part.sections) do
      for _, entry in ipairs(section.entries) do visit(entry, section, part) end
    end
  end
end

-- The sorted names of a set for which wanted(name) holds.
local function names_where(set, wanted)
  local list = {}
  for name in pairs(set) do
    if wanted(name) then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

describe("doc/api", function()
  local all, names = entries.all(), public(tide)

  it("describes every public function, method and class", function()
    local function undocumented(name) return not all.by_name[name] and not all.internal[name] end
    assert.are.same({}, names_where(names, undocumented))
  end)

  it("describes nothing that does not exist", function()
    local function absent(name)
      local kind = all.by_name[name].kind
      if kind == "property" then return false end  -- tested below
      return names[name] == nil
    end
    assert.are.same({}, names_where(all.by_name, absent))
    assert.are.same({}, names_where(all.internal, function(name) return names[name] == nil end))
  end)

  it("names properties that tensors have", function()
    local x = tide.ones(2):requires_grad()
    x:sum():backward()
    each_entry(function(entry)
      if entry.class == "Tensor" and entry.kind == "property" then
        assert.is_not_nil(x[entry.last], entry.name)
      end
    end)
  end)

  it("says a sentence of each, and knows every type it names", function()
    local plain = {
      number = true, integer = true, string = true, boolean = true, table = true, ["function"] = true,
      any = true, options = true, ["nil"] = true,
    }
    local function check(entry, kind)
      for one in kind:gsub("^%.%.%.", ""):gmatch "[^|]+" do
        local known = plain[one] or all.types[one]
        local base = one
        while not known and base:match "%[%]$" do
          base = base:sub(1, -3)
          known = plain[base] or all.types[base]
        end
        assert.is_truthy(known or one == "string?", ("%s: unknown type %q"):format(entry.name, one))
      end
    end
    each_entry(function(entry)
      assert.is_truthy(entry.text and #entry.text > 3, entry.name .. ": no sentence")
      for _, p in ipairs(entry.params or {}) do check(entry, p.type) end
      for _, p in ipairs(entry.options or {}) do check(entry, p.type) end
      for _, p in ipairs(entry.fields or {}) do check(entry, p.type) end
      for _, kind in ipairs(entry.results or {}) do check(entry, kind:gsub("%?$", "")) end
      local takes_options = false
      for _, p in ipairs(entry.params or {}) do takes_options = takes_options or p.type == "options" end
      assert.are.equal(takes_options, entry.options ~= nil, entry.name .. ": options and their list")
      for name in pairs(entry.args) do
        local found = false
        for _, p in ipairs(entry.params or {}) do found = found or p.name == name end
        assert.is_true(found, ("%s: no argument %q"):format(entry.name, name))
      end
    end)
  end)

  it("has examples that run and print what they say", function()
    local problems = {}
    each_entry(function(entry)
      if not entry.example then return end
      local ok, message = pcall(doctest.run, entry.example, entry.name)
      if not ok then problems[#problems + 1] = entry.name .. ": " .. message end
    end)
    assert.are.equal("", table.concat(problems, "\n"))
  end)
end)

describe("the generated files", function()
  local make = assert(loadfile "doc/make.lua")

  it("are up to date (else: bin/tide doc/make.lua)", function()
    for path, text in pairs(make "texts") do
      assert.is_true(text == content(path), path .. " is out of date: run bin/tide doc/make.lua")
    end
  end)

  it("hold annotations that are Lua", function()
    assert(loadfile "doc/types/tide.lua")
  end)
end)

describe("the manual", function()
  for _, path in ipairs {"doc/manual.md", "README.md"} do
    it(path .. " has blocks that run", function()
      local problems = {}
      for _, block in ipairs(doctest.blocks(content(path))) do
        local padded = ("\n"):rep(block.line - 1) .. block.code
        local ok, message = pcall(doctest.run, padded, path)
        if not ok then problems[#problems + 1] = message end
      end
      assert.are.equal("", table.concat(problems, "\n"))
    end)
  end
end)

describe("tide.help", function()
  local help = tide.help

  it("finds an entry by name, in full, without its part, and as a method", function()
    assert.matches("tide.matmul", help.text "matmul", 1, true)
    assert.matches("tide.nn.Linear(", help.text "nn.Linear", 1, true)
    assert.matches("tide.nn.Linear(", help.text "Linear", 1, true)
    assert.matches("tide.nn.Linear(", help.text "tide.nn.linear", 1, true)
    assert.matches("x:backward(", help.text "backward", 1, true)
    assert.matches("tide.add(", help.text "add_", 1, true)
  end)

  it("finds an entry by the thing itself", function()
    assert.matches("tide.ode.solve(", help.text(tide.ode.solve), 1, true)
    assert.matches("tide.sum(", help.text(tide.zeros(1).sum), 1, true)
    assert.matches("tide.nn.Conv2d(", help.text(tide.nn.Conv2d), 1, true)
    assert.matches("tide.nn.Linear(", help.text(tide.nn.Linear(2, 3)), 1, true)
    assert.matches("tide.optim.Adam(", help.text(tide.optim.Adam {tide.ones(1):requires_grad()}), 1, true)
    assert.matches("x.shape", help.text "shape", 1, true)
    assert.matches("see also .*ode.solve", help.text "solve")
    assert.matches("linalg.cholesky_solve", help.text(tide.linalg), 1, true)
    assert.matches("diffusion.sample", help.text(tide.diffusion), 1, true)
    assert.matches("Loader", help.text "data", 1, true)
  end)

  it("suggests the nearest names for an unknown one", function()
    assert.matches("matmul", help.text "matmull", 1, true)
    assert.matches("ode.solve", help.text "ode.solv", 1, true)
    assert.matches("nothing is called", help.text "xyzzyplugh", 1, true)
  end)

  it("gives an overview, and a part's functions", function()
    assert.matches("tide.nn: ", help.text(), 1, true)
    assert.matches("optim.Adam", help.text(tide.optim), 1, true)
    assert.matches("optim.Adam", help.text "optim", 1, true)
  end)

  it("has a text for every entry", function()
    each_entry(function(entry) assert.is_truthy(#help.text(entry.name) > 10, entry.name) end)
  end)
end)
