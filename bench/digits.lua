-- The demo over three seeds: test accuracy at the last epoch, seconds, peak memory, evaluations.
-- Options are passed on, for example: bin/tide bench/digits.lua --grad adjoint

local here = arg[0]:match "^(.*)/bench/[^/]*$" or "."
local extra = table.concat(arg, " ")
print "seed  accuracy %  seconds  peak MB  NFE"
for seed = 1, 3 do
  local began = os.time()
  local out = io.popen(("%s/bin/tide %s/examples/homoode_digits.lua --seed %d --out %s.png %s 2>&1")
    :format(here, here, seed, os.tmpname(), extra))
  local text = out:read "*a"
  out:close()
  local accuracy, nfe, peak = text:match
    "test accuracy ([%d%.]+) %% %(last epoch%)  NFE ([%d%.]+).-peak memory (%d+) MB"
  if not accuracy then error("the demo failed:\n" .. text, 0) end
  print(("%4d  %10s  %7d  %7s  %s"):format(seed, accuracy, os.time() - began, peak, nfe))
end
