#include <algorithm>

#include "kernels/matmul_driver.h"

namespace millrace {

// Up to 32 rows of x the sums of 32 rows of W stay in tile registers. With more, and where x does
// not fit the second-level cache beside W, tall panels read x less often; they must still be enough
// for all threads.
TileShape TileShapeFor(int64_t n, int64_t cols, int64_t total_rows, int threads) {
  constexpr int64_t kInputThatFits = 1 << 20;
  TileShape shape;
  const int64_t most = TileInputBytes(n, cols) <= kInputThatFits ? 32
                       : n <= 32                                 ? 64
                                                                 : kTilePanelRows;
  while (shape.rows < most && total_rows / (2 * shape.rows) >= 4 * threads) shape.rows *= 2;
  return shape;
}

void PackForTiles(const TileKernels& tiles, ThreadPool& pool, FloatView x, uint16_t* packed) {
  constexpr int64_t kGrain = 2;  // up to 8192 values
  pool.ParallelFor(TileBlocks(x.cols) * ((x.rows + 15) / 16), kGrain,
                   [&](int64_t begin, int64_t end, int) {
                     tiles.pack(x.data, x.stride, x.rows, x.cols, begin, end, packed);
                   });
}

void MatmulSlab(const TileKernels& tiles, ThreadPool& pool, FloatView x, int64_t first_row,
                absl::Span<const MatmulTarget> targets, TileShape shape, std::byte* scratch) {
  uint16_t* packed = reinterpret_cast<uint16_t*>(scratch);
  PackForTiles(tiles, pool, x, packed);
  scratch += Align64(static_cast<size_t>(TileInputBytes(x.rows, x.cols)));
  const size_t panel_bytes = Align64(static_cast<size_t>(TilePanelScratchBytes(x.rows)));
  pool.ParallelGuided(CountUnits(targets, shape.rows), [&](int64_t begin, int64_t end, int thread) {
    std::byte* panel = scratch + static_cast<size_t>(thread) * panel_bytes;
    const auto run = [&](const MatmulTarget& target, int64_t from, int64_t to) {
      MatmulArgs args = ArgsFor(target, x.rows);
      args.xt = packed;
      args.out.y += first_row * args.out.stride;
      TileWork work;
      work.chunk = shape.chunk;
      for (int64_t r = from; r < to; r += shape.rows) {
        work.begin = r;
        work.end = std::min(r + shape.rows, to);
        work.limit = shape.ask == TileShape::Ask::kChunk ? work.end : to;
        work.cold = r == from || shape.ask != TileShape::Ask::kPanel;
        tiles.panel(args, work, panel);
      }
    };
    ForUnits(targets, shape.rows, begin, end, run);
  });
}

size_t TiledScratchBytes(int64_t n, int64_t cols, int threads) {
  const int64_t slab = std::min(n, kTileInputRows);
  return Align64(static_cast<size_t>(TileInputBytes(slab, cols))) +
         static_cast<size_t>(threads) * Align64(static_cast<size_t>(TilePanelScratchBytes(slab)));
}

void MatmulTiled(const TileKernels& tiles, ThreadPool& pool, FloatView x,
                 absl::Span<const MatmulTarget> targets, std::byte* scratch) {
  if (targets.empty()) return;
  int64_t total_rows = 0;
  for (const MatmulTarget& target : targets) total_rows += target.w.rows;
  for (int64_t t = 0; t < x.rows; t += kTileInputRows) {
    const int64_t rows = std::min(kTileInputRows, x.rows - t);
    MatmulSlab(tiles, pool, FloatView(x.row(t), rows, x.cols, x.stride), t, targets,
               TileShapeFor(rows, x.cols, total_rows, pool.size()), scratch);
  }
}

}  // namespace millrace
