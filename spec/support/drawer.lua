-- Choices that are the same for the same seed, whatever the platform: d.upto(n) a whole number from 1 to n,
-- d.chance(percent), d.pick(list).

return function(seed)
  local state = seed * 7919 % 2147483646 + 1
  local d = {}
  function d.upto(n)
    state = state * 16807 % 2147483647
    return math.floor(state / 7) % n + 1
  end
  function d.chance(percent) return d.upto(100) <= percent end
  function d.pick(list) return list[d.upto(#list)] end
  for _ = 1, 3 do d.upto(2) end
  return d
end
