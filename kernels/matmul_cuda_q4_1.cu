#include "kernels/matmul_cuda.cuh"

namespace millrace::cuda {

MILLRACE_DEFINE_SMALL_MATMUL(Q4_1)

}  // namespace millrace::cuda
