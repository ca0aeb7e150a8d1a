#include "kernels/cuda/status.h"
#include "kernels/norm_cuda.h"

namespace millrace::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// The sum over the block, known to all its threads.
__device__ float BlockSum(float value) {
  __shared__ float of_warp[kWarps];
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += of_warp[w];
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    RmsNormKernel(const float* x, int64_t d, const float* __restrict__ weight, float epsilon,
                  float* out) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * d;
  float squares = 0;
  for (int64_t i = threadIdx.x; i < d; i += kThreads) squares += x[row + i] * x[row + i];
  const float mean = BlockSum(squares) / static_cast<float>(d);
  const float scale = 1.0f / sqrtf(mean + epsilon);
  for (int64_t i = threadIdx.x; i < d; i += kThreads) out[row + i] = x[row + i] * scale * weight[i];
}

}  // namespace

absl::Status RmsNorm(const float* x, int64_t n, int64_t d, const float* weight, float epsilon,
                     float* out, StreamView stream) {
  MILLRACE_CHECK(n >= 0 && n <= INT32_MAX && d > 0);
  if (n == 0) return absl::OkStatus();
  RmsNormKernel<<<static_cast<unsigned>(n), kThreads, 0, stream.get()>>>(x, d, weight, epsilon,
                                                                         out);
  return MILLRACE_CUDA_STATUS(cudaGetLastError());
}

}  // namespace millrace::cuda
