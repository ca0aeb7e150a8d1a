#include "kernels/matmul_cuda.cuh"

namespace millrace::cuda {

MILLRACE_DEFINE_SMALL_MATMUL(Q8_0)

}  // namespace millrace::cuda
