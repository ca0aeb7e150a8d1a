// What Matmul does with a table of inner loops: quantising or packing x, sharing rows of W out to
// the threads. Internal to the kernels and their tests, which run tables of their own.
#ifndef MILLRACE_KERNELS_MATMUL_DRIVER_H_
#define MILLRACE_KERNELS_MATMUL_DRIVER_H_

#include <algorithm>

#include "absl/types/span.h"
#include "kernels/matmul.h"
#include "kernels/matmul_kernels.h"

namespace millrace {

// From this many rows of x on, tile registers beat vectors.
inline constexpr int64_t kTilesFromRows = 5;

inline size_t Align64(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Matmul with these tables whatever ctx.isa says.
void MatmulWith(const MatmulTables& tables, const CpuContext& ctx, FloatView x,
                absl::Span<const MatmulTarget> targets);

// How W is cut for tiles.
struct TileShape {
  int64_t rows = 32;           // a unit of work
  int64_t chunk = kTileBlock;  // columns unpacked at a time
  // What DRAM is asked for while rows are unpacked: the same rows' next chunk, the next panel
  // (where there is none before it the next chunk), both.
  enum class Ask { kChunk, kPanel, kBoth } ask = Ask::kPanel;
};
TileShape TileShapeFor(int64_t n, int64_t cols, int64_t total_rows, int threads);

// Quantised targets only, any n. `scratch` holds TiledScratchBytes(n, cols, threads), 64-byte
// aligned.
void MatmulTiled(const TileKernels& tiles, ThreadPool& pool, FloatView x,
                 absl::Span<const MatmulTarget> targets, std::byte* scratch);
// The same with a shape given. At most kTileInputRows rows of x, whose results begin at row
// `first_row` of the targets' y.
void MatmulSlab(const TileKernels& tiles, ThreadPool& pool, FloatView x, int64_t first_row,
                absl::Span<const MatmulTarget> targets, TileShape shape, std::byte* scratch);
void PackForTiles(const TileKernels& tiles, ThreadPool& pool, FloatView x, uint16_t* packed);
size_t TiledScratchBytes(int64_t n, int64_t cols, int threads);

// The arguments that kernels of every kind need; what they read of x is for the caller to add.
MatmulArgs ArgsFor(const MatmulTarget& target, int64_t n);

// Units of work: runs of `unit` rows of W, over all targets one behind the other.
inline int64_t CountUnits(absl::Span<const MatmulTarget> targets, int64_t unit) {
  int64_t units = 0;
  for (const MatmulTarget& target : targets) units += (target.w.rows + unit - 1) / unit;
  return units;
}

// Calls f(target, first row, end of rows) for the parts of targets that units [begin, end) are.
template <typename F>
void ForUnits(absl::Span<const MatmulTarget> targets, int64_t unit, int64_t begin, int64_t end,
              F f) {
  int64_t first = 0;  // unit at which the current target begins
  for (const MatmulTarget& target : targets) {
    const int64_t count = (target.w.rows + unit - 1) / unit;
    const int64_t from = std::max(begin, first) - first, to = std::min(end, first + count) - first;
    first += count;
    if (from < to) f(target, from * unit, std::min(to * unit, target.w.rows));
  }
}

}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_DRIVER_H_
