#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/packed_place.cuh"
#include "kernels/norm_cuda.h"

namespace millrace::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHalfThreads = 512;
constexpr int kMostVectors = 8;  // of four values a thread keeps

// The sum over the block, known to all its threads. Once per kernel.
template <int kBlock>
__device__ float BlockSum(float value) {
  constexpr int kWarps = kBlock / 32;
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
  const float mean = BlockSum<kThreads>(squares) / static_cast<float>(d);
  const float scale = 1.0f / sqrtf(mean + epsilon);
  for (int64_t i = threadIdx.x; i < d; i += kThreads) out[row + i] = x[row + i] * scale * weight[i];
}

struct HalfNorm {
  const float* x;  // rows ldx apart
  int64_t ldx;
  const int32_t* row_index;  // or null
  int64_t d;
  const float* weight;
  float epsilon;
  __half* out;  // dense, or packed where `atoms` is not 0
  int atoms;
  DeferredNorm after;  // sums null: an ordinary norm
};

__device__ __forceinline__ const float* RowOf(const HalfNorm& norm) {
  const int64_t row = norm.row_index != nullptr ? norm.row_index[blockIdx.x] : blockIdx.x;
  return norm.x + row * norm.ldx;
}

__device__ __forceinline__ float ScaleOf(const HalfNorm& norm, float squares) {
  const float sum = BlockSum<kHalfThreads>(squares);
  float scale = 1.0f / sqrtf(sum / static_cast<float>(norm.d) + norm.epsilon);
  if (norm.after.sums == nullptr) return scale;
  scale *= kNormHeadroom;
  if (threadIdx.x == 0) {
    norm.after.sums[static_cast<int64_t>(blockIdx.x) * kDeferredNormParts] = sum;
    norm.after.prescale[blockIdx.x] = scale;
  }
  return scale;
}

struct alignas(8) FourHalves {
  __half v[4];
};

// Columns 4i .. 4i + 3 of the block's row.
__device__ __forceinline__ void Store(const HalfNorm& norm, int i, const FourHalves& v) {
  if (norm.atoms == 0) {
    reinterpret_cast<FourHalves*>(norm.out + blockIdx.x * norm.d)[i] = v;
    return;
  }
  auto* out = reinterpret_cast<uint8_t*>(norm.out);
  const int row = static_cast<int>(blockIdx.x);
  *reinterpret_cast<__half2*>(out + PackedPlace(norm.atoms, row, 4 * i)) = __halves2half2(v.v[0], v.v[1]);
  *reinterpret_cast<__half2*>(out + PackedPlace(norm.atoms, row, 4 * i + 2)) =
      __halves2half2(v.v[2], v.v[3]);
}

// d is a multiple of 4 and at most 4 kHalfThreads kVectors; x and weight are 16-byte aligned,
// out 8. The row and its weights stay in registers between the two phases.
template <int kVectors>
__global__ void __launch_bounds__(kHalfThreads) RmsNormHalfKernel(HalfNorm norm) {
  LetNextStart();
  const int vectors = static_cast<int>(norm.d / 4);
  const float4* weight = reinterpret_cast<const float4*>(norm.weight);
  const float4 zero = make_float4(0, 0, 0, 0);
  float4 w[kVectors], v[kVectors];
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int i = static_cast<int>(threadIdx.x) + j * kHalfThreads;
    w[j] = i < vectors ? weight[i] : zero;
  }
  WaitForPrevious();
  const float4* x = reinterpret_cast<const float4*>(RowOf(norm));
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int i = static_cast<int>(threadIdx.x) + j * kHalfThreads;
    v[j] = i < vectors ? x[i] : zero;
  }
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    squares += v[j].x * v[j].x + v[j].y * v[j].y + v[j].z * v[j].z + v[j].w * v[j].w;
  }
  const float scale = ScaleOf(norm, squares);
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int i = static_cast<int>(threadIdx.x) + j * kHalfThreads;
    if (i >= vectors) continue;
    Store(norm, i, {SaturatedHalf(v[j].x * scale * w[j].x), SaturatedHalf(v[j].y * scale * w[j].y),
                    SaturatedHalf(v[j].z * scale * w[j].z), SaturatedHalf(v[j].w * scale * w[j].w)});
  }
}

// Any d and any alignment.
__global__ void __launch_bounds__(kHalfThreads) RmsNormHalfAnyKernel(HalfNorm norm) {
  LetNextStart();
  WaitForPrevious();
  const float* x = RowOf(norm);
  float squares = 0;
  for (int64_t i = threadIdx.x; i < norm.d; i += kHalfThreads) squares += x[i] * x[i];
  const float scale = ScaleOf(norm, squares);
  __half* out = norm.out + blockIdx.x * norm.d;
  for (int64_t i = threadIdx.x; i < norm.d; i += kHalfThreads) {
    out[i] = SaturatedHalf(x[i] * scale * norm.weight[i]);
  }
}

bool Aligned(const void* p, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

using HalfNormKernel = void (*)(HalfNorm);

HalfNormKernel HalfNormKernelFor(const HalfNorm& norm) {
  const bool wide = norm.d % 4 == 0 && norm.ldx % 4 == 0 && Aligned(norm.x, 16) &&
                    Aligned(norm.weight, 16) && Aligned(norm.out, 8);
  const int64_t vectors = (norm.d + 4 * kHalfThreads - 1) / (4 * kHalfThreads);
  if (!wide || vectors > kMostVectors) return RmsNormHalfAnyKernel;
  if (vectors > 4) return RmsNormHalfKernel<kMostVectors>;
  if (vectors > 2) return RmsNormHalfKernel<4>;
  return vectors == 2 ? RmsNormHalfKernel<2> : RmsNormHalfKernel<1>;
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

absl::Status RmsNormHalf(const float* x, int64_t ldx, const int32_t* row_index, int64_t n,
                         int64_t d, const float* weight, float epsilon, __half* out,
                         StreamView stream) {
  MILLRACE_CHECK(n >= 0 && n <= INT32_MAX && d > 0 && ldx >= d);
  if (n == 0) return absl::OkStatus();
  const HalfNorm norm = {x, ldx, row_index, d, weight, epsilon, out, 0, {}};
  return Launch(HalfNormKernelFor(norm), dim3(static_cast<unsigned>(n)), dim3(kHalfThreads), 0,
                stream, norm);
}

bool RmsNormPacks(int64_t d) { return d % 64 == 0 && d <= kMostVectors * 4 * kHalfThreads; }

absl::Status RmsNormPacked(const float* x, int64_t ldx, const float* weight, float epsilon,
                           const PackedRows& out, StreamView stream) {
  MILLRACE_CHECK(RmsNormPacks(out.cols) && ldx >= out.cols && ldx % 4 == 0 && out.n > 0);
  const HalfNorm norm = {x, ldx, nullptr, out.cols, weight, epsilon, out.data,
                         static_cast<int>(PackedAtoms(out.n)), {}};
  const HalfNormKernel kernel = HalfNormKernelFor(norm);
  MILLRACE_CHECK(kernel != RmsNormHalfAnyKernel);
  return Launch(kernel, dim3(static_cast<unsigned>(out.n)), dim3(kHalfThreads), 0, stream, norm);
}

absl::Status RmsNormDeferred(const float* x, int64_t ldx, int64_t n, const float* weight,
                             const DeferredNorm& after, __half* out, StreamView stream) {
  MILLRACE_CHECK(n >= 1 && n <= kDeferredNormRows && after.d > 0 && ldx >= after.d &&
                 after.parts == 1);
  const HalfNorm norm = {x, ldx, nullptr, after.d, weight, after.epsilon, out, 0, after};
  return Launch(HalfNormKernelFor(norm), dim3(static_cast<unsigned>(n)), dim3(kHalfThreads), 0,
                stream, norm);
}

}  // namespace millrace::cuda
