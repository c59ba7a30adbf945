# tide: `make demo` and `make test` do all set-up on a fresh Debian; the other targets expect the packages.
SHELL := /bin/bash
CC ?= gcc
LUA_CFLAGS ?= $(shell pkg-config --cflags luajit 2>/dev/null || echo -I/usr/include/luajit-2.1)
BUILD ?= build
WARN = -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wno-unknown-pragmas -Wno-psabi
CFLAGS ?= -O2 -fPIC
TD_CFLAGS = -std=gnu11 -fPIC -fvisibility=hidden $(WARN) -Icsrc $(CFLAGS) $(EXTRA)
LIBS = -lopenblas -lpng -lz -lm -lpthread $(EXTRA)

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
	$(CC) -shared -o $@ $^ $(LIBS)

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

clean:
	rm -rf build build-*

.PHONY: all clean
