#include <algorithm>

#include "absl/status/statusor.h"
#include "kernels/cuda/status.h"
#include "kernels/narrow_choice.h"
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

absl::Status LaunchNarrowMatmul(const WideParams& p, bool swiglu, StreamView stream) {
#ifdef MILLRACE_HAVE_WGMMA
  return IsKType(p.matrix[0].dtype) ? NarrowMatmulK(p, swiglu, stream)
                                    : NarrowMatmulFlat(p, swiglu, stream);
#else
  return absl::UnimplementedError("NarrowMatmul: not in this build");
#endif
}

namespace {

// Matrices for which `takes` is true; the others have their columns of y. Returns the row tiles.
template <typename Takes>
int AddAll(absl::Span<const WideMatrix> matrices, int tile_rows, Takes takes, WideParams& p) {
  int64_t column = 0;
  int row_tiles = 0;
  for (const WideMatrix& matrix : matrices) {
    if (takes(matrix.tiles.dtype)) {
      Add(matrix, tile_rows, p, column, row_tiles);
    } else {
      column += matrix.tiles.rows;
    }
  }
  return row_tiles;
}

// What several products of the same x have in common.
WideParams SharedParams(const PackedRows& x, bool accumulate, float* y, int64_t ldy) {
  WideParams p;
  SetInput(x, p);
  p.token_tiles = 1;
  p.accumulate = accumulate;
  p.y = y;
  p.ldy = ldy;
  return p;
}

// The matrices of one type. row_parts 0: as takes the least.
absl::Status NarrowMatmulOf(DType dtype, absl::Span<const WideMatrix> matrices,
                            const WideParams& shared, int clusters, int row_parts,
                            StreamView stream) {
  WideParams best;
  int64_t least = 0;
  for (int parts : {1, 2, 4}) {
    if (parts == 1 && shared.n > 32) continue;  // has no kernel
    if (row_parts != 0 && row_parts != parts) continue;
    WideParams p = shared;
    const int tiles = AddAll(
        matrices, 64 * parts, [&](DType t) { return t == dtype; }, p);
    p.row_pairs = NarrowHalves(parts) ? tiles : (tiles + 1) / 2;
    const int64_t cost = NarrowCost(p.row_pairs, p.n, parts, NarrowHalves(parts), clusters);
    if (best.matrices > 0 && cost >= least) continue;
    best = p;
    best.row_parts = parts;
    least = cost;
  }
  MILLRACE_CHECK(best.matrices > 0);
  return LaunchNarrowMatmul(best, false, stream);
}

}  // namespace

absl::Status NarrowMatmul(absl::Span<const WideMatrix> matrices, const PackedRows& x,
                          bool accumulate, float* y, int64_t ldy, StreamView stream,
                          int row_parts) {
  MILLRACE_CHECK(!matrices.empty() && matrices.size() <= size_t{kMostWideMatrices});
  MILLRACE_CHECK(x.n > 0 && x.n <= kMostNarrowRows);
  for (const WideMatrix& matrix : matrices) MILLRACE_CHECK(matrix.tiles.cols == x.cols);
  MILLRACE_ASSIGN_OR_RETURN(const int clusters, Clusters());
  const WideParams shared = SharedParams(x, accumulate, y, ldy);
  for (size_t i = 0; i < matrices.size(); ++i) {
    const DType dtype = matrices[i].tiles.dtype;
    auto same = [&](const WideMatrix& m) { return m.tiles.dtype == dtype; };
    if (std::any_of(matrices.begin(), matrices.begin() + i, same)) continue;
    MILLRACE_RETURN_IF_ERROR(
        NarrowMatmulOf(dtype, matrices, shared, clusters, row_parts, stream));
  }
  return absl::OkStatus();
}

absl::Status WideMatmul(absl::Span<const WideMatrix> matrices, const PackedRows& x, bool accumulate,
                        float* y, int64_t ldy, StreamView stream, int tokens) {
  MILLRACE_CHECK(!matrices.empty() && matrices.size() <= size_t{kMostWideMatrices} && x.n > 0);
  for (const WideMatrix& matrix : matrices) MILLRACE_CHECK(matrix.tiles.cols == x.cols);
  if (tokens == 0 && x.n <= kMostNarrowRows) {
    return NarrowMatmul(matrices, x, accumulate, y, ldy, stream);
  }
  MILLRACE_ASSIGN_OR_RETURN(const int clusters, Clusters());
  const WideParams shared = SharedParams(x, accumulate, y, ldy);
  for (bool k_types : {true, false}) {
    WideParams p = shared;
    const int tiles = AddAll(
        matrices, kRowTile, [&](DType t) { return IsKType(t) == k_types; }, p);
    if (p.matrices == 0) continue;
    p.row_pairs = (tiles + 1) / 2;
    const int width = tokens > 0 ? tokens : BestWideTokens(p.row_pairs, x.n, clusters);
    MILLRACE_RETURN_IF_ERROR(LaunchWideMatmul(p, width, false, stream));
  }
  return absl::OkStatus();
}

bool WideSwiGluTakes(DType gate, DType up) { return IsKType(gate) == IsKType(up); }

namespace {

// Gate and up of the same tiles of `tile_rows` rows each.
WideParams SwiGluParams(const WeightTiles& gate, const WeightTiles& up, const PackedRows& x,
                        int tile_rows) {
  MILLRACE_CHECK(WideSwiGluTakes(gate.dtype, up.dtype) && gate.rows == up.rows);
  MILLRACE_CHECK(gate.cols == x.cols && up.cols == x.cols && x.n > 0);
  WideParams p;
  SetInput(x, p);
  p.token_tiles = 1;
  int64_t column = 0;
  int row_tiles = 0, same = 0;
  Add({gate}, tile_rows, p, column, row_tiles);
  Add({up}, tile_rows, p, column, same);
  p.row_pairs = (row_tiles + 1) / 2;
  return p;
}

}  // namespace

absl::Status WideMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const PackedRows& x,
                              const PackedRows& out, StreamView stream, int tokens) {
  MILLRACE_CHECK(out.cols == gate.rows && out.n == x.n);
  MILLRACE_ASSIGN_OR_RETURN(const int clusters, Clusters());
  WideParams p = SwiGluParams(gate, up, x, kRowTile / 2);
  p.out = reinterpret_cast<uint8_t*>(out.data);
  const int width = tokens > 0 ? tokens : BestWideTokens(p.row_pairs, x.n, clusters);
  return LaunchWideMatmul(p, width, true, stream);
}

namespace {

// All but where results go.
WideParams NarrowSwiGluParams(const WeightTiles& gate, const WeightTiles& up,
                              const PackedRows& x) {
  MILLRACE_CHECK(gate.dtype == up.dtype && x.n <= kMostNarrowRows);
  WideParams p = SwiGluParams(gate, up, x, 32 * kSwiGluRowParts);
  p.row_parts = kSwiGluRowParts;
  return p;
}

}  // namespace

absl::Status NarrowMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const PackedRows& x,
                                __half* out, int64_t ldo, StreamView stream) {
  MILLRACE_CHECK(out != nullptr && ldo >= gate.rows);
  WideParams p = NarrowSwiGluParams(gate, up, x);
  p.halves = out;
  p.ldy = ldo;
  return LaunchNarrowMatmul(p, true, stream);
}

absl::Status NarrowMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const PackedRows& x,
                                const PackedRows& out, StreamView stream) {
  MILLRACE_CHECK(out.cols == gate.rows && out.n == x.n);
  WideParams p = NarrowSwiGluParams(gate, up, x);
  p.out = reinterpret_cast<uint8_t*>(out.data);
  return LaunchNarrowMatmul(p, true, stream);
}

}  // namespace millrace::cuda
