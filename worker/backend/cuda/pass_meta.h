// PassMeta: what a pass's kernels read of it in device memory (tokens, rows, outputs), laid out at
// fixed places so that a recorded pass can be replayed with other contents.
#ifndef MILLRACE_WORKER_BACKEND_CUDA_PASS_META_H_
#define MILLRACE_WORKER_BACKEND_CUDA_PASS_META_H_

#include <cstddef>
#include <cstdint>

#include <vector>

#include "absl/types/span.h"
#include "kernels/attention_cuda.h"
#include "kernels/pass_rows.h"
#include "kernels/sample_cuda.h"
#include "worker/backend/cuda/gpu_memory.h"
#include "worker/pass.h"

namespace millrace {

// Token ids of all repetition windows of a pass that the device takes.
inline constexpr int kMaxRecentTokens = 8192;

// Offsets in bytes for passes of up to `rows` rows in up to `segments` segments.
struct PassMetaLayout {
  PassMetaLayout(int rows, int segments);
  size_t tokens = 0;         // int32 [rows]
  size_t slots = 0;          // int32 [rows]
  size_t positions = 0;      // int32 [rows]
  size_t single_positions = 0;  // int32 [rows]: -1 where a row belongs to an AttentionTile
  size_t output_rows = 0;    // int32 [kMaxGpuHeadRows]
  size_t requests = 0;       // cuda::SampleRequest [kMaxGpuHeadRows]
  size_t recent = 0;         // int32 [kMaxRecentTokens]
  size_t tiles = 0;          // cuda::AttentionTile
  size_t tile_capacity = 0;
  size_t bytes = 0;
};

// What of a pass decides which kernels run.
struct PassShape {
  int rows = 0;
  int single_rows = 0;  // rows [0, single_rows) may attend one by one; 0: none does
  int tiles = 0;        // of rows that attend together
  bool one_row_each = true;  // no segment has more rows than one
  int max_context = 0;  // tokens that a single row attends to, at most
};

// Segments of at least this many rows attend in tiles.
inline constexpr int kLeastTiledRows = 16;

// Fills host memory laid out by `layout`. Outputs are those from `first_output` on, see
// WriteOutputs.
PassShape WriteRows(const Pass& pass, absl::Span<const AttentionSegment> segments,
                    absl::Span<const int> positions, const PassMetaLayout& layout, std::byte* to);

// True where the device alone can answer the request; otherwise its logits go to the host.
bool DeviceSamples(const OutputRequest& request);

// outputs [first, first + count) of the pass: rows, requests and recent tokens. Requests whose recent
// tokens do not fit any more get none and are reported in `to_host` (resized to count).
void WriteOutputs(const Pass& pass, int first, int count, const PassMetaLayout& layout,
                  std::byte* to, std::vector<bool>& to_host);

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_CUDA_PASS_META_H_
