#include "kernels/cuda/launch.cuh"
#include "kernels/dequantize_cuda.cuh"
#include "kernels/elementwise_cuda.h"

namespace millrace::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxRows = 65535;

// kWidth neighbouring values, loaded and stored at once.
template <int kWidth>
struct alignas(4 * kWidth) Floats {
  float v[kWidth];
};
template <int kWidth>
struct alignas(2 * kWidth) Halves {
  __half v[kWidth];
};

// The first of the columns of this thread in a grid of GridOf.
template <int kWidth>
__device__ __forceinline__ int64_t Column() {
  return (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
}

dim3 GridOf(int64_t rows, int64_t cols, int width) {
  const int64_t per_block = static_cast<int64_t>(kThreads) * width;
  return dim3(static_cast<unsigned>((cols + per_block - 1) / per_block),
              static_cast<unsigned>(rows));
}

// Whether rows at p, `stride` elements of `bytes` bytes apart, can be read four elements at a time.
bool FourWide(const void* p, int64_t stride, int bytes) {
  return reinterpret_cast<uintptr_t>(p) % (4 * bytes) == 0 && stride % 4 == 0;
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    SwiGluKernel(const float* gate_up, int64_t stride, int64_t d_ff, __half* out) {
  LetNextStart();
  WaitForPrevious();
  const int64_t i = Column<kWidth>(), row = blockIdx.y;
  if (i >= d_ff) return;
  const float* from = gate_up + row * stride + i;
  const auto gate = *reinterpret_cast<const Floats<kWidth>*>(from);
  const auto up = *reinterpret_cast<const Floats<kWidth>*>(from + d_ff);
  Halves<kWidth> result;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    result.v[j] = SaturatedHalf(gate.v[j] / (1.0f + expf(-gate.v[j])) * up.v[j]);
  }
  *reinterpret_cast<Halves<kWidth>*>(out + row * d_ff + i) = result;
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    FloatToHalfKernel(const float* x, int64_t stride, int64_t d, __half* out) {
  LetNextStart();
  WaitForPrevious();
  const int64_t i = Column<kWidth>(), row = blockIdx.y;
  if (i >= d) return;
  const auto from = *reinterpret_cast<const Floats<kWidth>*>(x + row * stride + i);
  Halves<kWidth> result;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) result.v[j] = SaturatedHalf(from.v[j]);
  *reinterpret_cast<Halves<kWidth>*>(out + row * d + i) = result;
}

__global__ void __launch_bounds__(kThreads)
    AddBiasKernel(float* y, int64_t stride, int64_t cols, const float* __restrict__ bias) {
  LetNextStart();
  const int64_t i = Column<1>(), row = blockIdx.y;
  const float add = i < cols ? bias[i] : 0.0f;
  WaitForPrevious();
  if (i < cols) y[row * stride + i] += add;
}

template <DType T>
__global__ void __launch_bounds__(kThreads)
    EmbedKernel(const uint8_t* __restrict__ table, int64_t vocab, int64_t d, const int32_t* tokens,
                float* out) {
  constexpr BlockShape kShape = ShapeOf(T);
  LetNextStart();
  WaitForPrevious();
  const int64_t i = Column<1>(), row = blockIdx.y;
  if (i >= d) return;
  const int64_t token = tokens[row];
  float value = 0;
  if (token >= 0 && token < vocab) {
    value = DequantizeAt<T>(table + token * (d / kShape.values * kShape.bytes), i);
  }
  out[row * d + i] = value;
}

using EmbedKernelType = void (*)(const uint8_t*, int64_t, int64_t, const int32_t*, float*);

EmbedKernelType EmbedKernelOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return EmbedKernel<DType::kF32>;
    case DType::kF16:
      return EmbedKernel<DType::kF16>;
    case DType::kBF16:
      return EmbedKernel<DType::kBF16>;
    case DType::kQ8_0:
      return EmbedKernel<DType::kQ8_0>;
    case DType::kQ4_0:
      return EmbedKernel<DType::kQ4_0>;
    case DType::kQ4_1:
      return EmbedKernel<DType::kQ4_1>;
    case DType::kQ5_0:
      return EmbedKernel<DType::kQ5_0>;
    case DType::kQ5_1:
      return EmbedKernel<DType::kQ5_1>;
    case DType::kQ4_K:
      return EmbedKernel<DType::kQ4_K>;
    case DType::kQ5_K:
      return EmbedKernel<DType::kQ5_K>;
    case DType::kQ6_K:
      return EmbedKernel<DType::kQ6_K>;
    case DType::kQ3_K:
      return EmbedKernel<DType::kQ3_K>;
    case DType::kQ2_K:
      return EmbedKernel<DType::kQ2_K>;
  }
  return nullptr;
}

__device__ __forceinline__ __half2 SwiGluPair(__half2 gate, __half2 up) {
  const float2 g = __half22float2(gate), u = __half22float2(up);
  auto finite = [](float v) { return fminf(fmaxf(v, -65504.0f), 65504.0f); };
  auto silu = [&](float v) { return finite(v) / (1.0f + __expf(-finite(v))); };
  return __halves2half2(SaturatedHalf(silu(g.x) * finite(u.x)),
                        SaturatedHalf(silu(g.y) * finite(u.y)));
}

// Eight values a thread.
__global__ void __launch_bounds__(kThreads)
    SwiGluOfHalvesKernel(const __half* gate_up, int64_t stride, int64_t d_ff, __half* out) {
  LetNextStart();
  WaitForPrevious();
  const int64_t i = 8 * (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x);
  if (i >= d_ff) return;
  const __half* row = gate_up + blockIdx.y * stride + i;
  uint4 gate = *reinterpret_cast<const uint4*>(row);
  const uint4 up = *reinterpret_cast<const uint4*>(row + d_ff);
  auto* g = reinterpret_cast<__half2*>(&gate);
  const auto* u = reinterpret_cast<const __half2*>(&up);
#pragma unroll
  for (int j = 0; j < 4; ++j) g[j] = SwiGluPair(g[j], u[j]);
  *reinterpret_cast<uint4*>(out + blockIdx.y * d_ff + i) = gate;
}

}  // namespace

absl::Status SwiGluHalf(const float* gate_up, int64_t stride, int64_t n, int64_t d_ff, __half* out,
                        StreamView stream) {
  MILLRACE_CHECK(n >= 0 && n <= kMaxRows && d_ff > 0 && stride >= 2 * d_ff);
  if (n == 0) return absl::OkStatus();
  const bool wide = FourWide(gate_up, stride, 4) && FourWide(out, d_ff, 2);
  return Launch(wide ? SwiGluKernel<4> : SwiGluKernel<1>, GridOf(n, d_ff, wide ? 4 : 1),
                dim3(kThreads), 0, stream, gate_up, stride, d_ff, out);
}

absl::Status SwiGluOfHalves(const __half* gate_up, int64_t stride, int64_t n, int64_t d_ff,
                            __half* out, StreamView stream) {
  MILLRACE_CHECK(n >= 0 && n <= kMaxRows && d_ff > 0 && stride >= 2 * d_ff);
  MILLRACE_CHECK(d_ff % 8 == 0 && stride % 8 == 0);
  if (n == 0) return absl::OkStatus();
  const int64_t blocks = (d_ff / 8 + kThreads - 1) / kThreads;
  return Launch(SwiGluOfHalvesKernel,
                dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(n)), dim3(kThreads), 0,
                stream, gate_up, stride, d_ff, out);
}

absl::Status EmbedRows(const void* table, DType dtype, int64_t vocab, int64_t d,
                       const int32_t* tokens, int64_t n, float* out, StreamView stream) {
  MILLRACE_CHECK(n >= 0 && n <= kMaxRows && d > 0 && d % ShapeOf(dtype).values == 0);
  const EmbedKernelType kernel = EmbedKernelOf(dtype);
  MILLRACE_CHECK(kernel != nullptr);
  if (n == 0) return absl::OkStatus();
  return Launch(kernel, GridOf(n, d, 1), dim3(kThreads), 0, stream,
                static_cast<const uint8_t*>(table), vocab, d, tokens, out);
}

absl::Status AddBias(float* y, int64_t stride, int64_t n, int64_t cols, const float* bias,
                     StreamView stream) {
  MILLRACE_CHECK(n >= 0 && n <= kMaxRows && cols > 0 && stride >= cols);
  if (n == 0) return absl::OkStatus();
  return Launch(AddBiasKernel, GridOf(n, cols, 1), dim3(kThreads), 0, stream, y, stride, cols,
                bias);
}

absl::Status FloatToHalf(const float* x, int64_t stride, int64_t n, int64_t d, __half* out,
                         StreamView stream) {
  MILLRACE_CHECK(n >= 0 && n <= kMaxRows && d > 0 && stride >= d);
  if (n == 0) return absl::OkStatus();
  const bool wide = FourWide(x, stride, 4) && FourWide(out, d, 2);
  return Launch(wide ? FloatToHalfKernel<4> : FloatToHalfKernel<1>, GridOf(n, d, wide ? 4 : 1),
                dim3(kThreads), 0, stream, x, stride, d, out);
}

}  // namespace millrace::cuda
