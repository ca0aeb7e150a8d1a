// Norm, SwiGLU and attention rows for avx2 (see CpuIsa); compile flags in kernels/CMakeLists.txt.
#define MILLRACE_OPS_KERNELS Avx2OpsKernels
#include "kernels/ops_isa.inc.h"
