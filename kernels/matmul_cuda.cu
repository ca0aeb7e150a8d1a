#include "kernels/matmul_cuda.h"

#include "kernels/matmul_cuda.cuh"

namespace millrace::cuda {
namespace {

absl::Status Dispatch(DType dtype, const SmallMatmulParams& p, bool swiglu, StreamView stream) {
  switch (dtype) {
    case DType::kF16: return SmallMatmulF16(p, swiglu, stream);
    case DType::kQ8_0: return SmallMatmulQ8_0(p, swiglu, stream);
    case DType::kQ4_0: return SmallMatmulQ4_0(p, swiglu, stream);
    case DType::kQ4_1: return SmallMatmulQ4_1(p, swiglu, stream);
    case DType::kQ5_0: return SmallMatmulQ5_0(p, swiglu, stream);
    case DType::kQ5_1: return SmallMatmulQ5_1(p, swiglu, stream);
    case DType::kQ4_K: return SmallMatmulQ4_K(p, swiglu, stream);
    case DType::kQ5_K: return SmallMatmulQ5_K(p, swiglu, stream);
    case DType::kQ6_K: return SmallMatmulQ6_K(p, swiglu, stream);
    case DType::kQ3_K: return SmallMatmulQ3_K(p, swiglu, stream);
    case DType::kQ2_K: return SmallMatmulQ2_K(p, swiglu, stream);
    default: return absl::InternalError("SmallMatmul: not a tiled type");
  }
}

SmallMatmulParams ParamsFor(const WeightTiles& w, const __half* x, int64_t ldx, int n) {
  MILLRACE_CHECK(n >= 1 && n <= kSmallMatmulRows && ldx >= w.cols && ldx % 8 == 0);
  SmallMatmulParams p;
  p.w = w.data;
  p.rows = static_cast<int>(w.rows);
  p.cols = static_cast<int>(w.cols);
  p.strips = static_cast<int>((w.rows + kTileRows - 1) / kTileRows);
  p.tiles_per_strip = static_cast<int>((w.cols + TileCols(w.dtype) - 1) / TileCols(w.dtype));
  p.x = x;
  p.ldx = ldx;
  p.n = n;
  p.multiplier = w.multiplier;
  return p;
}

}  // namespace

absl::Status SmallMatmul(const WeightTiles& w, const __half* x, int64_t ldx, int n, const float* bias,
                         bool accumulate, float* y, int64_t ldy, StreamView stream) {
  SmallMatmulParams p = ParamsFor(w, x, ldx, n);
  p.bias = bias;
  p.accumulate = accumulate;
  p.y = y;
  p.ldy = ldy;
  return Dispatch(w.dtype, p, false, stream);
}

absl::Status SmallMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const __half* x,
                               int64_t ldx, int n, __half* out, int64_t ldo, StreamView stream) {
  MILLRACE_CHECK(gate.dtype == up.dtype && gate.rows == up.rows && gate.cols == up.cols);
  SmallMatmulParams p = ParamsFor(gate, x, ldx, n);
  p.up = up.data;
  p.up_multiplier = up.multiplier;
  p.out = out;
  p.ldy = ldo;
  return Dispatch(gate.dtype, p, true, stream);
}

}  // namespace millrace::cuda
