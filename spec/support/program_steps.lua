-- The steps that a random program is made of (spec/support/programs.lua): draws[name](p) adds one to p, brings its
-- operands into the range where the operation is well-behaved, and gives the number of its result, or nil when nothing
-- fits.

local tide = require "tide"

local function is_real(x) return x.dtype == "float32" or x.dtype == "float64" end

local function text_of(a)
  if type(a) ~= "table" then return tostring(a) end
  local parts = {}
  for k, v in pairs(a) do parts[#parts + 1] = (type(k) == "number" and "" or k .. "=") .. text_of(v) end
  return "{" .. table.concat(parts, ",") .. "}"
end

local draws, names = {}, {}

-- A value brought into the range where an operation is well-behaved.
local function positive(p, a) return p:step("square(%s) + 0.3", {a}, function(x) return x:square() + 0.3 end) or a end
local function bounded(p, a) return p:step("tanh(%s) * 0.9", {a}, function(x) return x:tanh() * 0.9 end) or a end

local unary = {exp = bounded, expm1 = bounded, log = positive, log1p = positive, log2 = positive, log10 = positive,
  sqrt = positive, rsqrt = positive, reciprocal = positive, tan = bounded, asin = bounded, acos = bounded,
  sinh = bounded, cosh = bounded}
for name, o in pairs(tide.operations()) do
  local first, rest = o.signature:match "^(%w+)(.*)$"
  if o.elementwise and first == "x" and rest == "" then
    draws[name] = function(p)
      local a = p:real()
      return p:call(name, unary[name] and unary[name](p, a) or a)
    end
  end
end

-- A second operand that broadcasts with a: a value, a part of a's shape, or a number.
local function partner(p, a)
  local x = p.values[a]
  local k = p:draw(10)
  if k <= 5 then
    local other = p:find(function(y)
      for i = 0, math.min(x.ndim, y.ndim) - 1 do
        local m, n = x.shape[x.ndim - i], y.shape[y.ndim - i]
        if m ~= n and m ~= 1 and n ~= 1 then return false end
      end
      return true
    end)
    if other then return other end
  end
  local shape = {}
  for i = p:draw(x.ndim + 1), x.ndim do shape[#shape + 1] = p:chance(25) and 1 or x.shape[i] end
  return p:given(shape, p:chance(10) and p:pick {"float32", "float64", "int64", "uint8"} or nil)
end

local function binary(name, second)
  draws[name] = function(p)
    local a = p:real()
    if p:chance(25) and not second then
      local k = p:pick {0, 1, 2, 0.5, -1.5, 3}
      if p:chance(50) then
        return p:step(("%s(%s, %%s)"):format(name, k), {a}, function(x) return tide[name](k, x) end)
      end
      return p:call(name, a, k)
    end
    local b = partner(p, a)
    if p:chance(30) and not second then a, b = b, a end
    return p:call(name, {a, second and second(p, b) or b})
  end
end
for _, name in ipairs {"add", "sub", "mul", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge", "logical_and",
  "logical_or", "logical_xor", "relu_grad", "silu_grad", "gelu_grad", "gelu_tanh_grad"} do
  binary(name)
end
for _, name in ipairs {"div", "atan2", "floor_div", "mod"} do binary(name, positive) end
function draws.pow(p)
  local a = p:real()
  if p:chance(50) then return p:call("pow", a, p:pick {0, 1, 2, 3}) end
  a = positive(p, a)
  local k = p:pick {0.5, -1, 1.5, 3, 2}
  if p:chance(50) then return p:call("pow", a, k) end
  return p:call("pow", {a, bounded(p, partner(p, a))})
end
function draws.where(p)
  local a = p:real()
  local b = partner(p, a)
  local c = p:call("gt", {a, b})
  return c and p:call("where", {c, a, b})
end
function draws.fma(p)
  local a = p:real()
  local b = p:call("add", {a, partner(p, a)}) or a
  return p:call("fma", {a, b, partner(p, b)})
end
function draws.clamp(p) return p:call("clamp", p:real(), -0.7, 0.6) end
function draws.lincomb(p)
  local a = p:real()
  local x = p:given(p.values[a].shape, p.values[a].dtype)
  local k = p:given({2}, "float64", true)
  return p:step("lincomb({%s, %s}, %s)", {a, x, k}, function(u, v, w) return tide.lincomb({w, u, v}) end)
end

-- Views.
local function dim(p, a) return p:draw(p.values[a].ndim) * p:pick {1, 1, 1} end
local function at_least(n) return function(x) return x.ndim >= n end end
local function any(p, n) return p:find(at_least(n)) or p:given({2, 3, 2}) end

function draws.transpose(p)
  local a = any(p, 2)
  return p:call("transpose", a, dim(p, a), dim(p, a))
end
function draws.permute(p)
  local a = any(p, 2)
  local order, n = {}, p.values[a].ndim
  for i = 1, n do order[i] = i end
  for i = n, 2, -1 do
    local j = p:draw(i)
    order[i], order[j] = order[j], order[i]
  end
  return p:call("permute", a, order)
end
function draws.reshape(p)
  local a = any(p, 0)
  local x = p.values[a]
  if x.numel == 0 then return nil end
  local shape, left = {}, x.numel
  for k = 2, 5 do
    if left % k == 0 and p:chance(60) then shape[#shape + 1], left = k, left / k end
  end
  table.insert(shape, p:draw(#shape + 1), left)
  return p:call("reshape", a, shape)
end
function draws.expand(p)
  local a = any(p, 0)
  local shape = {}
  for i, s in ipairs(p.values[a].shape) do shape[i] = s == 1 and p:draw(3) or s end
  if #shape < 4 and p:chance(60) then table.insert(shape, 1, p:draw(3)) end
  p.expanded[p.root[a]] = true
  return p:call("expand", a, shape)
end
function draws.narrow(p)
  local a = any(p, 1)
  local d = dim(p, a)
  local size = p.values[a].shape[d]
  if size == 0 then return nil end
  local step = p:draw(2)
  local start = p:draw(size)
  return p:call("narrow", a, d, start, p:draw(math.floor((size - start) / step) + 1), step)
end
function draws.select(p)
  local a = any(p, 1)
  local d = dim(p, a)
  local size = p.values[a].shape[d]
  if size == 0 then return nil end
  return p:call("select", a, d, p:chance(30) and -p:draw(size) or p:draw(size))
end
function draws.unsqueeze(p)
  local a = any(p, 0)
  return p.values[a].ndim < 5 and p:call("unsqueeze", a, p:draw(p.values[a].ndim + 1)) or nil
end
function draws.squeeze(p) return p:call("squeeze", any(p, 0)) end
function draws.index(p)
  local a = any(p, 2)
  local x = p.values[a]
  if x.shape[1] == 0 or x.shape[2] == 0 then return nil end
  local at = {p:chance(50) and {} or p:draw(x.shape[1]), {p:draw(x.shape[2]), x.shape[2]}}
  return p:step("%s[" .. text_of(at) .. "]", {a}, function(v) return v[at] end)
end
for _, name in ipairs {"contiguous", "clone", "flip"} do
  draws[name] = function(p) return p:call(name, any(p, 1)) end
end

-- Moving and joining.
function draws.cat(p)
  local a = p:real(at_least(1))
  if p.values[a].ndim == 0 then return nil end
  local d, shape = dim(p, a), {unpack(p.values[a].shape)}
  shape[d] = p:draw(3)
  local b = p:given(shape, p.values[a].dtype)
  return p:step(("cat({%%s, %%s}, %d)"):format(d), {a, b}, function(x, y) return tide.cat({x, y, x}, d) end)
end
function draws.stack(p)
  local a = p:real()
  local shape = p.values[a].shape
  local b = p:find(function(y) return is_real(y) and y.dtype == p.values[a].dtype
    and table.concat(y.shape, ",") == table.concat(shape, ",") end)
  local d = p:draw(#shape + 1)
  return p:step(("stack({%%s, %%s}, %d)"):format(d), {a, b}, function(x, y) return tide.stack({x, y}, d) end)
end
local function positions(p, shape, size)
  local n = p:given({1}, "int64", true)
  local list = p.origin[n].list
  local x = p.generator:randint(1, size, shape)
  p[list][p.origin[n].place], p.values[n] = x, x
  return n
end
local function wide(p, n)
  return p:real(function(x)
    if x.ndim < n then return false end
    for _, s in ipairs(x.shape) do if s == 0 then return false end end
    return true
  end)
end
function draws.index_select(p)
  local a = wide(p, 1)
  if p.values[a].ndim == 0 or p.values[a].numel == 0 then return nil end
  local d = dim(p, a)
  return p:call("index_select", {a, positions(p, {p:draw(4)}, p.values[a].shape[d])}, d)
end
function draws.index_add(p)
  local a = wide(p, 1)
  if p.values[a].ndim == 0 or p.values[a].numel == 0 then return nil end
  local d = dim(p, a)
  return p:call("index_add", {a, positions(p, {p.values[a].shape[d]}, 3)}, d, 3)
end
function draws.gather(p)
  local a = wide(p, 1)
  local x = p.values[a]
  if x.ndim == 0 or x.numel == 0 then return nil end
  local d, shape = dim(p, a), {unpack(x.shape)}
  shape[d] = p:draw(3)
  return p:call("gather", {a, positions(p, shape, x.shape[d])}, d)
end
function draws.scatter_add(p)
  local a = wide(p, 1)
  local x = p.values[a]
  if x.ndim == 0 or x.numel == 0 then return nil end
  local d = dim(p, a)
  return p:call("scatter_add", {a, positions(p, x.shape, 4)}, d, 4)
end
function draws.to(p)
  return p:call("to", any(p, 0), p:pick {"float32", "float64", "float64", "int64"})
end

-- Reductions.
local function dims(p, a)
  local n = p.values[a].ndim
  if n == 0 or p:chance(30) then return nil end
  if n > 1 and p:chance(30) then return {1, n} end
  return dim(p, a)
end
for _, name in ipairs {"sum", "sum", "mean", "prod", "norm", "logsumexp", "max", "min", "var"} do
  draws[name] = function(p)
    local a = wide(p, 0)
    if p.values[a].numel < 2 then return nil end
    return p:call(name, a, dims(p, a), p:chance(40))
  end
end
for _, name in ipairs {"cumsum", "softmax", "log_softmax", "sort", "argmax"} do
  draws[name] = function(p)
    local a = wide(p, 1)
    if p.values[a].ndim == 0 or p.values[a].numel == 0 then return nil end
    if name == "cumsum" then return p:call(name, a, dim(p, a), p:chance(30)) end
    return p:call(name, a, dim(p, a))
  end
end

-- Products, images, norms, attention.
function draws.matmul(p)
  local a = wide(p, 1)
  local x = p.values[a]
  if x.ndim == 0 then return nil end
  local k = x.shape[x.ndim]
  local other = p:chance(40) and p:real(function(y)
    return y.dtype == x.dtype and y.ndim == 2 and y.shape[1] == k
  end)
  if not other or p.values[other].ndim ~= 2 or p.values[other].shape[1] ~= k or p.values[other].dtype ~= x.dtype then
    other = p:given({k, p:pick(p.sizes)}, x.dtype)
  end
  local y = p:call("matmul", {a, other})
  return y and p:step("%s / " .. k, {y}, function(v) return v / k end)
end
function draws.gram(p)
  local a = wide(p, 2)
  if p.values[a].ndim < 2 then return nil end
  return p:step("%s @ %s^T", {a}, function(x) return x:matmul(x:transpose(-2, -1)) / 4 end)
end

-- An image N×H×W×C made of a value, or a new one.
local function image(p)
  local a = p:real(function(x) return x.ndim == 4 and x.dtype == p.dtype and x.numel > 0 end)
  if p.values[a].ndim == 4 and p.values[a].numel > 0 and p.values[a].dtype == p.dtype then return a end
  return p:given({p:draw(2), p:draw(4) + 2, p:draw(4) + 2, p:pick {1, 2, 4, 16}})
end
function draws.conv2d(p)
  local a = image(p)
  local x = p.values[a]
  local k, c = p:pick {1, 3, 3}, x.shape[4]
  local groups = c % 2 == 0 and p:pick {1, 1, 2, c} or 1
  local out = groups * p:pick {1, 2, 16 / math.min(groups, 16)}
  local w = p:given({k, k, c / groups, out})
  local o = {padding = k == 3 and p:draw(2) or 0, stride = p:draw(2), groups = groups}
  if math.min(x.shape[2], x.shape[3]) + 2 * o.padding < k then return nil end
  local y = p:chance(50) and p:call("conv2d", {a, w, p:given({out})}, o) or p:call("conv2d", {a, w}, o)
  if y and p:chance(60) then return p:call(p:pick {"relu", "silu", "gelu", "tanh", "sigmoid"}, y) end
end
function draws.group_norm(p)
  local a = p:real(at_least(2))
  local x = p.values[a]
  if x.ndim < 2 or x.numel / math.max(x.shape[1], 1) < 4 then return nil end
  local c = x.shape[x.ndim]
  local o = {groups = c % 2 == 0 and p:draw(2) or 1, eps = 0.1, rows = p:chance(30) and c > 3 or nil}
  local args = p:chance(60) and {a, p:given({c}, x.dtype), p:given({c}, x.dtype)} or {a}
  local y = p:step("group_norm(%s " .. text_of(o) .. ")", args, function(...)
    local list = {...}
    list[#list + 1] = o
    return (tide.group_norm(unpack(list)))
  end)
  if y and p:chance(60) then return p:call(p:pick {"relu", "silu", "gelu", "tanh", "sigmoid"}, y) end
end
function draws.channel_norm(p)
  local a = p:real(at_least(2))
  local x = p.values[a]
  if x.ndim < 2 or x.numel / math.max(x.shape[x.ndim], 1) < 4 then return nil end
  local c = x.shape[x.ndim]
  local y = p:call("channel_norm", {a, p:given({c}, x.dtype), p:given({c}, x.dtype)}, {eps = 0.1})
  if y and p:chance(60) then return p:call(p:pick {"relu", "silu"}, y) end
end
function draws.pool(p)
  local a = image(p)
  if math.min(p.values[a].shape[2], p.values[a].shape[3]) < 2 then return nil end
  return p:call(p:pick {"max_pool2d", "avg_pool2d"}, a, 2)
end
for _, name in ipairs {"upsample_nearest", "upsample_bilinear", "adaptive_avg_pool2d"} do
  draws[name] = function(p) return p:call(name, image(p), {p:draw(5), p:draw(5)}) end
end
function draws.attention(p)
  local n, h, s, c = p:draw(2), p:draw(2), p:draw(5), p:pick {2, 4, 8}
  local q, k = p:given({n, s, h, c}), p:given({n, s + 1, h, c})
  if p:chance(30) then return p:call("attention", {q, q, q}, {causal = true}) end
  return p:call("attention", {q, k, k})
end
for _, name in ipairs {"inv", "det", "cholesky", "slogdet", "eigvalsh"} do
  draws[name] = function(p)
    local n = p:draw(4)
    local a = p:given({n, n})
    local s = p:step("%s @ %s^T + 1", {a}, function(x) return x:matmul(x:t()) + tide.eye(n, x.dtype) end)
    return s and p:call(name, s)
  end
end
function draws.solve(p)
  local n = p:draw(4)
  local a = p:given({n, n})
  local s = p:step("%s @ %s^T + 1", {a}, function(x) return x:matmul(x:t()) + tide.eye(n, x.dtype) end)
  return s and p:call("solve", {s, p:given({n, 2})})
end

-- What is made in the program: constants, random numbers.
function draws.constant(p)
  local shape = p:shape()
  local dtype = p.dtype
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  return p:step("arange/" .. n .. " as {" .. table.concat(shape, ",") .. "}", {}, function()
    return n == 0 and tide.zeros(shape, dtype) or (tide.arange(1, n):to(dtype) / n):reshape(shape)
  end)
end
function draws.random(p)
  if p.state_first then return nil end
  local a = p:real()
  local x, kind = p.values[a], p:pick {"rand", "randn", "bernoulli"}
  local shape = x.shape
  return p:step("%s * " .. kind, {a}, function(v)
    local r = kind == "bernoulli" and tide.bernoulli(0.5, shape) or tide[kind](shape, v.dtype)
    return v * (r:to(v.dtype) * 0.5)
  end)
end
function draws.detach(p) return p:step("detach(%s)", {p:real()}, function(x) return x:detach() * 1 end) end
function draws.checkpoint(p)
  local a = p:real()
  return p:step("checkpoint(sin · cos)(%s)", {a}, function(x)
    return tide.checkpoint(function(u) return u:sin() * u:cos() end, x)
  end)
end
function draws.slope(p)
  if not p.grad then return nil end
  return p:step("gradient of sum(tanh(x)²) at %s", {p:real()}, function(x)
    return tide.grad(function(u) return u:tanh():square():sum() end)(x)
  end)
end

-- Writing in place: into what takes part in no gradient.
local function writable(p)
  local a = p:find(function(x, i)
    local root = p.root[i]
    if p.tainted[i] or p.tainted[root] or p.used[root] or not is_real(x) then return false end
    local at = p.origin[root]  -- what reshape makes of a given one that is not contiguous is no view of it
    if at and not (p.writes_given and p[at.list][at.place]:is_contiguous()) then return false end
    return not p.expanded[root]
  end)
  return a
end
function draws.write(p)
  local a = writable(p)
  if not a then
    a = p:step("zeros(%s)", {p:given(p:shape(), nil, true)}, function(x) return tide.zeros_like(x) end)
    if not a then return nil end
  end
  local x, k = p.values[a], p:draw(6)
  if k == 1 then return p:step("%s:mul_(0.5)", {a}, function(v) return v:mul_(0.5) end, {writes = true}) end
  if k == 2 then return p:step("%s:fill_(0.25)", {a}, function(v) return v:fill_(0.25) end, {writes = true}) end
  if k == 3 then return p:step("%s:tanh_()", {a}, function(v) return v:tanh_() end, {writes = true}) end
  local b = p:find(function(y, i)
    return not p.tainted[i] and is_real(y) and table.concat(y.shape, ",") == table.concat(x.shape, ",")
  end)
  b = bounded(p, b or a)
  if k == 4 or k == 5 then
    local name = k == 4 and "add_" or "copy_"
    return p:step("%s:" .. name .. "(%s)", {a, b}, function(v, w) return v[name](v, w) end, {writes = true})
  end
  if x.ndim == 0 or x.shape[1] == 0 then return nil end
  local at = p:draw(x.shape[1])
  return p:step(("%%s[%d] = %%s[%d] * 0.5"):format(at, at), {a, b}, function(v, w)
    v[at] = w[at] * 0.5
    return v
  end, {writes = true})
end

for name in pairs(draws) do names[#names + 1] = name end
table.sort(names)

-- What the programs of few numbers know, and what is often met.
local common = {"add", "mul", "sub", "div", "square", "tanh", "sin", "exp", "sum", "matmul", "reshape", "select",
  "narrow", "cat", "stack", "transpose", "where", "pow", "neg", "relu", "sigmoid", "maximum", "mean", "index", "write",
  "log", "sqrt", "fma", "reciprocal", "abs", "cos", "tan", "lt"}

return {draws = draws, names = names, common = common, text_of = text_of}
