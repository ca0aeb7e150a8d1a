#include <algorithm>

#include "kernels/matmul_driver.h"

namespace millrace {
namespace {

// Rows of W per unit of work. Up to 32 rows of x the sums of 32 rows of W stay in tile registers.
// With more, tall panels read each tile of x less often; they must still be enough for all threads.
int64_t PanelRows(int64_t n, int64_t total_rows, int threads) {
  int64_t rows = 32;
  if (n <= 32) return rows;
  while (rows < kTilePanelRows && total_rows / (2 * rows) >= 4 * threads) rows *= 2;
  return rows;
}

void PackAll(const TileKernels& tiles, ThreadPool& pool, FloatView x, uint16_t* packed) {
  const int64_t steps = x.cols / 32;
  const int64_t grain = std::max<int64_t>(1, 512 / x.rows);  // about 16 thousand values
  pool.ParallelFor(steps, grain, [&](int64_t begin, int64_t end, int) {
    tiles.pack(x.data, x.stride, x.rows, x.cols, begin, end, packed);
  });
}

// At most kTileInputRows rows of x.
void MultiplySlab(const TileKernels& tiles, ThreadPool& pool, FloatView x, int64_t first_row,
                  absl::Span<const MatmulTarget> targets, std::byte* scratch) {
  uint16_t* packed = reinterpret_cast<uint16_t*>(scratch);
  PackAll(tiles, pool, x, packed);
  scratch += Align64(static_cast<size_t>(TileInputBytes(x.rows, x.cols)));
  int64_t rows = 0;
  for (const MatmulTarget& target : targets) rows += target.w.rows;
  const int64_t unit = PanelRows(x.rows, rows, pool.size());
  const size_t panel_bytes = Align64(static_cast<size_t>(TilePanelScratchBytes(x.rows)));
  pool.ParallelGuided(CountUnits(targets, unit), [&](int64_t begin, int64_t end, int thread) {
    std::byte* panel = scratch + static_cast<size_t>(thread) * panel_bytes;
    ForUnits(targets, unit, begin, end, [&](const MatmulTarget& target, int64_t from, int64_t to) {
      MatmulArgs args = ArgsFor(target, x.rows);
      args.xt = packed;
      args.out.y += first_row * args.out.stride;
      for (int64_t r = from; r < to; r += unit) tiles.panel(args, r, std::min(r + unit, to), panel);
    });
  });
}

}  // namespace

size_t TiledScratchBytes(int64_t n, int64_t cols, int threads) {
  const int64_t slab = std::min(n, kTileInputRows);
  return Align64(static_cast<size_t>(TileInputBytes(slab, cols))) +
         static_cast<size_t>(threads) * Align64(static_cast<size_t>(TilePanelScratchBytes(slab)));
}

void MatmulTiled(const TileKernels& tiles, ThreadPool& pool, FloatView x,
                 absl::Span<const MatmulTarget> targets, std::byte* scratch) {
  if (targets.empty()) return;
  for (int64_t t = 0; t < x.rows; t += kTileInputRows) {
    const int64_t rows = std::min(kTileInputRows, x.rows - t);
    MultiplySlab(tiles, pool, FloatView(x.row(t), rows, x.cols, x.stride), t, targets, scratch);
  }
}

}  // namespace millrace
