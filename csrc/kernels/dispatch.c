/* Chooses the kernels of this processor, once. */
#include "base/cpu.h"
#include "kernels/kernels.h"
#include "kernels/precision.h"

td_precision td_k_precision = TD_FAST;

#define TD_TABLES(isa) \
  extern const td_kernels td_k_table_f32_##isa, td_k_table_f64_##isa, td_k_table_i64_##isa;
TD_TABLES(base)
#if defined(__x86_64__)
TD_TABLES(avx2)
TD_TABLES(avx512)
#endif

const td_kernels *td_k(td_dtype d) {
  static const td_kernels *const table[TD_ISA_COUNT][3] = {
    {&td_k_table_f32_base, &td_k_table_f64_base, &td_k_table_i64_base},
#if defined(__x86_64__)
    {&td_k_table_f32_avx2, &td_k_table_f64_avx2, &td_k_table_i64_avx2},
    {&td_k_table_f32_avx512, &td_k_table_f64_avx512, &td_k_table_i64_avx512},
#endif
  };
  static const td_kernels *const *chosen;
  if (!chosen) chosen = table[td_cpu_isa()];
  return chosen[d == TD_U8 ? TD_I64 : d];
}
