# make fuzz SECONDS_EACH=60: every reader of csrc/io against any bytes, under libFuzzer and the
# address and undefined-behaviour sanitizers. Needs clang. What is found and the grown corpus stay in
# $(FUZZ).
FUZZ ?= build-fuzz
FUZZ_CC ?= clang
SECONDS_EACH ?= 60
FUZZ_NAMES = safetensors npy idx png cifar
FUZZ_FLAGS = -std=gnu11 -g -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
             -fno-sanitize-recover=undefined -Icsrc -Ispec/fuzz
FUZZ_OBJ = $(patsubst %.c,$(FUZZ)/%.o,$(wildcard csrc/base/*.c csrc/tensor/*.c csrc/io/*.c) \
             spec/fuzz/plain_copy.c)
FUZZ_LIBS = -lpng -lz -lm -lpthread
# The longest input, and the largest allocation that an input of that length may cause, in MB: a PNG
# of 8 kB can be 1,032 times as many pixels of one bit, which become four bytes each.
fuzz_args = -max_len=8192 -malloc_limit_mb=300 -rss_limit_mb=2000 -timeout=20

fuzz: $(FUZZ_NAMES:%=fuzz-%)

fuzz-%: $(FUZZ)/fuzz_% $(FUZZ)/seeds/made
	@mkdir -p $(FUZZ)/corpus/$* $(FUZZ)/found
	$< $(fuzz_args) -max_total_time=$(SECONDS_EACH) -artifact_prefix=$(FUZZ)/found/$*- \
	  -print_final_stats=1 $(FUZZ)/corpus/$* $(FUZZ)/seeds/$*

$(FUZZ)/fuzz_%: $(FUZZ)/spec/fuzz/fuzz_%.o $(FUZZ_OBJ)
	$(FUZZ_CC) -fsanitize=fuzzer,address,undefined -o $@ $^ $(FUZZ_LIBS)

$(FUZZ)/seeds/made: $(FUZZ)/spec/fuzz/seeds.o $(FUZZ_OBJ)
	$(FUZZ_CC) -fsanitize=address,undefined -o $(FUZZ)/make-seeds $^ $(FUZZ_LIBS)
	@mkdir -p $(@D)
	$(FUZZ)/make-seeds $(@D)
	@touch $@

$(FUZZ)/%.o: %.c
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_FLAGS) -MMD -MP -c -o $@ $<

.PHONY: fuzz
.SECONDARY: $(FUZZ_OBJ) $(FUZZ_NAMES:%=$(FUZZ)/fuzz_%) $(FUZZ_NAMES:%=$(FUZZ)/spec/fuzz/fuzz_%.o)
-include $(wildcard $(FUZZ)/csrc/*/*.d $(FUZZ)/spec/fuzz/*.d)
