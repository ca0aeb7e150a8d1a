#include <algorithm>
#include <cstring>

#include "kernels/matmul.h"
#include "kernels/matmul_kernels.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

// From this many rows of x on, unpacking panels of W beats going through its blocks per row.
constexpr int64_t kPanelFromRows = 9;
// Rows of W per unit of work in the matrix-vector path.
constexpr int64_t kVectorRows = 16;

const MatmulKernels& KernelsFor(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return Avx512MatmulKernels();
  if (isa == CpuIsa::kAvx2) return Avx2MatmulKernels();
#endif
  return ScalarMatmulKernels();
}

size_t Align64(size_t bytes) { return (bytes + 63) / 64 * 64; }

size_t QuantizedRowsBytes(int64_t n, int64_t cols) {
  const size_t elements = static_cast<size_t>(n * cols);
  return Align64(elements) + Align64(elements / 32 * 4) + 2 * Align64(elements / 16 * 4);
}

QuantizedRows LayOut(std::byte* base, int64_t n, int64_t cols) {
  const size_t elements = static_cast<size_t>(n * cols);
  QuantizedRows rows;
  rows.q = reinterpret_cast<int8_t*>(base);
  base += Align64(elements);
  rows.scale = reinterpret_cast<float*>(base);
  base += Align64(elements / 32 * 4);
  rows.scale16 = reinterpret_cast<float*>(base);
  base += Align64(elements / 16 * 4);
  rows.sum16 = reinterpret_cast<float*>(base);
  return rows;
}

void QuantizeRows(const CpuContext& ctx, const MatmulKernels& kernels, FloatView x,
                  const QuantizedRows& out) {
  const int64_t cols = x.cols;
  ctx.pool->ParallelFor(x.rows, std::max<int64_t>(1, 16384 / cols),
                        [&](int64_t begin, int64_t end, int) {
                          for (int64_t r = begin; r < end; ++r) {
                            kernels.quantize_row(x.row(r), cols, out.q + r * cols,
                                                 out.scale + r * (cols / 32),
                                                 out.scale16 + r * (cols / 16),
                                                 out.sum16 + r * (cols / 16));
                          }
                        });
}

MatmulArgs ArgsFor(FloatView x, const QuantizedRows& xq, const MatmulTarget& target) {
  MatmulArgs args;
  args.w = static_cast<const uint8_t*>(target.w.data);
  args.dtype = target.w.dtype;
  args.row_bytes = RowBytes(target.w.dtype, target.w.cols).count();
  args.cols = target.w.cols;
  args.n = x.rows;
  args.xq = xq;
  args.x = x.data;
  args.x_stride = x.stride;
  args.out = {target.y.data, target.y.stride, target.bias, target.accumulate};
  return args;
}

void CheckTarget(FloatView x, const MatmulTarget& target) {
  MILLRACE_CHECK(target.w.cols == x.cols);
  MILLRACE_CHECK(target.y.rows == x.rows);
  MILLRACE_CHECK(target.y.cols == target.w.rows);
}

}  // namespace

size_t MatmulScratchBytes(int64_t n, int64_t cols, int threads) {
  const int64_t padded = (cols + 31) / 32 * 32;
  return QuantizedRowsBytes(n, padded) +
         static_cast<size_t>(threads) * Align64(static_cast<size_t>(PanelScratchBytes(padded)));
}

void Matmul(const CpuContext& ctx, FloatView x, absl::Span<const MatmulTarget> targets) {
  if (targets.empty() || x.rows == 0) return;
  const MatmulKernels& kernels = KernelsFor(ctx.isa);
  bool quantized = false;
  for (const MatmulTarget& target : targets) {
    CheckTarget(x, target);
    quantized |= Info(target.w.dtype).quantized;
  }
  MILLRACE_CHECK(ctx.scratch_bytes >= MatmulScratchBytes(x.rows, x.cols, ctx.pool->size()));
  QuantizedRows xq;
  std::byte* scratch = ctx.scratch;
  if (quantized) {
    xq = LayOut(scratch, x.rows, x.cols);
    scratch += QuantizedRowsBytes(x.rows, x.cols);
    QuantizeRows(ctx, kernels, x, xq);
  }

  // Units of work: runs of rows of W, over all targets in one parallel loop.
  const bool panels = x.rows >= kPanelFromRows;
  const int64_t unit = panels ? kernels.panel_rows : kVectorRows;
  int64_t units = 0;
  for (const MatmulTarget& target : targets) units += (target.w.rows + unit - 1) / unit;
  const size_t panel_bytes = Align64(static_cast<size_t>(PanelScratchBytes(x.cols)));
  const int64_t grain =
      panels ? 1 : std::clamp<int64_t>(units / (8 * ctx.pool->size()), 1, 16);
  ctx.pool->ParallelFor(units, grain, [&](int64_t begin, int64_t end, int thread) {
    int64_t first = 0;  // unit at which the current target begins
    for (const MatmulTarget& target : targets) {
      const int64_t count = (target.w.rows + unit - 1) / unit;
      const int64_t from = std::max(begin, first) - first, to = std::min(end, first + count) - first;
      first += count;
      if (from >= to) continue;
      const MatmulArgs args = ArgsFor(x, xq, target);
      if (!panels) {
        kernels.vector(args, from * unit, std::min(to * unit, target.w.rows));
        continue;
      }
      for (int64_t u = from; u < to; ++u) {
        kernels.panel(args, u * unit, std::min((u + 1) * unit, target.w.rows),
                      scratch + static_cast<size_t>(thread) * panel_bytes);
      }
    }
  });
}

void DequantizeRow(DType dtype, const void* row, int64_t cols, float* out) {
  static const CpuIsa isa = DetectCpuIsa();
  KernelsFor(isa).dequantize_row(dtype, row, cols, out);
}

}  // namespace millrace
