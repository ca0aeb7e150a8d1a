// Norm, SwiGLU and attention rows for any processor; compile flags in kernels/CMakeLists.txt.
#define MILLRACE_OPS_KERNELS ScalarOpsKernels
#include "kernels/ops_isa.inc.h"
