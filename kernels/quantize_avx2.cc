// Quantisers of K types for avx2 (see CpuIsa); compile flags in kernels/CMakeLists.txt.
#define MILLRACE_QUANTIZE_KERNELS Avx2QuantizeKernels
#include "kernels/quantize_isa.inc.h"
