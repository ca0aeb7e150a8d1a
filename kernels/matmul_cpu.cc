#include <algorithm>
#include <vector>

#include "kernels/matmul_driver.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

// From this many rows of x on, unpacking panels of W beats going through its blocks per row.
constexpr int64_t kPanelFromRows = 9;
// Rows of W per unit of work in the matrix-vector path.
constexpr int64_t kVectorRows = 16;
// Rows of x that meet float weights at a time: 32 of 8192 values are 1 MiB.
constexpr int64_t kFloatInputRows = 32;

MatmulTables TablesFor(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAmx) return {Avx512MatmulKernels(), &AmxTileKernels()};
  if (isa == CpuIsa::kAvx512) return {Avx512MatmulKernels()};
  if (isa == CpuIsa::kAvx2) return {Avx2MatmulKernels()};
#endif
  return {ScalarMatmulKernels()};
}

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

void CheckTarget(FloatView x, const MatmulTarget& target) {
  MILLRACE_CHECK(target.w.cols == x.cols);
  MILLRACE_CHECK(target.y.rows == x.rows);
  MILLRACE_CHECK(target.y.cols == target.w.rows);
}

// Float weights need no unpacking: a few rows of W, in the cache after the first time, meet all
// rows of x, some of them at a time.
void FloatRows(const MatmulKernels& kernels, MatmulArgs args, FloatView x, FloatView y,
               int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; row += kVectorRows) {
    for (int64_t t = 0; t < x.rows; t += kFloatInputRows) {
      args.n = std::min(kFloatInputRows, x.rows - t);
      args.x = x.row(t);
      args.out.y = y.row(t);
      kernels.vector(args, row, std::min(row + kVectorRows, end));
    }
  }
}

// x stays f32 for float weights and is quantised for the others, at most once per block length.
void MatmulByVectors(const MatmulKernels& kernels, const CpuContext& ctx, FloatView x,
                     absl::Span<const MatmulTarget> targets) {
  std::byte* scratch = ctx.scratch;
  QuantizedRows by_block[2];  // of 16 and of 32 values
  const auto rows_for = [&](DType dtype) -> QuantizedRows& {
    return by_block[ActivationBlock(dtype) / 32];
  };
  for (const MatmulTarget& target : targets) {
    const int block = ActivationBlock(target.w.dtype);
    if (block == 0 || rows_for(target.w.dtype).q != nullptr) continue;
    rows_for(target.w.dtype) = LayOut(scratch, x.rows, x.cols, block);
    scratch += QuantizedRowsBytes(x.rows, x.cols, block);
    QuantizeRows(ctx, kernels, x, block, rows_for(target.w.dtype));
  }
  const bool panels = x.rows >= kPanelFromRows;
  const int64_t unit = panels ? kernels.panel_rows : kVectorRows;
  const size_t panel_bytes = Align64(static_cast<size_t>(PanelScratchBytes(x.cols)));
  ctx.pool->ParallelGuided(CountUnits(targets, unit), [&](int64_t begin, int64_t end, int thread) {
    std::byte* panel = scratch + static_cast<size_t>(thread) * panel_bytes;
    ForUnits(targets, unit, begin, end, [&](const MatmulTarget& target, int64_t from, int64_t to) {
      MatmulArgs args = ArgsFor(target, x.rows);
      args.xq = rows_for(target.w.dtype);
      args.x_stride = x.stride;
      if (!Info(args.dtype).quantized) return FloatRows(kernels, args, x, target.y, from, to);
      if (!panels) return kernels.vector(args, from, to);
      for (int64_t r = from; r < to; r += unit) {
        kernels.panel(args, r, std::min(r + unit, to), panel);
      }
    });
  });
}

}  // namespace

MatmulArgs ArgsFor(const MatmulTarget& target, int64_t n) {
  MatmulArgs args;
  args.w = static_cast<const uint8_t*>(target.w.data);
  args.dtype = target.w.dtype;
  args.row_bytes = target.w.stride().count();
  args.cols = target.w.cols;
  args.n = n;
  args.out = {target.y.data, target.y.stride, target.bias, target.accumulate};
  return args;
}

size_t MatmulScratchBytes(int64_t n, int64_t cols, int threads) {
  const int64_t padded = (cols + 31) / 32 * 32;
  const size_t vectors =
      QuantizedRowsBytes(n, padded, 16) + QuantizedRowsBytes(n, padded, 32) +
      static_cast<size_t>(threads) * Align64(static_cast<size_t>(PanelScratchBytes(padded)));
  return std::max(vectors, TiledScratchBytes(n, padded, threads));
}

void MatmulWith(const MatmulTables& tables, const CpuContext& ctx, FloatView x,
                absl::Span<const MatmulTarget> targets) {
  if (targets.empty() || x.rows == 0) return;
  for (const MatmulTarget& target : targets) CheckTarget(x, target);
  MILLRACE_CHECK(ctx.scratch_bytes >= MatmulScratchBytes(x.rows, x.cols, ctx.pool->size()));
  if (tables.tiles == nullptr || x.rows < kTilesFromRows) {
    return MatmulByVectors(tables.kernels, ctx, x, targets);
  }
  std::vector<MatmulTarget> quantized, floats;
  for (const MatmulTarget& target : targets) {
    (Info(target.w.dtype).quantized ? quantized : floats).push_back(target);
  }
  MatmulTiled(*tables.tiles, *ctx.pool, x, quantized, ctx.scratch);
  if (!floats.empty()) MatmulByVectors(tables.kernels, ctx, x, floats);
}

void Matmul(const CpuContext& ctx, FloatView x, absl::Span<const MatmulTarget> targets) {
  MatmulWith(TablesFor(ctx.isa), ctx, x, targets);
}

void DequantizeRow(DType dtype, const void* row, int64_t cols, float* out) {
  static const CpuIsa isa = DetectCpuIsa();
  TablesFor(isa).kernels.dequantize_row(dtype, row, cols, out);
}

}  // namespace millrace
