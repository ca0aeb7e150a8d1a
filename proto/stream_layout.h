// How weights homed in host memory reach a GPU: in groups, each the matrices of one op, through a
// ring in device memory. The planner counts with it, the runtime streams with it.
//
// Contract between plan and runtime:
// 1. A group is the matrices of one op: {q, k, v} and {output} of an attention block, {gate, up}
// and
//    {down} of a feed-forward block, the output matrix of the head. Groups are streamed whole, in
//    the order of the blocks, and again from the first after the last, across passes.
// 2. The ring is a circular arena of Stage::stream_ring bytes. A group takes `tiled` bytes in one
//    piece: where it does not fit before the end, it begins at 0. Its room is taken when its copy
//    begins and given back when the op has run. The ring holds at least the largest group.
// 3. Beside the ring lies raw staging, StreamStaging(the largest raw group that streams in any pass),
//    from which the tiles are made. Ring and staging are the ledger's "stream ring", rounded up together to kDeviceGrain.
// 4. Norm vectors and biases of host-homed blocks are held on the device, with the weights.
// 5. A feed-forward block takes the host route in passes of up to host_route_max_tokens; attention
//    and head blocks always stream. A host-homed embedding is looked up by the CPU: rows are
//    gathered there and [n, d_model] f32 are copied up. It takes nothing on the device.
//    In passes that a share of BlockPlacement::cpu_shares is for, the CPU computes the first units of
//    the block (CpuWork) and the groups are slices: rows [units, d_ff) of gate and up, columns
//    [units, d_ff) of down, laid out and streamed as if they were matrices of their own.
// 6. A block homed on disk is streamed in every pass, like one in host memory that takes no host
// route.
#ifndef MILLRACE_PROTO_STREAM_LAYOUT_H_
#define MILLRACE_PROTO_STREAM_LAYOUT_H_

#include <algorithm>
#include <vector>

#include "proto/bytes.h"
#include "proto/device_layout.h"
#include "proto/model_spec.h"

namespace millrace {

// Copies are made in chunks of this, of which four are under way: 16 MiB is well past the 4 MiB
// from which on a link runs at its full rate.
inline constexpr Bytes kStreamChunk = 16_MiB;
inline constexpr int kStreamChunks = 4;
inline constexpr Bytes kStreamStaging = kStreamChunk * kStreamChunks;

// Weights homed on disk are read ahead of the copies into locked buffers of a chunk each, whole
// pages of 4 KiB around it: what they take of host memory.
inline constexpr int kDiskBuffers = 8;
inline constexpr Bytes kDiskStaging = (kStreamChunk + 8_KiB) * kDiskBuffers;

// Passes of more tokens never take the host route where the planner chooses routes.
inline constexpr int kMaxHostRouteTokens = 512;

struct StreamedGroup {
  std::vector<int> tensors;  // indices into ModelSpec::tensors
  Bytes raw;                 // as in the file: what crosses the link
  Bytes tiled;               // as on the device: what it takes of the ring
};

// In the order of use; empty for the embedding. Of a feed-forward block the units from `first_unit`
// on, of which there are some.
std::vector<StreamedGroup> StreamedGroupsOf(const ModelSpec& model, const Block& block,
                                            int first_unit = 0);

// Raw staging where `largest_raw` is the largest group that streams; zero for none.
inline Bytes StreamStaging(Bytes largest_raw) {
  return std::min(kStreamStaging, RoundUp(largest_raw, kDeviceAlignment));
}

// Norms and biases of a block as held on the device.
Bytes BlockVectorBytes(const ModelSpec& model, const Block& block);

}  // namespace millrace

#endif  // MILLRACE_PROTO_STREAM_LAYOUT_H_
