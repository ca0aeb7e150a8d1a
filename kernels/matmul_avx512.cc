// Matmul's inner loops for avx512 (see CpuIsa); compile flags in kernels/CMakeLists.txt.
#define MILLRACE_MATMUL_KERNELS Avx512MatmulKernels
#include "kernels/matmul_isa.inc.h"
