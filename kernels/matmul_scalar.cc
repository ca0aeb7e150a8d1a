// Matmul's inner loops for any processor; compile flags in kernels/CMakeLists.txt.
#define MILLRACE_MATMUL_KERNELS ScalarMatmulKernels
#include "kernels/matmul_isa.inc.h"
