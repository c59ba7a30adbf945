-- Peak memory and processor time of a sample and its gradient with respect to x_T, by gradient mode and number of
-- steps, through the digit model. With --python the peak of the whole process beside PyTorch's, through the U-Net of
-- `compare.lua unet` with random weights, and a picture of both.
--
--   bin/tide bench/diffusion_memory.lua [--batch 32] [--python PATH] [--threads 2] [--out diffusion_memory.png]

package.path = (arg[0]:match "^(.*/)" or "./") .. "peers/?.lua;" .. package.path
local process = require "process"
local tide = require "tide"
local diffusion, plot = tide.diffusion, tide.plot

local o = {batch = 32, python = "", threads = 2, out = "diffusion_memory.png"}
for i = 1, #arg, 2 do
  local key = arg[i]:match "^%-%-(%a+)$"
  assert(key and o[key] ~= nil and arg[i + 1], "usage: diffusion_memory.lua [--batch n] [--python PATH] [--threads n] "
    .. "[--out file]")
  o[key] = type(o[key]) == "number" and assert(tonumber(arg[i + 1]), arg[i] .. " takes a number") or arg[i + 1]
end

-- ---- The modes ----

local batch = o.batch
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
  local how = {schedule = info.schedule, sampler = grad == "reversible" and "bdia" or "dpmpp_2m", steps = steps,
    condition = classes, grad = grad}
  for k, v in pairs(more or {}) do how[k] = v end
  local out = diffusion.sample(model, x, how)
  out.x0:square():sum():backward()
  return tide.memory().peak - before, out.stats.bytes_kept, os.clock() - clock
end

for _ = 1, 3 do measure("discrete", 10) end
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

-- ---- Beside PyTorch ----

if o.python == "" then return end
process.check_modules(o.python, {"torch", "diffusers", "safetensors"}, "diffusion_memory.lua --python")

local here, exchange = arg[0]:match "^(.*)/[^/]*$" or ".", os.tmpname() .. "_unet"
local most = 20e9  -- bytes: a peer that would need more by its growth so far is not started
local function run(command) return process.run(command, o.threads)[1] end
local function peer(rest) return ("'%s' '%s/peers/unet.py' --case sample %s"):format(o.python, here, rest) end
local sides = {
  {name = "tide, exact gradient", command = function(rest)
    return ("'%s/../bin/tide' '%s/peers/unet.lua' --case sample %s"):format(here, here, rest)
  end},
  {name = "PyTorch, checkpointed", command = function(rest) return peer(rest .. " --memory checkpoint") end},
  {name = "PyTorch", command = peer},
}

os.execute(("mkdir -p '%s'"):format(exchange))
process.run(peer("--prepare " .. exchange), o.threads)
print "\nthe U-Net of compare.lua, 4 images of 32×32: peak resident memory"
print "                        steps      MB   seconds"
local figure = plot.figure {width = 700, height = 420}
local axes = figure:axes(1, {title = "a sample and its gradient: peak memory of the process", xlabel = "steps",
  ylabel = "MB", xscale = "log", yscale = "log"})
for _, side in ipairs(sides) do
  local xs, ys = {}, {}
  for _, steps in ipairs {10, 20, 50, 100, 200} do
    local n = #xs
    if n < 2 or ys[n] + (ys[n] - ys[n - 1]) / (xs[n] - xs[n - 1]) * (steps - xs[n]) < most / 1e6 then
      local got = run(side.command(("--repeats 1 --threads %d --exchange %s --steps %d"):format(o.threads, exchange,
        steps)))
      xs[n + 1], ys[n + 1] = steps, got.rss / 1e6
      print(("%-22s  %5d  %7.0f  %8.2f"):format(side.name, steps, got.rss / 1e6, got.seconds))
      io.stdout:flush()
    end
  end
  axes:line(xs, ys, {label = side.name, marker = "o"})
end
assert(figure:save(o.out))
os.execute(("rm -r '%s'"):format(exchange))
