#include "kernels/matmul_cuda.cuh"

namespace millrace::cuda {

MILLRACE_DEFINE_SMALL_MATMUL(Q3_K)

}  // namespace millrace::cuda
