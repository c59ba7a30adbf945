/* Which copy of the kernels this processor runs: found once, and kept. */
#include "base/cpu.h"
#include <stdlib.h>
#include <string.h>

static const char *const isa_name[TD_ISA_COUNT] = {"base", "avx2", "avx512"};

/* The build lists the instruction sets that it compiled; without the list, those of the
 * architecture. */
#ifndef TD_ISAS
#if defined(__x86_64__)
#define TD_ISAS "base avx2 avx512"
#else
#define TD_ISAS "base"
#endif
#endif

/* The features asked for here are those of the target pragmas in kernels/isa.h, each of them: a
 * processor or a virtual machine may offer some of AVX-512 and not the rest. */
static td_isa supported_isa(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return TD_ISA_BASE;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512bw"))
    return TD_ISA_AVX2;
  return TD_ISA_AVX512;
#else
  return TD_ISA_BASE;
#endif
}

/* True when `name` is one of the space-separated words of `list`. No name is a part of another
 * one. */
static int is_compiled(const char *list, const char *name) { return strstr(list, name) != NULL; }

/* What TIDE_ISA allows; an unknown value, or none, allows everything. */
static td_isa allowed_isa(void) {
  const char *wish = getenv("TIDE_ISA");
  for (int i = 0; wish && i < TD_ISA_COUNT; i++)
    if (strcmp(wish, isa_name[i]) == 0) return (td_isa)i;
  return TD_ISA_COUNT - 1;
}

static td_isa find_isa(void) {
  td_isa isa = supported_isa(), allowed = allowed_isa();
  if (isa > allowed) isa = allowed;
  while (isa > TD_ISA_BASE && !is_compiled(TD_ISAS, isa_name[isa])) isa--;
  return isa;
}

/* Threads that race here find the same answer. */
td_isa td_cpu_isa(void) {
  static int known = -1;
  int isa = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (isa < 0) {
    isa = (int)find_isa();
    __atomic_store_n(&known, isa, __ATOMIC_RELAXED);
  }
  return (td_isa)isa;
}

const char *td_isa_name(td_isa isa) {
  return (unsigned)isa < TD_ISA_COUNT ? isa_name[isa] : "unknown";
}

bool td_cpu_has_bf16(void) {
#if defined(__x86_64__)
  static int known = -1;
  int has = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (has < 0) {
    has = __builtin_cpu_supports("avx512bf16") != 0;
    __atomic_store_n(&known, has, __ATOMIC_RELAXED);
  }
  return has;
#else
  return false;
#endif
}
