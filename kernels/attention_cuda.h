// Causal grouped-query attention on a CUDA device: the formula of kernels/attention.h, with queries
// and results in f16. Keys, values and softmax weights enter the tensor cores as f16 (cache values
// beyond its range saturate); scores, softmax and sums are FP32.
//
// Here q and out are [n, heads * head_dim] f16, dense; cache is a KvView of device pointers,
// 16-byte aligned, of any of its types, head_dim in 8..256 and a multiple of 8 (q8_0: of 32); scale
// > 0; the cache already holds the rows' own keys and values. All pointers are of the stream's
// device, which is current. Calls are asynchronous: the status is the launch's. The same call on
// the same contents gives the same bits.
#ifndef MILLRACE_KERNELS_ATTENTION_CUDA_H_
#define MILLRACE_KERNELS_ATTENTION_CUDA_H_

#include <cuda_fp16.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/attention.h"
#include "kernels/cuda/stream.h"
#include "kernels/pass_rows.h"
#include "kernels/rope_cuda.h"
#include "proto/bytes.h"

namespace millrace::cuda {

// ---- one row of a sequence at a time
// -------------------------------------------------------------

// Into how many parts AttentionDecode should divide the context of each of n rows, none longer than
// max_context. Every row divides its own context, so longer and shorter ones are also right.
int DecodeSplits(int device_multiprocessors, int kv_heads, int n, int max_context);
inline constexpr int kMaxDecodeSplits = 128;
// Up to so many parts are joined without going through memory; shorter contexts get no more.
inline constexpr int kClusterParts = 8, kClusterContext = 2048;

// Working memory of AttentionDecode, for one launch at a time. `counters` is zeroed by the caller
// once; every launch that runs to its end leaves zeros.
struct DecodeWorkspace {
  float* partials = nullptr;     // DecodePartialBytes
  uint32_t* counters = nullptr;  // DecodeCounterBytes
};
Bytes DecodePartialBytes(int n, int heads, int head_dim, int splits);  // grows with each argument
Bytes DecodeCounterBytes(int n, int heads);

// Row r attends to positions 0..rows.position[r] of slot rows.slot[r]; rows of one sequence may be
// among them. 1 <= splits <= kMaxDecodeSplits. Rows left out (pass_rows.h) keep what `out` holds.
absl::Status AttentionDecode(const __half* q, int heads, const KvView& cache, const PassRows& rows,
                             float scale, int splits, const DecodeWorkspace& workspace, __half* out,
                             StreamView stream);

// RopeAppend and AttentionDecode in one launch. A row attends to its own position and those before it
// that the cache holds already: no two rows may be of one slot.
absl::Status RopeAttentionDecode(const RopeAppendArgs& rope, const KvView& cache,
                                 const PassRows& rows, float scale, int splits,
                                 const DecodeWorkspace& workspace, __half* out, StreamView stream);

// ---- many rows of a sequence together
// ------------------------------------------------------------

// The segments cut into tiles, those with the most keys first.
std::vector<AttentionTile> CutTiles(absl::Span<const AttentionSegment> segments);

// Row i of a tile attends to positions 0..first_position + i of the tile's slot. `tiles`: device
// array [tile_count], read on the device only. Rows of no tile keep what `out` holds.
absl::Status AttentionPrefill(const __half* q, int heads, const KvView& cache,
                              const AttentionTile* tiles, int tile_count, float scale, __half* out,
                              StreamView stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_ATTENTION_CUDA_H_
