#include <algorithm>

#include "absl/status/statusor.h"
#include "kernels/cuda/status.h"
#include "kernels/wide_matmul_cuda.h"
#include "kernels/wide_matmul_params.h"
#include "proto/device_layout.h"
#include "proto/status_macros.h"

namespace millrace::cuda {

namespace {

constexpr int kRowTile = 128;  // weight rows of a block

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

absl::StatusOr<int> Clusters() {
  int device = 0, multiprocessors = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  return multiprocessors / 2;
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

int BestWideTokens(int row_pairs, int64_t n, int clusters) {
  int best = 0;
  int64_t least = 0;
  for (int tokens : kWideTokens) {
    const int64_t units = row_pairs * ((n + tokens - 1) / tokens);
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
    case 128:
      return WideMatmul128(p, k_types, swiglu, stream);
    case 176:
      return WideMatmul176(p, k_types, swiglu, stream);
    case 256:
      return WideMatmul256(p, k_types, swiglu, stream);
  }
#endif
  return absl::UnimplementedError("WideMatmul: not in this build");
}

absl::Status LaunchNarrowMatmul(const WideParams& p, int row_parts, bool swiglu,
                                StreamView stream) {
#ifdef MILLRACE_HAVE_WGMMA
  return IsKType(p.matrix[0].dtype) ? NarrowMatmulK(p, row_parts, swiglu, stream)
                                    : NarrowMatmulFlat(p, row_parts, swiglu, stream);
#else
  return absl::UnimplementedError("WideMatmul: not in this build");
#endif
}

namespace {

// Matrices for which `takes` is true; the others have their columns of y.
template <typename Takes>
void AddAll(absl::Span<const WideMatrix> matrices, int tile_rows, Takes takes, WideParams& p) {
  int64_t column = 0;
  int row_tiles = 0;
  for (const WideMatrix& matrix : matrices) {
    if (takes(matrix.tiles.dtype)) {
      Add(matrix, tile_rows, p, column, row_tiles);
    } else {
      column += matrix.tiles.rows;
    }
  }
  p.row_pairs = (row_tiles + 1) / 2;
}

// Row parts of a block (wide_matmul_params.h) that take the fewest rounds.
int NarrowRowParts(const WideParams& two, const WideParams& one, int clusters) {
#ifdef MILLRACE_DEV
  if (const char* parts = getenv("NARROW_PARTS")) return two.n <= 32 ? atoi(parts) : 2;
#endif
  auto rounds = [&](const WideParams& p) { return (p.row_pairs + clusters - 1) / clusters; };
  return two.n <= 32 && rounds(one) < 2 * rounds(two) ? 1 : 2;
}

// One launch per type.
absl::Status NarrowMatmul(absl::Span<const WideMatrix> matrices, const WideParams& shared,
                          int clusters, StreamView stream) {
  for (size_t i = 0; i < matrices.size(); ++i) {
    const DType dtype = matrices[i].tiles.dtype;
    auto same = [&](const WideMatrix& m) { return m.tiles.dtype == dtype; };
    if (std::any_of(matrices.begin(), matrices.begin() + i, same)) continue;
    auto takes = [&](DType t) { return t == dtype; };
    WideParams one = shared, two = shared;
    AddAll(matrices, kRowTile, takes, two);
    AddAll(matrices, kRowTile / 2, takes, one);
    const int parts = NarrowRowParts(two, one, clusters);
    MILLRACE_RETURN_IF_ERROR(LaunchNarrowMatmul(parts == 1 ? one : two, parts, false, stream));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WideMatmul(absl::Span<const WideMatrix> matrices, const PackedRows& x, bool accumulate,
                        float* y, int64_t ldy, StreamView stream, int tokens) {
  MILLRACE_CHECK(!matrices.empty() && matrices.size() <= size_t{kMostWideMatrices} && x.n > 0);
  for (const WideMatrix& matrix : matrices) MILLRACE_CHECK(matrix.tiles.cols == x.cols);
  MILLRACE_ASSIGN_OR_RETURN(const int clusters, Clusters());
  WideParams shared;
  SetInput(x, shared);
  shared.token_tiles = 1;
  shared.accumulate = accumulate;
  shared.y = y;
  shared.ldy = ldy;
  if (tokens == 0 && x.n <= kMostNarrowRows) {
    return NarrowMatmul(matrices, shared, clusters, stream);
  }
  for (bool k_types : {true, false}) {
    WideParams p = shared;
    AddAll(
        matrices, kRowTile, [&](DType t) { return IsKType(t) == k_types; }, p);
    if (p.matrices == 0) continue;
    const int width = tokens > 0 ? tokens : BestWideTokens(p.row_pairs, x.n, clusters);
    MILLRACE_RETURN_IF_ERROR(LaunchWideMatmul(p, width, false, stream));
  }
  return absl::OkStatus();
}

bool WideSwiGluTakes(DType gate, DType up) { return IsKType(gate) == IsKType(up); }

namespace {

// Gate and up of the same row tiles.
WideParams SwiGluParams(const WeightTiles& gate, const WeightTiles& up, const PackedRows& x) {
  MILLRACE_CHECK(WideSwiGluTakes(gate.dtype, up.dtype) && gate.rows == up.rows);
  MILLRACE_CHECK(gate.cols == x.cols && up.cols == x.cols && x.n > 0);
  WideParams p;
  SetInput(x, p);
  p.token_tiles = 1;
  int64_t column = 0;
  int row_tiles = 0, same = 0;
  Add({gate}, kRowTile / 2, p, column, row_tiles);
  Add({up}, kRowTile / 2, p, column, same);
  p.row_pairs = (row_tiles + 1) / 2;
  return p;
}

}  // namespace

absl::Status WideMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const PackedRows& x,
                              const PackedRows& out, StreamView stream, int tokens) {
  MILLRACE_CHECK(out.cols == gate.rows && out.n == x.n);
  MILLRACE_ASSIGN_OR_RETURN(const int clusters, Clusters());
  WideParams p = SwiGluParams(gate, up, x);
  p.out = reinterpret_cast<uint8_t*>(out.data);
  const int width = tokens > 0 ? tokens : BestWideTokens(p.row_pairs, x.n, clusters);
  return LaunchWideMatmul(p, width, true, stream);
}

absl::Status NarrowMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const PackedRows& x,
                                __half* out, int64_t ldo, StreamView stream) {
  MILLRACE_CHECK(gate.dtype == up.dtype && x.n <= kMostNarrowRows && ldo >= gate.rows);
  WideParams p = SwiGluParams(gate, up, x);
  p.halves = out;
  p.ldy = ldo;
  return LaunchNarrowMatmul(p, 2, true, stream);
}

}  // namespace millrace::cuda
