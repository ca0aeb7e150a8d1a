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

int Strips(int64_t rows) { return static_cast<int>((rows + kTileRows - 1) / kTileRows); }

SmallMatmulParams ParamsFor(const WeightTiles& w, const MatmulInput& x) {
  MILLRACE_CHECK(x.n >= 1 && x.n <= kSmallMatmulRows && x.ldx >= w.cols && x.ldx % 8 == 0);
  MILLRACE_CHECK(x.norm.sums == nullptr || (x.n <= kDeferredNormRows && x.norm.parts >= 1 &&
                                            x.norm.parts <= kDeferredNormParts));
  SmallMatmulParams p;
  p.w = w.data;
  p.rows = static_cast<int>(w.rows);
  p.cols = static_cast<int>(w.cols);
  p.strips = Strips(w.rows);
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

// One activation row has a kernel of its own where the device runs it.
absl::Status Run(const MatvecOp& op, StreamView stream) {
  if (op.p.n == 1) {
    MILLRACE_ASSIGN_OR_RETURN(const bool has, HasMatvec());
    if (has && FitOneLaunch({&op, 1})) return RunMatvecs({&op, 1}, {}, 0, stream);
  }
  return Dispatch(op.dtype, op.p, op.swiglu, stream);
}

}  // namespace

MatvecOp MatvecOf(const WeightTiles& w, const MatmulInput& x, const float* bias, bool accumulate,
                  float* y) {
  MatvecOp op;
  op.dtype = w.dtype;
  op.p = ParamsFor(w, x);
  op.p.bias = bias;
  op.p.accumulate = accumulate;
  op.p.y = y;
  return op;
}

MatvecOp MatvecSwiGluOf(const WeightTiles& gate, const WeightTiles& up, const MatmulInput& x,
                        __half* out) {
  MILLRACE_CHECK(gate.dtype == up.dtype && gate.rows == up.rows && gate.cols == up.cols);
  MatvecOp op;
  op.dtype = gate.dtype;
  op.swiglu = true;
  op.p = ParamsFor(gate, x);
  op.p.up = up.data;
  op.p.up_multiplier = up.multiplier;
  op.p.out = out;
  return op;
}

bool NormFits(const WeightTiles& w, int n) {
  if (n == 1) return Strips(w.rows) <= kDeferredNormParts;
  return n <= kDeferredNormRows && SmallMatmulBlocks(w.dtype, w.rows, n) <= kDeferredNormParts;
}

MatvecOp MatvecThenNormOf(const WeightTiles& w, const MatmulInput& x, const float* bias, float* y,
                          NextNorm& next) {
  MILLRACE_CHECK(NormFits(w, x.n) && x.norm.sums == nullptr && next.before.d == w.rows);
  next.after.parts = Strips(w.rows);
  next.after.d = next.before.d;
  next.after.epsilon = next.before.epsilon;
  MatvecOp op = MatvecOf(w, x, bias, true, y);
  op.p.norm = next.before;
  op.p.next_weight = next.weight;
  op.p.normed = next.out;
  op.p.ld_normed = next.ldo;
  op.p.next_sums = next.after.sums;
  op.p.next_prescale = next.after.prescale;
  return op;
}

absl::Status SmallMatmul(const WeightTiles& w, const MatmulInput& x, const float* bias,
                         bool accumulate, float* y, int64_t ldy, StreamView stream) {
  MatvecOp op = MatvecOf(w, x, bias, accumulate, y);
  op.p.ldy = ldy;
  return Run(op, stream);
}

absl::Status SmallMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const MatmulInput& x,
                               __half* out, int64_t ldo, StreamView stream) {
  MatvecOp op = MatvecSwiGluOf(gate, up, x, out);
  op.p.ldy = ldo;
  return Run(op, stream);
}

absl::Status SmallMatmulThenNorm(const WeightTiles& w, const MatmulInput& x, const float* bias,
                                 float* y, int64_t ldy, NextNorm& next, StreamView stream) {
  MatvecOp op = MatvecThenNormOf(w, x, bias, y, next);
  op.p.ldy = ldy;
  MILLRACE_ASSIGN_OR_RETURN(const bool has, HasMatvec());
  if (x.n > 1 || !has || !FitOneLaunch({&op, 1})) next.after.parts = SmallMatmulBlocks(w.dtype, w.rows, x.n);
  return Run(op, stream);
}

}  // namespace millrace::cuda
