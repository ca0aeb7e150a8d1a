#include "worker/backend/cuda/pass_meta.h"

#include <algorithm>
#include <cstring>

#include "proto/status_macros.h"
#include "worker/sampler.h"

namespace millrace {
namespace {

template <typename T>
T* At(std::byte* base, size_t offset) {
  return reinterpret_cast<T*>(base + offset);
}

}  // namespace

PassMetaLayout::PassMetaLayout(int rows, int segments) {
  auto take = [this](size_t size) {
    const size_t at = bytes;
    bytes = (bytes + size + 255) / 256 * 256;
    return at;
  };
  const size_t n = static_cast<size_t>(rows);
  tokens = take(4 * n);
  slots = take(4 * n);
  positions = take(4 * n);
  single_positions = take(4 * n);
  output_rows = take(4 * kMaxGpuHeadRows);
  requests = take(sizeof(cuda::SampleRequest) * kMaxGpuHeadRows);
  recent = take(4 * size_t{kMaxRecentTokens});
  tile_capacity = n / cuda::kAttentionTileRows + static_cast<size_t>(segments) + n / kLeastTiledRows + 1;
  tiles = take(sizeof(cuda::AttentionTile) * tile_capacity);
}

PassShape WriteRows(const Pass& pass, absl::Span<const AttentionSegment> segments,
                    absl::Span<const int> positions, const PassMetaLayout& layout, std::byte* to) {
  PassShape shape;
  shape.rows = static_cast<int>(pass.tokens.size());
  std::copy(pass.tokens.begin(), pass.tokens.end(), At<int32_t>(to, layout.tokens));
  std::copy(positions.begin(), positions.end(), At<int32_t>(to, layout.positions));
  int32_t* slots = At<int32_t>(to, layout.slots);
  int32_t* single = At<int32_t>(to, layout.single_positions);
  std::vector<AttentionSegment> tiled;
  for (const AttentionSegment& s : segments) {
    const bool together = shape.rows > kGpuSmallBatchTokens && s.rows >= kLeastTiledRows;
    if (together) tiled.push_back(s);
    if (s.rows > 1) shape.one_row_each = false;
    for (int64_t r = s.first_row; r < s.first_row + s.rows; ++r) {
      slots[r] = s.slot;
      single[r] = together ? -1 : positions[static_cast<size_t>(r)];
    }
    if (together) continue;
    shape.single_rows = static_cast<int>(s.first_row + s.rows);
    shape.max_context = std::max(shape.max_context, s.first_position + static_cast<int>(s.rows));
  }
  const std::vector<cuda::AttentionTile> tiles = cuda::CutTiles(tiled);
  MILLRACE_CHECK(tiles.size() <= layout.tile_capacity);
  std::copy(tiles.begin(), tiles.end(), At<cuda::AttentionTile>(to, layout.tiles));
  shape.tiles = static_cast<int>(tiles.size());
  return shape;
}

bool DeviceSamples(const OutputRequest& request) {
  if (request.kind == OutputRequest::Kind::kLogProb) return true;
  if (request.kind == OutputRequest::Kind::kLogits) return false;
  const SamplingParams& p = request.sampling;
  return p.temperature <= 0 || (p.top_k > 0 && p.top_k <= kMaxCandidates);
}

void WriteOutputs(const Pass& pass, int first, int count, const PassMetaLayout& layout,
                  std::byte* to, std::vector<bool>& to_host) {
  MILLRACE_CHECK(count <= kMaxGpuHeadRows);
  int32_t* rows = At<int32_t>(to, layout.output_rows);
  auto* requests = At<cuda::SampleRequest>(to, layout.requests);
  int32_t* recent = At<int32_t>(to, layout.recent);
  int used = 0;
  to_host.assign(static_cast<size_t>(count), false);
  for (int i = 0; i < count; ++i) {
    const OutputRequest& o = pass.outputs[static_cast<size_t>(first + i)];
    rows[i] = o.row;
    requests[i] = cuda::SampleRequest();
    if (!DeviceSamples(o)) {
      to_host[static_cast<size_t>(i)] = true;
      continue;
    }
    if (o.kind == OutputRequest::Kind::kLogProb) {
      requests[i].target = o.target;
      continue;
    }
    const std::vector<TokenId> seen = PenalisedTokens(o.sampling, o.recent);
    if (used + static_cast<int>(seen.size()) > kMaxRecentTokens) {
      to_host[static_cast<size_t>(i)] = true;
      continue;
    }
    std::copy(seen.begin(), seen.end(), recent + used);
    const bool greedy = o.sampling.temperature <= 0;
    requests[i].mode = greedy ? cuda::SampleMode::kGreedy : cuda::SampleMode::kTopK;
    requests[i].k = o.sampling.top_k;
    requests[i].penalty = o.sampling.repetition_penalty;
    requests[i].recent_begin = used;
    requests[i].recent_count = static_cast<int>(seen.size());
    used += static_cast<int>(seen.size());
  }
}

}  // namespace millrace
