require "spec.helper"
local tide = require "tide"
local files = tide.io

local folder

setup(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(os.execute("mkdir " .. folder))
end)

teardown(function() os.execute("rm -rf " .. folder) end)

local function path(name) return folder .. "/" .. name end

local function write(name, bytes)
  local f = assert(io.open(path(name), "wb"))
  f:write(bytes)
  f:close()
  return path(name)
end

local function read(name)
  local f = assert(io.open(path(name), "rb"))
  local bytes = f:read "*a"
  f:close()
  return bytes
end

local function gzip(name)
  os.execute(("gzip -nf %s"):format(path(name)))
  return path(name .. ".gz")
end

local function unhex(s)
  return (s:gsub("%x%x", function(h) return string.char(tonumber(h, 16)) end))
end

-- n as `count` bytes, most significant first.
local function big(n, count)
  local bytes = {}
  for i = count, 1, -1 do bytes[i], n = string.char(n % 256), math.floor(n / 256) end
  return table.concat(bytes)
end

local function little(n, count) return (big(n, count):reverse()) end

local function shape(t) return table.concat(t.shape, "×") end

local function same(expected, t)
  assert.equal(shape(expected), shape(t))
  assert.equal(expected.dtype, t.dtype)
  assert.equal(expected:tobytes(), t:tobytes())
end

-- `load` refuses the bytes with a message that names the file and contains every pattern.
local function refused(load, bytes, ...)
  local file = write("bad", bytes)
  local result, message = load(file)
  assert.is_nil(result)
  assert.truthy(message:find(file, 1, true), message)
  for _, pattern in ipairs {...} do assert.truthy(message:find(pattern), message) end
end

-- Every beginning of a good file is refused, and nothing leaks.
local function refuses_every_cut(load, bytes, step)
  collectgarbage() collectgarbage()
  local before = tide.memory().live
  for n = 0, #bytes - 1, step or 1 do refused(load, bytes:sub(1, n)) end
  collectgarbage() collectgarbage()
  assert.equal(before, tide.memory().live)
end

-- Any byte changed: an answer, whichever, and no leak.
local function survives_every_change(load, bytes)
  collectgarbage() collectgarbage()
  local before = tide.memory().live
  for n = 1, #bytes do
    for _, byte in ipairs {0, 255, (bytes:byte(n) + 1) % 256} do
      local t, message = load(write("changed", bytes:sub(1, n - 1) .. string.char(byte)
        .. bytes:sub(n + 1)))
      assert.truthy(t or message)
    end
  end
  collectgarbage() collectgarbage()
  assert.equal(before, tide.memory().live)
end

local function sample(dtype) return tide.tensor({{1, 2, 3}, {4, 5, 250}}, dtype) end

local dtypes = {"float32", "float64", "int64", "uint8"}

describe("any file", function()
  it("that cannot be opened gives nil and the reason", function()
    for _, load in pairs {files.load_npy, files.load_safetensors, files.read_png,
        files.read_idx, files.read_cifar10, files.read_cifar100, files.list_folder} do
      local t, message = load(path "absent")
      assert.is_nil(t)
      assert.truthy(message:find "absent.*No such file")
    end
  end)

  it("that is a folder or a device is refused", function()
    local t, message = files.load_npy(folder)
    assert.is_nil(t)
    assert.truthy(message:find "expected a regular file, found a folder")
    assert.is_nil((files.load_safetensors "/dev/zero"))
  end)

  it("raises when its path is none", function()
    assert.error_matches(function() files.load_npy(3) end, "load_npy: the path is the number 3")
    assert.error_matches(function() files.read_png() end, "read_png: the path is nothing")
    assert.error_matches(function() files.read_idx "" end, "read_idx: the path is an empty")
    assert.error_matches(function() files.read_idx "a\0b" end, "zero byte")
  end)

  it("stays as it was when writing fails", function()
    local ok, message = files.save_npy(path "no/such/folder.npy", sample "uint8")
    assert.is_nil(ok)
    assert.truthy(message:find "cannot be written")
    assert.is_nil((files.save_npy(folder, sample "uint8")))
    assert.is_nil((files.save_npy("/dev/null", sample "uint8")))
  end)

  it("is replaced in one step, through a link too, and leaves nothing beside it", function()
    os.execute("mkdir " .. path "new")
    write("new/real.npy", "old")
    os.execute(("ln -s real.npy %s"):format(path "new/link.npy"))
    assert.truthy(files.save_npy(path "new/link.npy", sample "int64"))
    same(sample "int64", files.load_npy(path "new/real.npy"))
    assert.same({"link.npy", "real.npy"}, (files.list_folder(path "new")))
  end)
end)

describe("npy", function()
  it("gives back every element type, shape and view", function()
    for _, dtype in ipairs(dtypes) do
      for _, t in ipairs {sample(dtype), sample(dtype):permute(2, 1), tide.zeros({0, 3}, dtype),
          tide.tensor(7, dtype), tide.ones({1, 1, 1, 1, 1, 1, 1, 2}, dtype)} do
        assert.is_true(files.save_npy(path "a.npy", t))
        same(t:contiguous(), files.load_npy(path "a.npy"))
      end
    end
  end)

  local function npy(descr, order, dims, data, version)
    local header = ("{'descr': %s, 'fortran_order': %s, 'shape': %s, }\n"):format(descr, order,
      dims)
    version = version or 1
    return "\147NUMPY" .. string.char(version, 0) .. little(#header, version == 1 and 2 or 4)
      .. header .. data
  end
  local function load(bytes) return files.load_npy(write("a.npy", bytes)) end

  it("reads other integers, halves, byte orders and versions", function()
    same(tide.tensor({-2, 258}, "int64"), load(npy("'<i2'", "False", "(2,)", "\254\255\2\1")))
    same(tide.tensor({-257, 513}, "int64"), load(npy("'>i2'", "False", "(2,)", "\254\255\2\1")))
    same(tide.tensor({65534, 258}, "int64"), load(npy("'<u2'", "False", "(2,)", "\254\255\2\1", 2)))
    same(tide.tensor({-1, 5}, "int64"), load(npy("'|i1'", "False", "(2,)", "\255\5", 3)))
    same(tide.tensor({1, 0}, "uint8"), load(npy("'|b1'", "False", "(2,)", "\9\0")))
    same(tide.tensor({1.5, -2 ^ -24}, "float32"), load(npy("'<f2'", "False", "(2,)",
      "\0\62\1\128")))
    same(tide.tensor({math.huge}, "float32"), load(npy('">f2"', "False", "(1,)", "\124\0")))
    same(tide.tensor({1}, "float64"), load(npy("'>f8'", "False", "(1,)", "\63\240\0\0\0\0\0\0")))
  end)

  it("turns Fortran order into rows", function()
    same(tide.tensor({{1, 3, 5}, {2, 4, 6}}, "uint8"),
      load(npy("'|u1'", "True", "(2, 3)", "\1\2\3\4\5\6")))
  end)

  it("refuses what is no array of numbers", function()
    local f = files.load_npy
    refused(f, "", "not an .npy file")
    refused(f, "\137NUMPY\1\0\0\0", "not an .npy file")
    refused(f, "\147NUMPY\4\0\0\0\0\0", "version")
    refused(f, "\147NUMPY\2\0\255\255\255\255{}", "header of 4294967295 bytes, found 2")
    refused(f, npy("'|O'", "False", "()", ""), "found '|O'")
    refused(f, npy("'<U5'", "False", "()", ""), "found '<U5'")
    refused(f, npy("'<c8'", "False", "()", "12345678"), "found '<c8'")
    refused(f, npy("[('a', '<f4')]", "False", "()", "1234"), "records")
    refused(f, npy("'<f4'", "False", "(-1,)", "1234"), "whole number")
    refused(f, npy("'<f4'", "False", "(1)", "1234"), "expected ','")
    refused(f, npy("'<f4'", "Maybe", "(1,)", "1234"), "True or False")
    refused(f, npy("'<f4'", "False", "(2,)", "1234"),
      "expected 8 bytes for 2 elements of 4 bytes, found 4")
    refused(f, npy("'<f4'", "False", "(1,)", "12345"), "found 5")
    refused(f, npy("'<f4'", "False", "(4294967296, 4294967296)", ""), "multiply to more")
    refused(f, npy("'<f4'", "False", "(9223372036854775807, 0)", ""), "multiply to more")
    refused(f, npy("'<f4'", "False", "(99999999999999999999,)", ""), "2^64")
    refused(f, npy("'|u1'", "False", "(1,1,1,1,1,1,1,1,1)", "1"), "at most 8 dim")
    refused(f, npy("'<u8'", "False", "(1,)", "\255\255\255\255\255\255\255\255"), "below 2%^63")
    refused(f, "\147NUMPY\1\0\2\0{}", "no descr")
    refused(f, "\147NUMPY\1\0\9\0{'a': 1}\n", "found 'a'")
    refused(f, "\147NUMPY\1\0\44\0{'descr':'|u1','descr':'|u1','shape':(1,),  }1",
      "a second 'descr'")
  end)

  it("refuses every cut file and survives every changed one", function()
    files.save_npy(path "good.npy", sample "float32")
    refuses_every_cut(files.load_npy, read "good.npy")
    survives_every_change(files.load_npy, read "good.npy")
  end)
end)

describe("safetensors", function()
  local tensors = function()
    return {w = sample "float32", b = sample "float64", n = sample "int64", x = sample "uint8",
      empty = tide.zeros({0, 2}), scalar = tide.tensor(3), ["é\"\\\n"] = sample "uint8":permute(2,
        1)}
  end
  local function file(header, data)
    return little(#header, 8) .. header .. (data or "")
  end
  local function entry(dtype, dims, from, to)
    return ('{"dtype":"%s","shape":[%s],"data_offsets":[%s,%s]}'):format(dtype, dims, from, to)
  end
  local function one(dtype, dims, data)
    return file('{"a":' .. entry(dtype, dims, 0, #data) .. "}", data)
  end
  local function load(bytes) return files.load_safetensors(write("a.st", bytes)) end

  it("gives back tensors, metadata and names", function()
    local given = tensors()
    assert.is_true(files.save_safetensors(path "a.st", given, {format = "tide",
      ["ü"] = "\"1\"\n"}))
    local got, metadata, names = files.load_safetensors(path "a.st")
    for name, t in pairs(given) do same(t:contiguous(), got[name]) end
    assert.same({format = "tide", ["ü"] = "\"1\"\n"}, metadata)
    assert.same({"b", "empty", "n", "scalar", "w", "x", "é\"\\\n"}, names)
    assert.is_true(files.save_safetensors(path "b.st", {}))
    assert.same({{}, {}, {}}, {files.load_safetensors(path "b.st")})
  end)

  it("writes equal files for equal tables, aligned", function()
    files.save_safetensors(path "a.st", tensors(), {b = "2", a = "1"})
    files.save_safetensors(path "b.st", tensors(), {a = "1", b = "2"})
    local bytes = read "a.st"
    assert.equal(bytes, read "b.st")
    assert.equal(0, (bytes:byte(1) + 256 * bytes:byte(2) + 8) % 64)
    assert.truthy(bytes:find('^........{"__metadata__":{"a":"1","b":"2"}'))
  end)

  it("maps the file: what is changed in memory is not changed there", function()
    files.save_safetensors(path "a.st", {w = sample "float32", v = sample "float32"})
    local before = read "a.st"
    local got = files.load_safetensors(path "a.st")
    assert.is_true(got.w:shares_storage(got.v))
    got.w:fill_(9)
    assert.equal(9, got.w:select(1, 1):select(1, 1):item())
    assert.equal(before, read "a.st")
    os.remove(path "a.st")
    collectgarbage()
    same(sample "float32", got.v)
  end)

  it("reads other element types as the nearest", function()
    same(tide.tensor({1.5, -2}), load(one("F16", 2, "\0\62\0\192")).a)
    same(tide.tensor({1, -2}), load(one("BF16", 2, "\128\63\0\192")).a)
    same(tide.tensor({-2}, "int64"), load(one("I32", 1, "\254\255\255\255")).a)
    same(tide.tensor({4294967294}, "int64"), load(one("U32", 1, "\254\255\255\255")).a)
    same(tide.tensor({-2}, "int64"), load(one("I16", 1, "\254\255")).a)
    same(tide.tensor({65534}, "int64"), load(one("U16", 1, "\254\255")).a)
    same(tide.tensor({-2}, "int64"), load(one("I8", 1, "\254")).a)
    same(tide.tensor({1, 0}, "uint8"), load(one("BOOL", 2, "\1\0")).a)
  end)

  it("reads unaligned tensors and escaped names", function()
    local t = load(file('{"\\u00e9\\ud83d\\ude00\\n":' .. entry("U8", 1, 0, 1) .. ', "b": '
      .. entry("F32", 1, 1, 5) .. '}  ', "\7\0\0\192\63"))
    same(tide.tensor({7}, "uint8"), t["é😀\n"])
    same(tide.tensor({1.5}), t.b)
  end)

  it("refuses wrong headers", function()
    local f = files.load_safetensors
    refused(f, "", "at least 8 bytes, found 0")
    refused(f, "1234567", "found 7")
    refused(f, "\255\255\255\255\255\255\255\255{}", "claims 18446744073709551615 bytes")
    refused(f, little(3, 8) .. "{}", "claims 3 bytes, expected at most 2")
    for _, header in ipairs {"", "[]", " {}", "{", '{"a"}', '{"a":}', '{"a":1}', '{"a":{}}', '{,}',
      "{}x",
        '{"a":' .. entry("U8", 0, 0, 0) .. ",}", '{"a:' .. entry("U8", 0, 0, 0),
        '{"\\x":' .. entry("U8", 0, 0, 0) .. "}", '{"\\u12":' .. entry("U8", 0, 0, 0) .. "}",
        '{"\\ud800":' .. entry("U8", 0, 0, 0) .. "}", '{"\\u0000":' .. entry("U8", 0, 0, 0) .. "}",
        '{"\255":' .. entry("U8", 0, 0, 0) .. "}", '{"\237\160\128":' .. entry("U8", 0, 0, 0)
          .. "}",
        '{"\1":' .. entry("U8", 0, 0, 0) .. "}", '{"a":{"dtype":"U8","shape":[0]}}',
        '{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"U8","more":"U8","shape":[0],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}}',
        '{"a":{"dtype":7,"shape":[0],"data_offsets":[0,0]}}', '{"__metadata__":[]}',
        '{"__metadata__":{"a":1}}', '{"__metadata__":{"a":"1","a":"2"}}',
        '{"__metadata__":{},"__metadata__":{}}', ('['):rep(1000), ('{"a":'):rep(1000)} do
      refused(f, file(header))
    end
  end)

  it("refuses shapes, types and offsets that do not fit", function()
    local f = files.load_safetensors
    refused(f, one("F32", "-1", "1234"), "whole number")
    refused(f, one("F32", "1.0", "1234"), "found '.'")
    refused(f, one("F32", "01", "1234"), "leading zeros")
    refused(f, one("F32", "1e0", "1234"), "found 'e'")
    refused(f, one("F32", 2, "1234"),
      "tensor 'a': expected 8 bytes for 2 elements of type F32, found 4")
    refused(f, one("F8_E5M2", 1, "1"), "found 'F8_E5M2'")
    refused(f, one("U8", "1,1,1,1,1,1,1,1,1", "1"), "at most 8")
    refused(f, one("F32", "4611686018427387904,4", ""), "multiply to more")
    refused(f, one("F32", "0,9223372036854775807", ""), "multiply to more")
    refused(f, one("F32", "18446744073709551616", ""), "2^64")
    refused(f, one("U64", 1, ("\255"):rep(8)), "below 2%^63")
    refused(f, file("{}", "1"), "expected 0 bytes of tensors, found 1")
    refused(f, file('{"a":' .. entry("U8", 2, 0, 2) .. "}", "1"), "only 1 bytes")
    refused(f, file('{"a":' .. entry("U8", 1, 2, 1) .. "}", "12"), "begin at 0")
    refused(f, file('{"a":' .. entry("U8", 1, 1, 2) .. "}", "12"), "begin at 0")
    refused(f, file('{"a":' .. entry("U8", 2, 0, 2) .. ',"b":' .. entry("U8", 2, 1, 3) .. "}",
      "123"), "begin at 2")
    refused(f, file('{"a":' .. entry("U8", 1, 0, 1) .. ',"a":' .. entry("U8", 1, 1, 2) .. "}",
      "12"), "'a' twice")
    refused(f, file('{"a":' .. entry("U8", 1, 0, "18446744073709551615") .. "}", "1"),
      "only 1 bytes")
  end)

  -- The value of each pattern of 16 bits with this many bits of exponent, in order.
  local function values_of(exponent_bits)
    local steps, bias, list = 2 ^ (15 - exponent_bits), 2 ^ (exponent_bits - 1) - 1, {}
    for i = 0, 65535 do
      local e, f = math.floor(i / steps) % 2 ^ exponent_bits, i % steps
      local v = e == 0 and f / steps * 2 ^ (1 - bias) or (1 + f / steps) * 2 ^ (e - bias)
      if e == 2 ^ exponent_bits - 1 then v = f == 0 and math.huge or 0 / 0 end
      list[i + 1] = i < 32768 and v or -v
    end
    return list
  end

  it("stores float32 in 16 bits, rounded to nearest and ties to even", function()
    for dtype, bits in pairs {float16 = 5, bfloat16 = 8} do
      local all = values_of(bits)
      local function stored(list)
        local t = tide.tensor(list, "float32")
        files.save_safetensors(path "h.st", {x = t, n = tide.tensor({7}, "int64")}, nil, {dtype = dtype})
        local got = files.load_safetensors(path "h.st")
        assert.equal(7, got.n:item())
        return got.x:totable()
      end
      for i, v in ipairs(stored(all)) do assert.is_true(v == all[i] or (v ~= v and all[i] ~= all[i])) end
      local greatest = 32768 - 2 ^ (15 - bits)  -- the pattern of infinity
      local between, expected = {}, {}
      for i = 1, greatest - 1, 3 do  -- halfway, a little below and a little above
        local low, high, n = all[i], all[i + 1], #between
        local middle = low + (high - low) / 2
        local near = math.max(middle * 2 ^ -20, 2 ^ -140)
        between[n + 1], between[n + 2], between[n + 3] = middle, middle - near, -(middle + near)
        expected[n + 1], expected[n + 2], expected[n + 3] = i % 2 == 1 and low or high, low, -high
      end
      assert.same(expected, stored(between))
    end
    assert.fails_here(function()
      files.save_safetensors(path "h.st", {w = tide.tensor {1, 65520}}, nil, {dtype = "float16"})
    end, "tensor w", "float16 cannot hold")
    assert.fails_here(function() files.save_safetensors(path "h.st", {}, nil, {dtype = "float8"}) end, "dtype",
      "float8", "bfloat16")
  end)

  it("refuses every cut file and survives every changed one", function()
    files.save_safetensors(path "good.st", {w = sample "float32", x = sample "uint8"}, {k = "v"})
    refuses_every_cut(files.load_safetensors, read "good.st")
    survives_every_change(files.load_safetensors, read "good.st")
  end)

  it("raises on wrong arguments", function()
    local save = files.save_safetensors
    assert.error_matches(function() save(path "a.st") end, "the tensors are nothing")
    assert.error_matches(function() save(path "a.st", {1}) end, "a name is the number 1")
    assert.error_matches(function() save(path "a.st", {a = 1}) end,
      "save_safetensors: a is the number 1")
    assert.error_matches(function() save(path "a.st", {["a\0"] = sample()}) end, "zero byte")
    assert.error_matches(function() save(path "a.st", {["\255"] = sample()}) end, "UTF%-8")
    assert.error_matches(function() save(path "a.st", {__metadata__ = sample()}) end,
      "cannot be named")
    assert.error_matches(function() save(path "a.st", {}, "x") end, "the metadata is the string")
    assert.error_matches(function() save(path "a.st", {}, {a = {}}) end, "a is a table")
  end)
end)

describe("png", function()
  -- Images of one row, written by another program.
  local palette = "89504e470d0a1a0a0000000d4948445200000002000000010103000000ceeced"
    .. "c900000006504c54450a141ec8643277a0b39c0000000a4944415478da637000000042004184bf8e"
    .. "620000000049454e44ae426082"
  local palette_alpha = "89504e470d0a1a0a0000000d4948445200000002000000010103000000ceeced"
    .. "c900000006504c54450a141ec8643277a0b39c0000000274524e53ff00e5b7304a0000000a494441"
    .. "5478da637000000042004184bf8e620000000049454e44ae426082"
  local gray16 = "89504e470d0a1a0a0000000d49484452000000030000000110000000006e1b97"
    .. "2b0000000f4944415478da6360606067ffff1f000335020d994113e80000000049454e44ae426082"
  local bits = "89504e470d0a1a0a0000000d4948445200000003000000010100000000339b29"
    .. "190000000a4944415478da6358000000a200a17105cb410000000049454e44ae426082"

  local function image(h, w, c)
    local bytes = {}
    for i = 1, h * w * c do bytes[i] = string.char(i * 37 % 256) end
    return tide.frombytes(table.concat(bytes), {h, w, c})
  end

  it("gives back 1 to 4 channels", function()
    for c = 1, 4 do
      assert.is_true(files.write_png(path "a.png", image(5, 7, c)))
      same(image(5, 7, c), files.read_png(path "a.png"))
    end
  end)

  it("writes height × width, views, and floats of 0 to 1", function()
    files.write_png(path "a.png", image(5, 7, 1):reshape(5, 7))
    same(image(5, 7, 1), files.read_png(path "a.png"))
    files.write_png(path "a.png", image(5, 7, 3):permute(2, 1, 3))
    same(image(5, 7, 3):permute(2, 1, 3):contiguous(), files.read_png(path "a.png"))
    for _, dtype in ipairs {"float32", "float64"} do
      files.write_png(path "a.png", tide.tensor({{0, 0.5, 1, -3, 7, 0 / 0, math.huge}}, dtype))
      assert.equal("\0\128\255\0\255\0\255", files.read_png(path "a.png"):tobytes())
    end
  end)

  it("expands palettes, transparency, few bits and 16 bits", function()
    local function png(hex) return files.read_png(write("a.png", unhex(hex))) end
    same(tide.tensor({{{10, 20, 30}, {200, 100, 50}}}, "uint8"), png(palette))
    same(tide.tensor({{{10, 20, 30, 255}, {200, 100, 50, 0}}}, "uint8"), png(palette_alpha))
    same(tide.tensor({{{0}, {7}, {255}}}, "uint8"), png(gray16))
    same(tide.tensor({{{255}, {0}, {255}}}, "uint8"), png(bits))
  end)

  it("refuses what is no PNG, and sizes that the file cannot hold", function()
    local f = files.read_png
    refused(f, "", "not a PNG file")
    refused(f, "GIF89a..........", "not a PNG file")
    files.write_png(path "good.png", image(2, 2, 3))
    local good = read "good.png"
    -- the header's checksum is right: 65,536 × 65,536 pixels, and 30,000 × 8,000
    local head = "\137PNG\r\n\26\n\0\0\0\13IHDR"
    refused(f, head .. unhex "00010000000100000802000000" .. unhex "e3e6a7b4" .. good:sub(34),
      "at most 268435456 pixels")
    refused(f, head .. unhex "0000753000001f400802000000" .. unhex "cda17187" .. good:sub(34),
      "bytes for it")
    refused(f, head .. unhex "ffffffff000000010802000000" .. good:sub(30))
    refused(f, good:sub(1, 45) .. "X" .. good:sub(47), "not a readable PNG")
  end)

  it("refuses every cut file and survives every changed one", function()
    files.write_png(path "good.png", image(3, 2, 4))
    refuses_every_cut(files.read_png, read "good.png")
    survives_every_change(files.read_png, read "good.png")
  end)

  it("raises on what is no image", function()
    local save = files.write_png
    assert.error_matches(function() save(path "a.png") end,
      "write_png: the second argument is nothing")
    assert.error_matches(function() save(path "a.png", tide.zeros({2, 2}, "int64")) end,
      "write_png: .*int64")
    assert.error_matches(function() save(path "a.png", tide.zeros({2, 2, 5}, "uint8")) end,
      "got 2×2×5")
    assert.error_matches(function() save(path "a.png", tide.zeros({0, 2}, "uint8")) end, "got 0×2")
    assert.error_matches(function() save(path "a.png", tide.zeros({2}, "uint8")) end, "got 2")
  end)
end)

describe("idx", function()
  local function idx(code, sizes, data)
    local head = "\0\0" .. string.char(code, #sizes)
    for _, n in ipairs(sizes) do head = head .. big(n, 4) end
    return head .. data
  end
  local cases = {
    {idx(8, {2, 1}, "\1\254"), {{1}, {254}}, "uint8"},
    {idx(9, {2}, "\1\254"), {1, -2}, "int64"},
    {idx(11, {2}, "\1\2\255\254"), {258, -2}, "int64"},
    {idx(12, {1}, "\255\255\255\254"), {-2}, "int64"},
    {idx(13, {1}, "\63\192\0\0"), {1.5}, "float32"},
    {idx(14, {1}, "\63\248\0\0\0\0\0\0"), {1.5}, "float64"},
  }

  it("reads every element type, plain and gzip", function()
    for _, case in ipairs(cases) do
      local expected = tide.tensor(case[2], case[3])
      same(expected, files.read_idx(write("a.idx", case[1])))
      same(expected, files.read_idx(gzip "a.idx"))
    end
    same(tide.zeros({0, 5}, "uint8"), files.read_idx(write("a.idx", idx(8, {0, 5}, ""))))
  end)

  it("reads joined gzip streams", function()
    local bytes = idx(8, {300}, ("abc"):rep(100))
    write("a", bytes:sub(1, 5)) write("b", bytes:sub(6))
    gzip "a" gzip "b"
    local joined = write("c.gz", read "a.gz" .. read "b.gz")
    assert.equal(("abc"):rep(100), files.read_idx(joined):tobytes())
  end)

  it("refuses wrong headers and sizes", function()
    local f = files.read_idx
    refused(f, "\0\0\7\1\0\0\0\0", "found 00 00 07")
    refused(f, "\1\0\8\1\0\0\0\0", "not an IDX file")
    refused(f, "\0\0\8\0", "1 to 8 dim")
    refused(f, "\0\0\8\9", "found 9")
    refused(f, idx(8, {3}, "12"), "expected 3 bytes for 3 elements of 1 bytes, found 2")
    refused(f, idx(8, {1}, "12"), "expected the end")
    refused(f, idx(8, {4294967295, 2}, ""), "expected 8589934590 bytes .* found 0")
    refused(f, idx(14, {4294967295, 4294967295, 4294967295}, ""), "multiply to more")
  end)

  it("refuses gzip bombs, damage and what follows a stream", function()
    local f = files.read_idx
    write("bomb", idx(8, {10}, ("\0"):rep(5e6)))
    gzip "bomb"
    refused(f, read "bomb.gz", "expected the end of the data, found more")
    write("liar", idx(8, {4294967295}, ("\0"):rep(100)))
    gzip "liar"
    refused(f, read "liar.gz", "expected 4294967295 bytes")
    write("short", idx(8, {200}, ("\0"):rep(100)))
    gzip "short"
    refused(f, read "short.gz", "expected 200 more bytes, found 100")
    write("a", idx(8, {300}, ("abc"):rep(100)))
    gzip "a"
    local good = read "a.gz"
    refused(f, good .. "x", "1 further bytes")
    refused(f, good:sub(1, -9) .. "abcd" .. good:sub(-4), "damaged")
    refuses_every_cut(f, good)
    survives_every_change(f, good)
  end)

  it("refuses every cut file", function()
    for _, case in ipairs(cases) do refuses_every_cut(files.read_idx, case[1]) end
  end)
end)

describe("cifar", function()
  local function record(head, seed)
    local planes = {}
    for i = 0, 3071 do planes[i + 1] = string.char((seed + i + math.floor(i / 1024) * 50) % 256) end
    return head .. table.concat(planes)
  end

  it("interleaves the planes and reads the labels", function()
    local images, labels = files.read_cifar10(write("a.bin", record("\3", 7) .. record("\9", 8)))
    assert.equal("2×32×32×3", shape(images))
    same(tide.tensor({3, 9}, "int64"), labels)
    local bytes = images:tobytes()
    for _, i in ipairs {0, 1, 31, 32, 1023} do
      for c = 0, 2 do
        for n = 0, 1 do
          assert.equal((7 + n + i + c * 1024 + c * 50) % 256, bytes:byte(n * 3072 + 3 * i + c + 1))
        end
      end
    end
    local fine, coarse
    images, fine, coarse = files.read_cifar100(write("a.bin", record("\19\99", 1)))
    assert.equal("1×32×32×3", shape(images))
    same(tide.tensor({99}, "int64"), fine)
    same(tide.tensor({19}, "int64"), coarse)
  end)

  it("refuses other files", function()
    refused(files.read_cifar10, "", "records of 3073 bytes, found 0")
    refused(files.read_cifar10, record("\10", 1), "labels of 0 to 9, found 10 in record 1")
    refused(files.read_cifar100, record("\20\0", 1), "labels of 0 to 19, found 20")
    refused(files.read_cifar100, record("\0\100", 1), "labels of 0 to 99, found 100")
    refuses_every_cut(files.read_cifar10, record("\1", 1), 7)
    refuses_every_cut(files.read_cifar100, record("\1\1", 1), 7)
  end)
end)

describe("list_folder", function()
  it("gives files and folders, each in order", function()
    os.execute("mkdir -p " .. path "list/b" .. " " .. path "list/a")
    write("list/z", "") write("list/.y", "")
    assert.same({{".y", "z"}, {"a", "b"}}, {files.list_folder(path "list")})
  end)
end)

describe("make_folder", function()
  it("makes what is missing and goes past what is there", function()
    assert.is_true(files.make_folder(path "deep/er/still/"))
    assert.is_true(files.make_folder(path "deep/er"))
    assert.same({{}, {"still"}}, {files.list_folder(path "deep/er")})
  end)

  it("gives a message where a file is in the way", function()
    write("deep/file", "")
    for _, name in ipairs {"deep/file", "deep/file/below"} do
      local ok, why = files.make_folder(path(name))
      assert.is_nil(ok)
      assert.matches(path(name) .. ": cannot be made", why, 1, true)
    end
  end)
end)
