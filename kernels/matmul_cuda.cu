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

SmallMatmulParams ParamsFor(const WeightTiles& w, const MatmulInput& x) {
  MILLRACE_CHECK(x.n >= 1 && x.n <= kSmallMatmulRows && x.ldx >= w.cols && x.ldx % 8 == 0);
  MILLRACE_CHECK(x.norm.sums == nullptr || (x.n <= kDeferredNormRows && x.norm.parts >= 1 &&
                                            x.norm.parts <= kDeferredNormParts));
  SmallMatmulParams p;
  p.w = w.data;
  p.rows = static_cast<int>(w.rows);
  p.cols = static_cast<int>(w.cols);
  p.strips = static_cast<int>((w.rows + kTileRows - 1) / kTileRows);
  p.tiles_per_strip = static_cast<int>((w.cols + TileCols(w.dtype) - 1) / TileCols(w.dtype));
  p.x = x.x;
  p.ldx = x.ldx;
  p.n = x.n;
  p.norm = x.norm;
  p.leads = x.leads;
  p.follows = x.follows;
  p.multiplier = w.multiplier;
  return p;
}

}  // namespace

absl::Status SmallMatmul(const WeightTiles& w, const MatmulInput& x, const float* bias,
                         bool accumulate, float* y, int64_t ldy, StreamView stream) {
  SmallMatmulParams p = ParamsFor(w, x);
  p.bias = bias;
  p.accumulate = accumulate;
  p.y = y;
  p.ldy = ldy;
  return Dispatch(w.dtype, p, false, stream);
}

absl::Status SmallMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const MatmulInput& x,
                               __half* out, int64_t ldo, StreamView stream) {
  MILLRACE_CHECK(gate.dtype == up.dtype && gate.rows == up.rows && gate.cols == up.cols);
  SmallMatmulParams p = ParamsFor(gate, x);
  p.up = up.data;
  p.up_multiplier = up.multiplier;
  p.out = out;
  p.ldy = ldo;
  return Dispatch(gate.dtype, p, true, stream);
}

bool NormFits(const WeightTiles& w, int n) {
  return n <= kDeferredNormRows && SmallMatmulBlocks(w.dtype, w.rows, n) <= kDeferredNormParts;
}

absl::Status SmallMatmulThenNorm(const WeightTiles& w, const MatmulInput& x, const float* bias,
                                 float* y, int64_t ldy, NextNorm& next, StreamView stream) {
  MILLRACE_CHECK(NormFits(w, x.n) && x.norm.sums == nullptr && next.before.d == w.rows);
  next.after.parts = SmallMatmulBlocks(w.dtype, w.rows, x.n);
  next.after.d = next.before.d;
  next.after.epsilon = next.before.epsilon;
  SmallMatmulParams p = ParamsFor(w, x);
  p.bias = bias;
  p.accumulate = true;
  p.y = y;
  p.ldy = ldy;
  p.norm = next.before;
  p.next_weight = next.weight;
  p.normed = next.out;
  p.ld_normed = next.ldo;
  p.next_sums = next.after.sums;
  p.next_prescale = next.after.prescale;
  return Dispatch(w.dtype, p, false, stream);
}

}  // namespace millrace::cuda
