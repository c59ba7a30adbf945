/* What this processor can do. */
#ifndef TD_BASE_CPU_H
#define TD_BASE_CPU_H
#include <stdbool.h>

typedef enum { TD_ISA_BASE, TD_ISA_AVX2, TD_ISA_AVX512, TD_ISA_COUNT } td_isa;

/* The best instruction set that was compiled in and runs here; TIDE_ISA=base|avx2|avx512 lowers
 * it. */
td_isa td_cpu_isa(void);
const char *td_isa_name(td_isa isa);
/* Whether there are instructions for products of bfloat16 (AVX512-BF16). */
bool td_cpu_has_bf16(void);

#endif
