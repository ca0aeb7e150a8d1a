// Matmul's inner loops for avx2 (see CpuIsa); compile flags in kernels/CMakeLists.txt.
#define MILLRACE_MATMUL_KERNELS Avx2MatmulKernels
#include "kernels/matmul_isa.inc.h"
