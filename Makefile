# tide. `make demo` and `make test` do all set-up on a fresh Debian (packages, build, run); the other targets expect the
# packages. `make BUILD=dir` builds elsewhere; CFLAGS may be anything, the kernels ask for their own optimisation.
SHELL := /bin/bash
CC ?= gcc
BUILD ?= build
CFLAGS ?= -O2 -fPIC
JOBS := $(shell nproc 2>/dev/null || echo 2)
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif

# Lua's headers: those that LuaRocks names when they are there, else LuaJIT's.
LUAJIT_CFLAGS := $(shell pkg-config --cflags luajit 2>/dev/null || echo -I/usr/include/luajit-2.1)
LUA_CFLAGS ?= $(if $(wildcard $(LUA_INCDIR)/lua.h),-I$(LUA_INCDIR),$(LUAJIT_CFLAGS))

WARN = -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wno-unknown-pragmas -Wno-psabi
TD_CFLAGS = -std=gnu11 -fPIC -fvisibility=hidden $(WARN) -Icsrc $(CFLAGS)
LIBS = -lopenblas -lpng -lz -lm -lpthread

KERNEL_REAL = $(wildcard csrc/kernels/real_*.c)   # compiled for float and double
KERNEL_ANY  = $(wildcard csrc/kernels/any_*.c)    # compiled for float, double and int64_t
KERNEL_ONE  = $(filter-out $(KERNEL_REAL) $(KERNEL_ANY),$(wildcard csrc/kernels/*.c))
PLAIN = $(wildcard csrc/base/*.c csrc/tensor/*.c csrc/ops/*.c csrc/graph/*.c csrc/solve/*.c csrc/io/*.c) $(KERNEL_ONE)
BINDING = $(wildcard csrc/lua/*.c)
ISAS = base $(if $(filter x86_64,$(shell uname -m)),avx2 avx512)
isa_base = 0
isa_avx2 = 1
isa_avx512 = 2
real_f32 = 0
real_f64 = 1
real_i64 = 2

# gcc takes instruction set and optimisation from the source (isa.h), clang from here.
ifneq (,$(findstring clang,$(CC)))
flags_avx2 = -mavx2 -mfma
flags_avx512 = -mavx512f -mavx512vl -mavx512dq -mavx512bw -mavx2 -mfma
endif

VARIANTS = $(foreach i,$(ISAS),$(foreach r,f32 f64,$(patsubst csrc/%.c,$(BUILD)/%.$(r).$(i).o,$(KERNEL_REAL) $(KERNEL_ANY))) \
             $(patsubst csrc/%.c,$(BUILD)/%.i64.$(i).o,$(KERNEL_ANY)))
CORE_OBJ = $(patsubst csrc/%.c,$(BUILD)/%.o,$(PLAIN)) $(VARIANTS)
OBJ = $(CORE_OBJ) $(patsubst csrc/%.c,$(BUILD)/%.o,$(BINDING))
CORE = $(BUILD)/lib/tide/core.so

all: $(CORE)

$(CORE): $(OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -shared -o $@ $^ $(LIBS)

# A kernel source, once per element type ($1) and instruction set ($2).
define variant
$(BUILD)/%.$(1).$(2).o: csrc/%.c
	@mkdir -p $$(@D)
	$(CC) $(TD_CFLAGS) $(flags_$(2)) -DTD_KREAL=$(real_$(1)) -DTD_KISA=$(isa_$(2)) -MMD -MP -c -o $$@ $$<
endef
$(foreach i,$(ISAS),$(foreach r,f32 f64 i64,$(eval $(call variant,$(r),$(i)))))

$(BUILD)/lua/%.o: csrc/lua/%.c
	@mkdir -p $(@D)
	$(CC) $(TD_CFLAGS) $(LUA_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/%.o: csrc/%.c
	@mkdir -p $(@D)
	$(CC) $(TD_CFLAGS) -DTD_ISAS='"$(ISAS)"' -MMD -MP -c -o $@ $<

-include $(OBJ:.o=.d)

# ---- The same core for another Lua: `make puc VERSION=5.3` recompiles the binding alone ----
PUC = $(BUILD)/lua$(VERSION)
puc: $(CORE_OBJ)
	@mkdir -p $(PUC)/lib/tide
	$(CC) $(TD_CFLAGS) -I/usr/include/lua$(VERSION) -shared -o $(PUC)/lib/tide/core.so $(BINDING) $(CORE_OBJ) $(LIBS)
	LUA_PATH="lua/?.lua;lua/?/init.lua" LUA_CPATH="$(PUC)/lib/?.so" lua$(VERSION) spec/smoke.lua

# ---- Set-up ----
RUN_PACKAGES = gcc make pkg-config luajit libluajit-5.1-dev libopenblas-dev libpng-dev zlib1g-dev
TEST_PACKAGES = lua-busted lua5.1 lua5.3 lua5.4 liblua5.1-0-dev liblua5.3-dev liblua5.4-dev

# Installs what is missing of a list of Debian packages.
define install_missing
	@missing=""; for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  echo "installing:$$missing"; \
	  run=""; [ "$$(id -u)" = 0 ] || run=sudo; \
	  $$run apt-get update -qq && $$run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	fi
endef

packages:
	$(call install_missing,$(RUN_PACKAGES))
test-packages:
	$(call install_missing,$(RUN_PACKAGES) $(TEST_PACKAGES))

demo: packages
	@$(MAKE) -s all
	bin/tide examples/homoode_digits.lua

# ---- Tests ----
SPEC_ENV = LUA_PATH="./lua/?.lua;./lua/?/init.lua;./doc/?.lua;./?.lua;;" LUA_CPATH="./$(BUILD)/lib/?.so;;" TIDE_BUILD="$(CURDIR)/$(BUILD)"

test: test-packages
	@$(MAKE) -s all
	@for v in 5.1 5.3 5.4; do $(MAKE) -s puc VERSION=$$v || exit 1; done
	@$(SPEC_ENV) spec/run

# The suite under the address and undefined-behaviour sanitizers.
ASAN_BUILD = build-asan
asan: test-packages
	@$(MAKE) -s all BUILD=$(ASAN_BUILD) \
	  CFLAGS="-O1 -g -fPIC -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
	@$(MAKE) -s asan-run BUILD=$(ASAN_BUILD)
asan-run:
	@$(SPEC_ENV) TIDE_SANITIZED=1 ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	  LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" spec/run

lint:
	luacheck lua spec examples bench doc

# ---- Measurements: every script of bench/, on its own ----
bench: all $(BUILD)/bench-kernels
	$(BUILD)/bench-kernels
	@for f in $(filter-out bench/compare.lua bench/pictures.lua,$(wildcard bench/*.lua)); do \
	  echo "== $$f"; bin/tide $$f || exit 1; done
$(BUILD)/bench-kernels: bench/kernels.c $(CORE_OBJ)
	$(CC) $(TD_CFLAGS) -o $@ $^ $(LIBS)

# tide beside its peers: make bench-peers PYTHON=/path/to/python [PEERS="homoode unet"] [REPEATS=3] [ROUNDS=2] [THREADS=2]
REPEATS ?= 3
ROUNDS ?= 2
THREADS ?= 2
bench-peers: all
	@[ -n "$(PYTHON)" ] || { echo "bench-peers: PYTHON=/path/to/python is missing: the one that has the peers"; exit 1; }
	bin/tide bench/compare.lua $(PEERS) --python $(PYTHON) --repeats $(REPEATS) --rounds $(ROUNDS) --threads $(THREADS)
	bin/tide bench/pictures.lua --python $(PYTHON)

# ---- Installation: LuaRocks gives the folders, or PREFIX does ----
PREFIX ?= /usr/local
LUADIR ?= $(PREFIX)/share/lua/5.1
LIBDIR ?= $(PREFIX)/lib/lua/5.1
BINDIR ?= $(PREFIX)/bin
install: all
	install -d $(LUADIR)/tide $(LIBDIR)/tide $(BINDIR)
	cp -R lua/tide/. $(LUADIR)/tide/
	cp doc/api.lua $(LUADIR)/tide/api.lua
	[ ! -d doc/api ] || cp -R doc/api $(LUADIR)/tide/api
	install -d $(LUADIR)/tide/data/mnist10k
	cp data/mnist10k/* $(LUADIR)/tide/data/mnist10k/
	install -d $(LUADIR)/tide/models
	cp -R models/. $(LUADIR)/tide/models/
	install -m 755 $(CORE) $(LIBDIR)/tide/core.so
	install -m 755 bin/tide $(BINDIR)/tide

include spec/fuzz/fuzz.mk

clean:
	rm -rf build build-*

.DEFAULT_GOAL := all
.PHONY: all puc packages test-packages demo test asan asan-run lint bench bench-peers install clean
