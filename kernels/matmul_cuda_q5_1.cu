#include "kernels/matmul_cuda.cuh"

namespace millrace::cuda {

MILLRACE_DEFINE_SMALL_MATMUL(Q5_1)

}  // namespace millrace::cuda
