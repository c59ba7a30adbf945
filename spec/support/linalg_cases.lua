-- Calls of linear algebra with their slow twins: cases[name] is a list of {args = f(r), twin = f(…)}, r drawing
-- operands (spec/support/draw.lua), the twin working on arrays. Every shape of operands that an operation takes,
-- batches and broadcast ones included.

local array = require "spec.support.array"
local matrices = require "spec.support.matrices"
local tide = require "tide"

local batched = matrices.batched
local cases = {}

-- Matrices far from singular: small ones with a heavy diagonal, whose singular values stand apart.
local function regular(r, shape)
  local m, n = shape[#shape - 1], shape[#shape]
  local heavy = {}
  for i = 1, m do
    heavy[i] = {}
    for j = 1, n do heavy[i][j] = i == j and 1.5 + 1.25 * i * (i % 2 == 0 and -1 or 1) or 0 end
  end
  return r.real(shape, -0.5, 0.5) + r.constant(heavy)
end

local function positive(r, shape)
  local x = regular(r, shape)
  return tide.mm(x, tide.t(x)) * 0.25
end

-- Cases of one matrix operand; f is the twin on one matrix.
local function of_matrix(f, operand, shapes)
  local list = {}
  for _, shape in ipairs(shapes) do
    list[#list + 1] = {
      args = function(r) return {operand(r, shape)} end,
      twin = function(a) return batched(f, a) end,
    }
  end
  return list
end

local square = {{1, 1}, {2, 2}, {5, 5}, {2, 3, 3}, {2, 1, 2, 2}}
local oblong = {{1, 1}, {3, 3}, {4, 2}, {2, 4}, {2, 4, 3}, {2, 1, 2, 3}}

cases.inv = of_matrix(matrices.inverse, regular, square)
cases.det = of_matrix(matrices.det, regular, square)
cases.slogdet = of_matrix(function(a)
  local det = matrices.det(a)
  return det < 0 and -1 or 1, math.log(math.abs(det))
end, regular, square)
cases.cholesky = of_matrix(function(a) return matrices.cholesky(matrices.symmetric(a)) end, positive, square)
cases.matrix_exp = of_matrix(matrices.exp, function(r, shape) return r.real(shape, -1, 1) end, square)
cases.lu_factor = of_matrix(matrices.lu, regular, square)
cases.svdvals = of_matrix(function(a) return (select(2, matrices.svd(a))) end, regular, oblong)
cases.eigvalsh = of_matrix(function(a) return (matrices.eigh(a)) end, regular, square)
cases.pinv = of_matrix(matrices.pinv, regular, oblong)

-- ---- Factorisations whose vectors may have either sign: the operation's own sign is taken ----

-- The columns of `mine` turned to look like those of `theirs`, and the factors 1 or -1.
local function turned(mine, theirs)
  local s = {}
  for j = 1, mine.columns do
    local dot = 0
    for i = 1, mine.rows do dot = dot + mine[i][j] * theirs[i][j] end
    s[j] = dot < 0 and -1 or 1
  end
  return matrices.map(mine, function(v, _, j) return v * s[j] end), s
end
local function rows_times(x, s) return matrices.map(x, function(v, i) return v * s[i] end) end

-- twin(a, theirs) is given the operation's result number `vectors`.
local function signed(name, vectors, shapes, twin)
  local list = {}
  for _, shape in ipairs(shapes) do
    local given
    list[#list + 1] = {
      args = function(r)
        given = regular(r, shape)
        return {given}
      end,
      twin = function(a) return batched(twin, a, array.of((select(vectors, tide[name](given))))) end,
    }
  end
  return list
end

cases.qr = signed("qr", 1, oblong, function(a, theirs)
  local q, r = matrices.qr(a)
  local own, s = turned(q, theirs)
  return own, rows_times(r, s)
end)
cases.svd = signed("svd", 1, oblong, function(a, theirs)
  local u, values, vt = matrices.svd(a)
  local own, s = turned(u, theirs)
  return own, values, rows_times(vt, s)
end)
cases.eigh = signed("eigh", 2, square, function(a, theirs)
  local w, v = matrices.eigh(a)
  return w, (turned(v, theirs))
end)

-- ---- Systems ----

-- Shapes of matrix and right-hand side: one of each, many columns, batches, broadcast ones, a vector.
local function pairs_of(m, n)
  return {
    {{m, n}, {m, 1}}, {{m, n}, {m, 4}}, {{m, n}, {m}}, {{2, m, n}, {2, m, 2}}, {{m, n}, {3, m, 2}},
    {{2, m, n}, {m, 2}}, {{2, 1, m, n}, {3, m, 1}}, {{2, m, n}, {m}}, {{1, m, n}, {2, m, 1}},
  }
end

-- f(a, b) is the twin for one system; `options` a table given to the operation.
local function systems(list, f, m, n, options)
  for _, shapes in ipairs(pairs_of(m, n)) do
    local vector = #shapes[2] == 1
    list[#list + 1] = {
      args = function(r) return {regular(r, shapes[1]), r.real(shapes[2]), options} end,
      twin = function(a, b)
        if not vector then return batched(f, a, b) end
        return matrices.flat((batched(f, a, matrices.column(b))))
      end,
    }
  end
  return list
end

local function solved(a, b) return (matrices.solve(a, b)) end
cases.solve = systems(systems({}, solved, 3, 3), solved, 1, 1)

local function least_squares(a, b) return matrices.mul(matrices.pinv(a), b) end
cases.lstsq = {}
for _, size in ipairs {{4, 2}, {2, 3}, {2, 2}} do systems(cases.lstsq, least_squares, size[1], size[2]) end

cases.solve_triangular = {}
for code = 0, 7 do
  local o = {upper = code % 2 == 1, transpose = math.floor(code / 2) % 2 == 1, unit = code >= 4}
  systems(cases.solve_triangular, function(a, b)
    local t = matrices.triangle(a, o.upper, o.unit)
    return solved(o.transpose and matrices.t(t) or t, b)
  end, 3, 3, o)
end

cases.lu_solve = {}
for _, transpose in ipairs {false, true} do
  for _, shapes in ipairs(pairs_of(3, 3)) do
    local vector = #shapes[2] == 1
    table.insert(cases.lu_solve, {
      args = function(r)
        local lu, pivots = tide.lu_factor(regular(r, shapes[1]))
        return {lu, pivots, r.real(shapes[2]), {transpose = transpose}}
      end,
      twin = function(lu, pivots, b)
        local x = batched(function(factors, exchanges, side)
          local list = {}
          for i = 1, exchanges.rows do list[i] = exchanges[i][1] end
          local a = matrices.from_lu(factors, list)
          return solved(transpose and matrices.t(a) or a, side)
        end, lu, matrices.column(pivots), vector and matrices.column(b) or b)
        return vector and matrices.flat(x) or x
      end,
    })
  end
end

return cases
