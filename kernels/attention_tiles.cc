#include <algorithm>
#include <climits>

#include "kernels/attention_cuda.h"
#include "proto/status_macros.h"

namespace millrace::cuda {

std::vector<AttentionTile> CutTiles(absl::Span<const AttentionSegment> segments) {
  std::vector<AttentionTile> tiles;
  for (const AttentionSegment& s : segments) {
    MILLRACE_CHECK(s.first_row >= 0 && s.rows >= 0 && s.first_row + s.rows <= INT_MAX);
    for (int64_t done = 0; done < s.rows; done += kAttentionTileRows) {
      tiles.push_back({static_cast<int>(s.first_row + done),
                       static_cast<int>(std::min<int64_t>(kAttentionTileRows, s.rows - done)),
                       s.slot, static_cast<int>(s.first_position + done)});
    }
  }
  std::stable_sort(tiles.begin(), tiles.end(), [](const AttentionTile& a, const AttentionTile& b) {
    return a.first_position + a.rows > b.first_position + b.rows;
  });
  return tiles;
}

int DecodeSplits(int device_multiprocessors, int kv_heads, int n, int max_context) {
  MILLRACE_CHECK(device_multiprocessors > 0 && kv_heads > 0 && n >= 0 && max_context >= 0);
  // Three blocks fit on a multiprocessor: fill them once.
  const int64_t units = std::max<int64_t>(1, static_cast<int64_t>(kv_heads) * n);
  int64_t splits = 3 * static_cast<int64_t>(device_multiprocessors) / units;
  // Rows of several sequences may differ much in length: no part much longer than this.
  constexpr int kLongPart = 2048;
  if (n > 1) splits = std::max<int64_t>(splits, max_context / kLongPart);
  int64_t most = std::min<int64_t>(kMaxDecodeSplits, (max_context + 63) / 64);
  if (max_context <= kClusterContext) {
    most = std::min<int64_t>(most, kClusterParts);
  } else if (splits > 1) {
    // Long parts are better not bound to start together: too many for a cluster.
    splits = std::max<int64_t>(splits, kClusterParts + 1);
  }
  return static_cast<int>(std::max<int64_t>(1, std::min(splits, most)));
}

Bytes DecodePartialBytes(int n, int heads, int head_dim, int splits) {
  return Bytes(static_cast<int64_t>(n) * heads * splits * (head_dim + 2) *
               static_cast<int64_t>(sizeof(float)));
}

Bytes DecodeCounterBytes(int n, int heads) {
  return Bytes(static_cast<int64_t>(n) * heads * static_cast<int64_t>(sizeof(uint32_t)));
}

}  // namespace millrace::cuda
