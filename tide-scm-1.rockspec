rockspec_format = "3.0"
package = "tide"
version = "scm-1"
source = {url = "git+file://."}
description = {
  summary = "Tensors, implicit models and differential equations for Lua",
  detailed = [[
A LuaJIT extension in C: tensors with gradients of any order, neural network layers, ODE solvers with exact adjoint
gradients, and HomoODE (a deep equilibrium model solved by a neural ODE), over kernels for AVX-512, AVX2 and baseline.]],
  license = "MIT",
  labels = {"tensor", "autograd", "ode", "neural-network"},
}
supported_platforms = {"unix"}
dependencies = {"lua == 5.1"}
external_dependencies = {
  OPENBLAS = {library = "openblas"},
  PNG = {library = "png"},
  ZLIB = {library = "z"},
}
build = {
  type = "make",
  build_target = "all",
  build_variables = {
    CFLAGS = "$(CFLAGS)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    BUILD = "build-rock",
  },
  install_variables = {
    BUILD = "build-rock",
    CFLAGS = "$(CFLAGS)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    LUADIR = "$(LUADIR)",
    LIBDIR = "$(LIBDIR)",
    BINDIR = "$(BINDIR)",
  },
}
test = {type = "command", command = "make test"}
