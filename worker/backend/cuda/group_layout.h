// How a group of matrices lies on a GPU: which are joined to one run, where each one's tiles begin.
// One layout for resident weights (WeightPool) and streamed ones (worker/stream). Pure: no CUDA.
#ifndef MILLRACE_WORKER_BACKEND_CUDA_GROUP_LAYOUT_H_
#define MILLRACE_WORKER_BACKEND_CUDA_GROUP_LAYOUT_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kernels/weight_tiles.h"
#include "proto/bytes.h"
#include "worker/backend/host_tensor.h"

namespace millrace {

// Matrices that lie one after the other in tiles of one type, run as one.
struct WeightRun {
  WeightTiles tiles;
  const float* bias = nullptr;  // [tiles.rows] f32 on the device, or null
};

// A group that is on the device, or of which it is known where it will be.
struct PlacedGroup {
  std::vector<WeightRun> runs;
  int64_t rows = 0, cols = 0;      // of all matrices together
  std::vector<int64_t> part_rows;  // of each matrix
};

// The two matrices of a placed group of gate and up, which are one run or a run each.
std::pair<WeightTiles, WeightTiles> GateAndUp(const PlacedGroup& group);

// One matrix of a group; parts are in the matrices' order.
struct GroupPart {
  DType source{};     // as in the file
  size_t run = 0;     // index into GroupLayout::group.runs
  Bytes offset;       // of its tiles from the start of its run
  WeightTiles tiles;  // its own rows; data is null
};

struct GroupLayout {
  PlacedGroup group;  // data and bias are null
  std::vector<GroupPart> parts;
  std::vector<Bytes> run_offsets;  // where each run begins when runs lie one after the other
  Bytes bytes;                     // all runs, each rounded up to kDeviceAlignment

  // Matrix `part`'s first tile, from the start of the group's memory.
  Bytes PartOffset(size_t part) const { return run_offsets[parts[part].run] + parts[part].offset; }
  // The group in memory at `base` (256-byte aligned, `bytes` long).
  PlacedGroup At(const std::byte* base) const;
};

// Neighbours of one type are joined where the first one's rows fill its tiles. Reads BF16 and F32
// matrices through once (TileMultiplier).
GroupLayout LayOutGroup(absl::Span<const HostTensor> matrices);

// The power of two that brings the largest magnitude of BF16 and F32 matrices into [2^14, 2^15); 1
// for other types and for zeros.
float TileMultiplier(absl::Span<const HostTensor> matrices);

// Biased exponent of the largest magnitude of a BF16 or F32 matrix; 0 for other types. Reads the matrix
// through where it is not known.
int LargestExponent(const HostTensor& matrix);

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_CUDA_GROUP_LAYOUT_H_
