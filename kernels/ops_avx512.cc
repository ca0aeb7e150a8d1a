// Norm, SwiGLU and attention rows for avx512 (see CpuIsa); compile flags in kernels/CMakeLists.txt.
#define MILLRACE_OPS_KERNELS Avx512OpsKernels
#include "kernels/ops_isa.inc.h"
