// Quantisers of K types for scalar (see CpuIsa); compile flags in kernels/CMakeLists.txt.
#define MILLRACE_QUANTIZE_KERNELS ScalarQuantizeKernels
#include "kernels/quantize_isa.inc.h"
