-- Right-hand sides whose code proved clean are captured without having been called before, and options are read once:
-- both as long as nothing that counts has changed.

local tide = require "tide"
require "spec.helper"
local ode, nn = tide.ode, tide.nn

local function vector(...) return tide.tensor({...}, "float64") end

describe("a right-hand side that is known", function()
  local p = vector(1.5, 1, 3, 1):requires_grad()

  -- f that counts its calls where nobody looks.
  local function counted()
    local deep = {inner = {calls = 0}}
    local function f(_, u)
      deep.inner.calls = deep.inner.calls + 1
      return tide.stack({p[1] * u[1] - p[2] * u[1] * u[2], p[4] * u[1] * u[2] - p[3] * u[2]}, 1)
    end
    return f, deep.inner
  end

  it("is called once for a solve and its gradient, and gives the same bits", function()
    local f, calls = counted()
    local seen, results = {}, {}
    for i = 1, 3 do
      local u0 = vector(1, 1):requires_grad()
      p.grad, calls.calls = nil, 0
      local sol = ode.solve(f, u0, {0, 3}, {rtol = 1e-7})
      sol.last:sum():backward()
      assert.is_true(sol.captured)
      seen[i] = calls.calls
      results[i] = {sol.ys:totable(), sol.stats.nfe, sol.stats.nfe_b, u0.grad:totable(), p.grad:totable()}
    end
    assert.are.same({2, 1, 1}, seen)
    assert.are.same(results[1], results[2])
    assert.are.same(results[1], results[3])
  end)

  it("is another one when it closes over other numbers, switches or tables", function()
    local calls = {inner = {n = 0}}
    local function solve(k, on, t)
      calls.inner.n = 0
      local sol = ode.solve(function(_, u)
        calls.inner.n = calls.inner.n + 1
        return on and u * t.rate * k or u * k
      end, vector(1, 2), {0, 1}, {rtol = 1e-8})
      return sol.last[1]:item(), calls.inner.n
    end
    local t = {rate = -1}
    local cases = {{1, true, t, 2}, {1, true, t, 1}, {2, true, t, 2}, {2, false, t, 2}, {2, true, {rate = -1}, 2}}
    for _, c in ipairs(cases) do
      local x, n = solve(c[1], c[2], c[3])
      assert.near(math.exp(c[1] * (c[2] and -1 or 1)), x, 1e-6)
      assert.are.equal(c[4], n)
    end
    t.rate = -0.5
    local x, n = solve(1, true, t)
    assert.near(math.exp(-0.5), x, 1e-6)
    assert.are.equal(2, n)
  end)

  it("that begins to change what it closes over runs as it is, and sees no tensor without values", function()
    local log = {on = false}
    local function f(_, u)
      if log.on then log[#log + 1] = u end
      return -u
    end
    for _ = 1, 2 do assert.is_true(ode.solve(f, vector(1), {0, 1}).captured) end
    log.on = true
    local sol = ode.solve(f, vector(1), {0, 1})
    assert.is_false(sol.captured)
    assert.are.equal(sol.stats.nfe, #log)
    for _, u in ipairs(log) do assert.is_number(u:item()) end
  end)

  it("that counts its calls is never taken for clean", function()
    local n
    local function f(_, u)
      n = n + 1
      return -u
    end
    for _ = 1, 3 do
      n = 0
      local sol = ode.solve(f, vector(1), {0, 1})
      assert.is_false(sol.captured)
      assert.are.equal(sol.stats.nfe, n)
    end
  end)

  it("raises its own error, and is solved again afterwards", function()
    local deep = {inner = {}}
    local function f(_, u)
      if deep.inner.fails then error {code = 7} end
      return -u * p[1]
    end
    for _, fails in ipairs {false, false, true, false} do
      deep.inner.fails = fails
      local ok, sol = pcall(ode.solve, f, vector(1), {0, 1}, {rtol = 1e-8})
      assert.are.equal(not fails, ok)
      if fails then assert.are.same({code = 7}, sol)
      else assert.near(math.exp(-1.5), sol.last:item(), 1e-7) end
    end
  end)

  it("that begins to look at values runs as it is", function()
    local deep = {inner = {}}
    local function f(_, u)
      if deep.inner.looks and u:item() < 0.5 then return -u * 2 end
      return -u
    end
    for _, looks in ipairs {false, false, true, false} do
      deep.inner.looks = looks
      local sol = ode.solve(f, vector(1), {0, 0.5}, {rtol = 1e-9})
      assert.are.equal(not looks, sol.captured)
      assert.near(math.exp(-0.5), sol.last:item(), 1e-7)
    end
  end)

  it("that begins to decline fails as it would have", function()
    local deep = {inner = {}}
    local function f(_, u)
      if deep.inner.declines then return false end
      return -u
    end
    for _, declines in ipairs {false, false, true, false} do
      deep.inner.declines = declines
      local sol = ode.solve(f, vector(1), {0, 1}, {throw = false})
      assert.are.equal(declines and "nonfinite" or "ok", sol.status)
    end
  end)

  it("gives gradients to what needs them now, and none where none is wanted", function()
    local a, b = vector(0.5), vector(0.25)
    local function solve(y0)
      return ode.solve(function(_, u) return -u * a * b end, y0, {0, 2}, {rtol = 1e-9}).last
    end
    local e = math.exp(-0.25)
    for _ = 1, 2 do
      assert.is_false(solve(vector(1)).needs_grad)
      a:requires_grad()
      local last = solve(vector(1))
      last:backward()
      assert.near(-0.5 * e, a.grad:item(), 1e-8)
      a.grad = nil
      a:requires_grad(false)
      local y0 = vector(1):requires_grad()
      solve(y0):backward()
      assert.near(e, y0.grad:item(), 1e-8)
      assert.is_false(tide.no_grad(solve, y0).needs_grad)
      b:requires_grad()
      solve(vector(2)):backward()
      assert.near(-2 * e, b.grad:item(), 1e-8)
      b.grad = nil
      b:requires_grad(false)
    end
  end)

  it("has second derivatives, checkpoints and parameters that an optimiser moves", function()
    local rate = vector(0.7):requires_grad()
    local opt = tide.optim.SGD({rate}, {lr = 0.1})
    local function solve(o)
      o.rtol = 1e-10
      return ode.solve(function(_, u) return -u * rate end, vector(1), {0, 2}, o).last
    end
    for _ = 1, 3 do
      local r = rate:item()
      local first = tide.gradients(solve {}, {rate}, {create_graph = true})[1]
      assert.near(-2 * math.exp(-2 * r), first:item(), 1e-7)
      assert.near(4 * math.exp(-2 * r), tide.gradients(first, {rate})[1]:item(), 1e-6)
      opt:zero_grad()
      solve({checkpoints = 3}):backward()
      assert.near(-2 * math.exp(-2 * r), rate.grad:item(), 1e-7)
      opt:step()
      assert.not_equal(r, rate:item())
    end
  end)

  it("draws the masks of dropout as before", function()
    local double = {dtype = "float64"}
    local net = nn.Sequential(nn.Linear(2, 8, double), nn.Dropout(0.5), nn.Linear(8, 2, double))
    local function solve() return ode.solve(function(_, y) return net(y) end, vector(1, 2), {0, 1}).last:totable() end
    net:train(false)
    for _ = 1, 2 do solve() end
    net:train(true)
    local drawn = {}
    for i = 1, 3 do
      tide.manual_seed(5)
      drawn[i] = solve()
      drawn[i][3] = tide.rand(1):item()
    end
    assert.are.same(drawn[1], drawn[2])
    assert.are.same(drawn[1], drawn[3])
  end)
end)

describe("options that were read before", function()
  local function f(_, u) return tide.stack({u[2], -u[1]}, 1) end

  it("are read again when they have changed", function()
    local o = {rtol = 1e-4}
    local function nfe() return ode.solve(f, vector(1, 0), {0, 10}, o).stats.nfe end
    local loose = nfe()
    assert.are.equal(loose, nfe())
    o.rtol = 1e-9
    assert.is_true(nfe() > 2 * loose)
    o.max_step = 0.01
    assert.is_true(nfe() > 6000)
    o.max_step, o.rtol = nil, 1e-4
    assert.are.equal(loose, nfe())
    o.method = "bosh3"
    assert.is_true(nfe() > loose)
    o.method = nil
    o.rtol = vector(1e-4, 1e-4)
    assert.are.equal(loose, nfe())
    o.rtol = 1e-4
    o.event = function(_, u) return u[1] end
    assert.are.equal("event", ode.solve(f, vector(1, 0), {0, 10}, o).status)
    o.event = nil
    assert.are.equal(loose, nfe())
    assert.are.equal(ode.solve(f, vector(1, 0), {0, 10}).stats.nfe, ode.solve(f, vector(1, 0), {0, 10}, {}).stats.nfe)
  end)

  it("are checked as before", function()
    local o = {rtol = 1e-4}
    for _ = 1, 2 do ode.solve(f, vector(1, 0), {0, 1}, o) end
    o.rotl = 1
    assert.has_error(function() ode.solve(f, vector(1, 0), {0, 1}, o) end)
    o.rotl = nil
    o.rtol = 0 / 0
    for _ = 1, 2 do assert.has_error(function() ode.solve(f, vector(1, 0), {0, 1}, o) end) end
    o.rtol = 1e-4
    for _, t in ipairs {{}, {0, 1, 0.5}, {0, 0 / 0}} do
      assert.has_error(function() ode.solve(f, vector(1, 0), t, o) end)
    end
    assert.has_error(function() ode.solve(f, tide.tensor({1, 0}, "int64"), {0, 1}, o) end)
    assert.are.equal("bad_input", ode.solve(f, vector(1, 0), {}, {rtol = 1e-4, throw = false}).status)
    for _ = 1, 2 do
      assert.has_error(function() ode.solve(f, vector(1, 0), {0, 1}, {method = "rk4"}) end)
    end
  end)

  it("serve states of every form, and solves inside each other", function()
    local o = {rtol = 1e-6, norm = "rms"}
    for _ = 1, 2 do
      local a = ode.solve(f, vector(1, 0), {0, 1}, o).last
      local b = ode.solve(function(_, u) return {u[2], -u[1]} end, {1, 0}, {0, 1}, o).last
      local c = ode.solve(function(_, s) return {x = s.y, y = -s.x} end, {x = vector(1), y = vector(0)}, {0, 1}, o).last
      local d = ode.solve(function(_, y) return y end, 1, {0, 1}, o).last
      for _, x in ipairs {a[1]:item(), b[1], c.x:item()} do assert.near(math.cos(1), x, 1e-5) end
      assert.near(math.exp(1), d, 1e-4)
      local outer = ode.solve(function(_, u)
        local inner = ode.solve(function(_, v) return -v end, u[1]:reshape(1), {0, 1}, o).last
        return tide.stack({inner[1] * math.exp(1), u[2]}, 1)
      end, vector(1, 1), {0, 1}, o)
      assert.near(math.exp(1), outer.last[1]:item(), 1e-4)
    end
  end)
end)
