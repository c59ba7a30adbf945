-- What the fused normalisations promise beside their values: no neighbour in the batch shows, and the fused form
-- is the chain it stands for.

local helper = require "spec.helper"
local tide = require "tide"
local g = tide.generator(11)

local function bits(t) return t:contiguous():tobytes() end

-- y and dx of a call on x with cotangent dy.
local function both(f, x, dy)
  local u = x:detach():requires_grad()
  local y = f(u)
  y:backward(dy)
  return y:detach(), u.grad
end

describe("normalisation", function()
  -- the second is large enough to be written past the caches, the last has an odd number of channels
  for _, case in ipairs {{5, 9, 7, 24, 4}, {66, 32, 32, 32, 8}, {3, 5, 5, 7, 7}, {130, 1, 1, 40, 1}} do
    local n, h, w, c, groups = unpack(case)
    it(("of an image among %d of %d×%d×%d does not depend on the others"):format(n, h, w, c), function()
      local x, dy = g:randn({n, h, w, c}), g:randn({n, h, w, c})
      for act = 0, 2 do
        local function f(u) return (tide.group_norm_act(u, {groups = groups, activation = act})) end
        local y, dx = both(f, x, dy)
        for _, i in ipairs {1, n} do
          local one, done = both(f, x:narrow(1, i, 1), dy:narrow(1, i, 1))
          assert.are.equal(bits(one), bits(y:narrow(1, i, 1)))
          assert.are.equal(bits(done), bits(dx:narrow(1, i, 1)))
        end
      end
    end)
  end

  it("with activation and sum is the chain of three", function()
    local acts = {"relu", "silu", "gelu", "tanh", "sigmoid"}
    local x, add, gamma, beta = g:randn({4, 6, 6, 20}), g:randn({4, 6, 6, 20}), g:rand({20}), g:randn({20})
    for i, act in ipairs(acts) do
      local chain = tide[act]((tide.group_norm(x, gamma, beta, {groups = 5}))) + add
      assert.close((tide.group_norm_act(x, gamma, beta, add, {groups = 5, activation = i})), chain, 2e-6)
      chain = tide[act]((tide.channel_norm(x, gamma, beta))) + add
      assert.close((tide.channel_norm_act(x, gamma, beta, add, {activation = i})), chain, 2e-6)
    end
  end)

  it("says what is wrong with operands and activation", function()
    local x = tide.ones(2, 3, 4)
    assert.fails_here(function() tide.group_norm_act(x, {groups = 2, activation = 6}) end, "activation 6")
    assert.fails_here(function() tide.group_norm_act(x, tide.ones(4), {groups = 2}) end, "add is float32 of shape (4)")
  end)
end)

describe("attention", function()
  it("gives the same for views and copies", function()
    local q, k, v = g:randn({2, 3, 40, 8}), g:randn({2, 3, 30, 8}), g:randn({2, 3, 30, 5})
    local function turned(x) return x:permute(1, 3, 2, 4) end
    local y = tide.attention(turned(q), turned(k), turned(v))
    local z = tide.attention(turned(q):contiguous(), turned(k):contiguous(), turned(v):contiguous())
    assert.are.equal(bits(y), bits(z))
    local strided = helper.awkward(turned(v))
    assert.are.equal(bits(y), bits((tide.attention(turned(q), turned(k), strided))))
  end)

  it("attends evenly where a mask excludes everything, with the gradient of that", function()
    local q, k = g:randn({1, 2, 1, 4}, "float64"), g:randn({1, 3, 1, 4}, "float64")
    local v = g:randn({1, 3, 1, 2}, "float64"):requires_grad()
    local y = tide.attention(q, k, v, tide.full({1, 1, 2, 3}, -1e30, "float64"))
    assert.close(y:narrow(2, 1, 1):reshape(2), v:detach():mean(2):reshape(2), 1e-14)
    y:backward(tide.ones(1, 2, 1, 2, "float64"))
    assert.close(v.grad, tide.full({1, 3, 1, 2}, 2 / 3, "float64"), 1e-14)
  end)

  it("leaves out keys that a mask hides with -inf, whole blocks of them too", function()
    local q = g:randn({1, 70, 2, 5}, "float64"):requires_grad()
    local k = g:randn({1, 150, 2, 5}, "float64"):requires_grad()
    local v = g:randn({1, 150, 2, 3}, "float64"):requires_grad()
    local mask = tide.zeros({1, 1, 1, 150}, "float64")
    mask[{{}, {}, {}, {1, 80}}] = -math.huge
    local r = g:randn({1, 70, 2, 3}, "float64")
    local function results(keys, values, hidden)
      local y = tide.attention(q, keys, values, hidden)
      q.grad, k.grad, v.grad = nil, nil, nil
      y:backward(r)
      return y:detach(), q.grad, k.grad, v.grad
    end
    local seen = {{}, {81, 150}}
    local a, b = {results(k, v, mask)}, {results(k[seen], v[seen])}
    for i = 1, 4 do assert.close(a[i], b[i], 1e-13) end
    assert.are.equal(0, a[3][{{}, {1, 80}}]:abs():max():item())
  end)
end)
