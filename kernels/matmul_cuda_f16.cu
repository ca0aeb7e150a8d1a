#include "kernels/matmul_cuda.cuh"

namespace millrace::cuda {

MILLRACE_DEFINE_SMALL_MATMUL(F16)

}  // namespace millrace::cuda
