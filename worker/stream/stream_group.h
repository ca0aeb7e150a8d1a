// What is streamed: groups of matrices, cut into chunks for the copy engine.
#ifndef MILLRACE_WORKER_STREAM_STREAM_GROUP_H_
#define MILLRACE_WORKER_STREAM_STREAM_GROUP_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/bytes.h"
#include "worker/backend/cuda/group_layout.h"

namespace millrace {

// Rows of one matrix that cross the link in one copy.
struct StreamChunk {
  int group = -1;
  int part = 0;                       // matrix of the group
  int64_t first_row = 0;              // a multiple of 16
  int64_t rows = 0;                   // a multiple of 16, but for a matrix's last chunk
  absl::Span<const std::byte> bytes;  // as they lie in the file, gaps between rows included
  Bytes row_stride{}, row_bytes{};    // where there are gaps; 0: none
  Bytes offset;  // where their tiles begin, from the start of the group's ring bytes

  // What crosses the link.
  Bytes size() const {
    return row_stride > Bytes(0) ? row_bytes * rows : Bytes(static_cast<int64_t>(bytes.size()));
  }
};

// The matrices of one op, brought to the device together.
struct StreamGroup {
  std::string name;                // for people and traces: "blk.3.ffn_gate.weight+1"
  std::vector<std::string> parts;  // the matrices' names
  Bytes ring_bytes;                // what it takes in the ring, a multiple of 256
  std::vector<StreamChunk> chunks;
};

// Group number `index` of `matrices`, which lie in the ring as `layout` (LayOutGroup of them) says.
// Chunks are whole strips of 16 rows, as many as fit `chunk_bytes`. Unimplemented, with the tensor
// named, where 16 rows do not fit.
absl::StatusOr<StreamGroup> MakeStreamGroup(int index, absl::Span<const HostTensor> matrices,
                                            const GroupLayout& layout, Bytes chunk_bytes);

}  // namespace millrace

#endif  // MILLRACE_WORKER_STREAM_STREAM_GROUP_H_
