#include "kernels/wide_matmul_cuda.h"

#include "absl/status/statusor.h"
#include "kernels/cuda/status.h"
#include "kernels/wide_matmul_params.h"
#include "proto/device_layout.h"
#include "proto/status_macros.h"

namespace millrace::cuda {

#ifdef MILLRACE_HAVE_WGMMA
absl::Status WideMatmul128(const WideParams& p, bool k_types, bool swiglu, StreamView stream);
absl::Status WideMatmul176(const WideParams& p, bool k_types, bool swiglu, StreamView stream);
absl::Status WideMatmul256(const WideParams& p, bool k_types, bool swiglu, StreamView stream);
absl::Status NarrowMatmul16(const WideParams& p, bool k_types, int row_parts, int cluster, bool swiglu,
                            StreamView stream);
absl::Status NarrowMatmul32(const WideParams& p, bool k_types, int row_parts, int cluster, bool swiglu,
                            StreamView stream);
absl::Status NarrowMatmul64(const WideParams& p, bool k_types, int row_parts, int cluster, bool swiglu,
                            StreamView stream);
#endif

namespace {

// Adds a matrix whose row tiles have `tile_rows` rows.
void Add(const WideMatrix& from, int tile_rows, WideParams& p, int64_t& column, int& row_tiles) {
  const WeightTiles& w = from.tiles;
  WideParams::Matrix& m = p.matrix[p.matrices++];
  m.tiles = w.data;
  m.tile_bytes = static_cast<int>(TiledBytes(w.dtype, kTileRows, TileCols(w.dtype)).count());
  m.tiles_per_strip = static_cast<int>((w.cols + TileCols(w.dtype) - 1) / TileCols(w.dtype));
  m.strip_bytes = int64_t{m.tile_bytes} * m.tiles_per_strip;
  m.strips = static_cast<int>((w.rows + kTileRows - 1) / kTileRows);
  m.rows = static_cast<int>(w.rows);
  m.first_row_tile = row_tiles;
  m.dtype = w.dtype;
  m.multiplier = w.multiplier;
  m.bias = from.bias;
  m.column = column;
  column += w.rows;
  row_tiles += static_cast<int>((w.rows + tile_rows - 1) / tile_rows);
  if (m.tile_bytes > p.slot_bytes) p.slot_bytes = m.tile_bytes;
}

void SetInput(const PackedRows& x, WideParams& p) {
  p.x = reinterpret_cast<const uint8_t*>(x.data);
  p.n = static_cast<int>(x.n);
  p.atoms = static_cast<int>(PackedAtoms(x.n));
  p.blocks = static_cast<int>((x.cols + 63) / 64);
}

absl::StatusOr<int> Multiprocessors() {
  int device = 0, multiprocessors = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  return multiprocessors;
}

bool IsKType(DType dtype) { return TileCols(dtype) == 256; }

}  // namespace

bool HasWideMatmul(int device) {
#ifdef MILLRACE_HAVE_WGMMA
  int major = 0, minor = 0;
  return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess &&
         major == 9 && minor == 0;
#else
  return false;
#endif
}

int BestWideTokens(int row_groups, int64_t n, int clusters) {
  int best = 0;
  int64_t least = 0;
  for (int tokens : kWideTokens) {
    const int64_t units = row_groups * ((n + tokens - 1) / tokens);
    // Of one round, in columns of a product: what begins and ends a tile takes about as long as 12.
    const int64_t cost = (units + clusters - 1) / clusters * (tokens + 12);
    if (best == 0 || cost < least) {
      best = tokens;
      least = cost;
    }
  }
  return best;
}

absl::Status LaunchWideMatmul(WideParams p, int tokens, bool swiglu, StreamView stream) {
  p.token_tiles = (p.n + tokens - 1) / tokens;
#ifdef MILLRACE_HAVE_WGMMA
  const bool k_types = IsKType(p.matrix[0].dtype);
  switch (tokens) {
    case 128: return WideMatmul128(p, k_types, swiglu, stream);
    case 176: return WideMatmul176(p, k_types, swiglu, stream);
    case 256: return WideMatmul256(p, k_types, swiglu, stream);
  }
#endif
  return absl::UnimplementedError("WideMatmul: not in this build");
}

absl::Status LaunchNarrowMatmul(const WideParams& p, int row_parts, int cluster, bool swiglu,
                                StreamView stream) {
#ifdef MILLRACE_HAVE_WGMMA
  const bool k_types = IsKType(p.matrix[0].dtype);
  if (p.n <= 16) return NarrowMatmul16(p, k_types, row_parts, cluster, swiglu, stream);
  if (p.n <= 32) return NarrowMatmul32(p, k_types, row_parts, cluster, swiglu, stream);
  if (p.n <= 64) return NarrowMatmul64(p, k_types, row_parts, cluster, swiglu, stream);
#endif
  return absl::UnimplementedError("WideMatmul: not in this build");
}

namespace {

int64_t RoundsOf(int64_t units, int64_t places) { return (units + places - 1) / places; }

// The row parts that keep the blocks busy the shortest; of equal ones the more, which read x less often.
int BestRowParts(absl::Span<const WideMatrix> matrices, int multiprocessors) {
  int64_t rounds[3] = {0, 0, 0};
  for (int parts : {1, 2}) {
    int64_t tiles = 0;
    for (const WideMatrix& m : matrices) tiles += RoundsOf(m.tiles.rows, 64 * parts);
    rounds[parts] = parts * RoundsOf(tiles, multiprocessors);
  }
  return rounds[1] < rounds[2] ? 1 : 2;
}

// Products of the matrices of one family; `matrices` are all.
absl::Status WideFamily(absl::Span<const WideMatrix> matrices, bool k_types, WideParams p,
                        const WideTile& tile, StreamView stream) {
  MILLRACE_ASSIGN_OR_RETURN(const int multiprocessors, Multiprocessors());
  const bool narrow = p.n <= MostNarrowTokens(k_types);
  const int row_parts = tile.row_parts > 0 ? tile.row_parts : BestRowParts(matrices, multiprocessors);
  const int cluster = narrow && tile.cluster > 0 ? tile.cluster : 2;
  int64_t column = 0;
  int row_tiles = 0;
  for (const WideMatrix& matrix : matrices) {
    if (IsKType(matrix.tiles.dtype) == k_types) {
      Add(matrix, narrow ? 64 * row_parts : 128, p, column, row_tiles);
    } else {
      column += matrix.tiles.rows;
    }
  }
  if (p.matrices == 0) return absl::OkStatus();
  p.row_groups = (row_tiles + cluster - 1) / cluster;
  p.token_tiles = 1;
  if (narrow) return LaunchNarrowMatmul(p, row_parts, cluster, false, stream);
  const int tokens = tile.tokens > 0 ? tile.tokens : BestWideTokens(p.row_groups, p.n, multiprocessors / 2);
  return LaunchWideMatmul(p, tokens, false, stream);
}

}  // namespace

absl::Status WideMatmul(absl::Span<const WideMatrix> matrices, const PackedRows& x, bool accumulate,
                        float* y, int64_t ldy, StreamView stream, const WideTile& tile) {
  MILLRACE_CHECK(!matrices.empty() && matrices.size() <= size_t{kMostWideMatrices} && x.n > 0);
  for (const WideMatrix& matrix : matrices) MILLRACE_CHECK(matrix.tiles.cols == x.cols);
  WideParams p;
  SetInput(x, p);
  p.accumulate = accumulate;
  p.y = y;
  p.ldy = ldy;
  MILLRACE_RETURN_IF_ERROR(WideFamily(matrices, true, p, tile, stream));
  return WideFamily(matrices, false, p, tile, stream);
}

bool WideSwiGluTakes(DType gate, DType up) { return IsKType(gate) == IsKType(up); }

absl::Status WideMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const PackedRows& x,
                              const PackedRows& out, StreamView stream, const WideTile& tile) {
  MILLRACE_CHECK(WideSwiGluTakes(gate.dtype, up.dtype) && gate.rows == up.rows);
  MILLRACE_CHECK(gate.cols == x.cols && up.cols == x.cols && out.cols == gate.rows && out.n == x.n);
  MILLRACE_ASSIGN_OR_RETURN(const int multiprocessors, Multiprocessors());
  WideParams p;
  SetInput(x, p);
  p.out = reinterpret_cast<uint8_t*>(out.data);
  int64_t column = 0;
  int row_tiles = 0;
  Add({gate}, 64, p, column, row_tiles);
  int same = 0;  // up's row tiles are gate's
  Add({up}, 64, p, column, same);
  p.row_groups = (row_tiles + 1) / 2;
  p.token_tiles = 1;
  if (x.n <= MostNarrowTokens(IsKType(gate.dtype))) return LaunchNarrowMatmul(p, 2, 2, true, stream);
  const int tokens =
      tile.tokens > 0 ? tile.tokens : BestWideTokens(p.row_groups, x.n, multiprocessors / 2);
  return LaunchWideMatmul(p, tokens, true, stream);
}

}  // namespace millrace::cuda
