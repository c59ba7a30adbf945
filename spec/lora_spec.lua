-- Low-rank adapters: they change nothing at first, are all that is trained, and can be merged, taken out again,
-- stored and removed.

require "spec.helper"
local tide = require "tide"

local nn = tide.nn
local lora = nn.lora

-- A network with every kind of layer that can be adapted.
local function network(seed)
  local g = {generator = tide.generator(seed or 1)}
  local function with(o)
    o.generator = g.generator
    return o
  end
  return nn.Module {
    conv = nn.Conv2d(2, 6, 3, with {stride = 2, padding = 1}), attend = nn.MultiheadAttention(6, 2, g),
    blocks = {nn.Linear(6, 5, g), nn.Linear(5, 3, with {bias = false})},
    forward = function(self, x)
      local h = self.conv(x)
      h = self.attend(h:reshape(h:size(1), h:size(2) * h:size(3), 6))
      return self.blocks[2](self.blocks[1](h):tanh())
    end,
  }
end

local function input() return tide.generator(7):randn(2, 6, 6, 2) end

-- Gives B values, so that the adapters do something.
local function stir(m)
  local g = tide.generator(3)
  for name, p in m:named_parameters() do
    if name:find "lora_B" then nn.init.normal(p, 0, 0.3, g) end
  end
end

describe("adapters", function()
  it("change nothing at first, and alone get gradients", function()
    local m, x = network(), input()
    local y = m(x):detach()
    local names = lora.add(m, {rank = 2})
    assert.are.same({"attend", "blocks.1", "blocks.2", "conv"}, names)
    assert.close(m(x), y, 1e-6)
    local parameters = 0
    for name, p in m:named_parameters() do
      assert.matches("lora_", name)
      parameters = parameters + p.numel
    end
    assert.are.equal(2 * (18 + 6) + 2 * (6 + 6) + 2 * (6 + 12) + 2 * (6 + 6) + 2 * (6 + 5) + 2 * (5 + 3), parameters)
    m(x):sum():backward()
    assert.is_nil(m.conv.weight.grad)
    assert.is_true(m.conv.lora_B.weight.grad:abs():max():item() > 0)
    assert.is_true(m.attend.lora_B_kv.weight.grad:abs():max():item() > 0)
  end)

  it("are the product of their factors added to the weight, with the scale alpha/rank", function()
    local m, x = network(), input()
    lora.add(m, {rank = 2, alpha = 6, generator = tide.generator(4)})
    stir(m)
    local y = m(x):detach()
    local plain = network()
    tide.no_grad(function()
      local linear = m.blocks[1]
      plain.blocks[1].weight:add_(linear.lora_A.weight:mm(linear.lora_B.weight) * 3)
      plain.blocks[2].weight:add_(m.blocks[2].lora_A.weight:mm(m.blocks[2].lora_B.weight) * 3)
      for suffix, key in pairs {q = "query_weight", kv = "key_value_weight", out = "out_weight"} do
        plain.attend[key]:add_(m.attend["lora_A_" .. suffix].weight:mm(m.attend["lora_B_" .. suffix].weight) * 3)
      end
      local a, b = m.conv.lora_A.weight, m.conv.lora_B.weight
      plain.conv.weight:add_(tide.einsum("hwir,ro->hwio", a, b[1][1]) * 3)
    end)
    assert.close(y, plain(x), 1e-5)
  end)

  it("merge into the weights and come out again", function()
    local m, x = network(), input()
    local before = m.conv.weight:detach():clone()
    lora.add(m, {rank = 3})
    stir(m)
    local y = m(x):detach()
    lora.merge(lora.merge(m))
    assert.close(m(x), y, 1e-5)
    assert.is_true((m.conv.weight - before):abs():max():item() > 1e-2)
    lora.unmerge(lora.unmerge(m))
    assert.close(m(x), y, 1e-5)
    assert.close(m.conv.weight, before, 1e-6)
  end)

  it("leave the layers as they were when removed, with what was merged", function()
    local m, x = network(), input()
    local y = m(x):detach()
    lora.add(m)
    stir(m)
    lora.remove(m)
    assert.close(m(x), y, 1e-6)
    assert.is_true(m.conv.weight.is_leaf)
    assert.are.equal(network():count(), m:count())
    lora.add(m)
    stir(m)
    local merged = lora.merge(m)(x):detach()
    assert.close(lora.remove(m)(x), merged, 1e-6)
  end)

  it("go where a pattern says", function()
    local m = network()
    assert.are.same({"blocks.1"}, lora.add(m, {match = {"blocks%.1$", "nowhere"}}))
    assert.are.equal(4 * (6 + 5), m:count())
    lora.remove(m)
    assert.are.same({"conv"}, lora.add(m, {match = "conv"}))
    local net = tide.diffusion.UNet2DModel {block_out_channels = {8, 8}, norm_num_groups = 4, layers_per_block = 1,
      down_block_types = {"DownBlock2D", "AttnDownBlock2D"}, up_block_types = {"AttnUpBlock2D", "UpBlock2D"}}
    local names = lora.add(net, {match = {"to_q$", "to_out%.1$"}})
    assert.are.same({"down_blocks.2.attentions.1.to_out.1", "down_blocks.2.attentions.1.to_q"},
      {names[1], names[2]})
    assert.fails_here(function() tide.diffusion.save("x", net) end, "adapters", "nn.lora.merge")
  end)

  it("are stored apart and added to another copy", function()
    local m, x = network(), input()
    lora.add(m, {rank = 2, alpha = 5, match = {"attend", "blocks"}})
    stir(m)
    local path = os.tmpname()
    assert(tide.io.save_safetensors(path, lora.state_dict(m)))
    local state = assert(tide.io.load_safetensors(path))
    os.remove(path)
    local other = network()
    assert.are.same({"attend", "blocks.1", "blocks.2"}, lora.load_state_dict(other, state))
    assert.close(other(x), m(x), 1e-6)
    state["blocks.1.lora_A.weight"] = tide.zeros(3, 2)
    local third = network()
    assert.fails_here(function() lora.load_state_dict(third, state) end, "blocks.1.lora_A.weight", "(3×2)")
    assert.are.equal(network():count(), third:count())
  end)

  it("are refused where they make no sense", function()
    local m = network()
    assert.fails_here(function() lora.add(m, {match = "xyz"}) end, "lora.add", "matches")
    assert.fails_here(function() lora.add(m, {rank = 0}) end, "rank is 0")
    assert.fails_here(function() lora.add(m, {rnk = 1}) end, "rnk")
    assert.fails_here(function() lora.add(m, {match = 3}) end, "match is a number")
    assert.fails_here(function() lora.merge(m) end, "lora.merge", "no adapters")
    assert.fails_here(function() lora.state_dict(m) end, "no adapters")
    assert.fails_here(function() lora.load_state_dict(m, {}) end, "a scale")
    lora.add(m)
    assert.fails_here(function() lora.add(m) end, "adapters already")
  end)
end)
