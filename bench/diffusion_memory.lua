-- Peak memory and processor time of a sample and its gradient with respect to x_T, by gradient mode and number of
-- steps, through the digit model.
--
--   bin/tide bench/diffusion_memory.lua [--batch 32]

local tide = require "tide"
local diffusion = tide.diffusion

local batch = arg[1] == "--batch" and assert(tonumber(arg[2])) or 32
local model, info = assert(diffusion.pretrained "digits")
local parameters = model:count()
model:freeze()
local classes = tide.arange(batch):long():mod(10) + 1

-- Peak bytes above what was live before, bytes of latents kept, seconds of processor time.
local function measure(grad, steps, more)
  local x = info.schedule:noise({batch, 28, 28, 1}, {generator = tide.generator(1)}):requires_grad()
  for _ = 1, 3 do collectgarbage() end
  tide.memory "trim"
  tide.memory "reset"
  local before, clock = tide.memory().live, os.clock()
  local o = {schedule = info.schedule, sampler = grad == "reversible" and "bdia" or "dpmpp_2m", steps = steps,
    condition = classes, grad = grad}
  for k, v in pairs(more or {}) do o[k] = v end
  local out = diffusion.sample(model, x, o)
  out.x0:square():sum():backward()
  return tide.memory().peak - before, out.stats.bytes_kept, os.clock() - clock
end

print(("%d images of 28×28, %d parameters, %d threads"):format(batch, parameters, tide.threads()))
print "mode              steps   peak MB   latents kept MB   processor s"
for _, case in ipairs {{"discrete"}, {"discrete", {checkpoint = 10}}, {"reversible"}, {"full"}} do
  for _, steps in ipairs {10, 50, 200} do
    if case[1] ~= "full" or steps < 200 then
      local peak, kept, seconds = measure(case[1], steps, case[2])
      print(("%-16s  %5d  %8.1f  %16.2f  %12.1f"):format(case[1] .. (case[2] and ", checkpoint" or ""), steps,
        peak / 1e6, kept / 1e6, seconds))
      io.stdout:flush()
    end
  end
end
