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

// x quantised in blocks of `block` values: codes, scales, sums.
size_t QuantizedRowsBytes(int64_t n, int64_t cols, int block) {
  const size_t elements = static_cast<size_t>(n * cols);
  return Align64(elements) + 2 * Align64(elements / static_cast<size_t>(block) * sizeof(float));
}

QuantizedRows LayOut(std::byte* base, int64_t n, int64_t cols, int block) {
  const size_t elements = static_cast<size_t>(n * cols);
  QuantizedRows rows;
  rows.q = reinterpret_cast<int8_t*>(base);
  rows.scale = reinterpret_cast<float*>(base + Align64(elements));
  rows.sum = reinterpret_cast<float*>(
      base + Align64(elements) + Align64(elements / static_cast<size_t>(block) * sizeof(float)));
  return rows;
}

void QuantizeRows(const CpuContext& ctx, const MatmulKernels& kernels, FloatView x, int block,
                  const QuantizedRows& out) {
  const int64_t cols = x.cols, blocks = cols / block;
  ctx.pool->ParallelFor(x.rows, std::max<int64_t>(1, 16384 / cols),
                        [&](int64_t begin, int64_t end, int) {
                          for (int64_t r = begin; r < end; ++r) {
                            kernels.quantize_row(x.row(r), cols, block, out.q + r * cols,
                                                 out.scale + r * blocks, out.sum + r * blocks);
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
  return QuantizedRowsBytes(n, padded, 16) + QuantizedRowsBytes(n, padded, 32) +
         static_cast<size_t>(threads) * Align64(static_cast<size_t>(PanelScratchBytes(padded)));
}

void Matmul(const CpuContext& ctx, FloatView x, absl::Span<const MatmulTarget> targets) {
  if (targets.empty() || x.rows == 0) return;
  const MatmulKernels& kernels = KernelsFor(ctx.isa);
  MILLRACE_CHECK(ctx.scratch_bytes >= MatmulScratchBytes(x.rows, x.cols, ctx.pool->size()));
  std::byte* scratch = ctx.scratch;
  QuantizedRows by_block[2];  // of 16 and of 32 values, each made when a target needs it
  const auto rows_for = [&](DType dtype) -> QuantizedRows& { return by_block[ActivationBlock(dtype) / 32]; };
  for (const MatmulTarget& target : targets) {
    CheckTarget(x, target);
    const int block = ActivationBlock(target.w.dtype);
    if (block == 0 || rows_for(target.w.dtype).q != nullptr) continue;
    rows_for(target.w.dtype) = LayOut(scratch, x.rows, x.cols, block);
    scratch += QuantizedRowsBytes(x.rows, x.cols, block);
    QuantizeRows(ctx, kernels, x, block, rows_for(target.w.dtype));
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
      const MatmulArgs args = ArgsFor(x, rows_for(target.w.dtype), target);
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
