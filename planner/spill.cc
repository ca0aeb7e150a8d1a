#include "planner/spill.h"

#include <algorithm>
#include <cstdint>

namespace millrace {
namespace {

uint32_t ReverseBits(uint32_t v) {
  uint32_t out = 0;
  for (int i = 0; i < 32; ++i) out |= (v >> i & 1) << (31 - i);
  return out;
}

// Before others of another kind; see spill.h.
int Rank(BlockKind kind) {
  switch (kind) {
    case BlockKind::kEmbedding:
      return 0;
    case BlockKind::kFeedForward:
      return 1;
    case BlockKind::kAttention:
      return 2;
    case BlockKind::kHead:
      return 3;
  }
  return 4;
}

}  // namespace

Bytes RingBytes(const StreamSizes& largest, int depth) {
  if (depth == 1) return largest.tiled_group;
  const Bytes blocks = largest.tiled_block * (depth == 4 ? 2 : 1);
  return depth == 2 ? blocks : blocks + largest.tiled_group;
}

struct SpillOrder::Sums {
  int first = 0, end = 0, ring_depth = kFullRing;
  Bytes weights, kv;  // on the device
  Bytes host;         // weights
  StreamSizes streamed;
  bool any_host = false, embedding = false, head = false, feed_forward = false;
};

SpillOrder::SpillOrder(const PlacementProblem& problem, const MemoryBudget& memory,
                       const ResolvedPins& pins)
    : problem_(problem), memory_(memory) {
  weights_.push_back(Bytes(0));
  kv_.push_back(Bytes(0));
  for (int b = 0; b < memory.size(); ++b) {
    weights_.push_back(weights_.back() + memory.GpuWeights(b));
    kv_.push_back(kv_.back() + memory.Kv(b));
    pinned_host_.push_back(pins.home[b] == PinnedHome::kHost);
    if (pins.home[b] == PinnedHome::kAny) order_.push_back(b);
  }
  const auto key = [&](int b) {
    const Block& block = memory.blocks()[b];
    return std::pair(Rank(block.kind), ReverseBits(static_cast<uint32_t>(std::max(0, block.layer))));
  };
  std::sort(order_.begin(), order_.end(), [&](int a, int b) { return key(a) < key(b); });
}

SpillOrder::Sums SpillOrder::Begin(int first, int end) const {
  Sums sums;
  sums.first = first;
  sums.end = end;
  sums.weights = weights_[end] - weights_[first];
  sums.kv = kv_[end] - kv_[first];
  for (int b = first; b < end; ++b) {
    if (pinned_host_[b]) Move(sums, b);
  }
  return sums;
}

void SpillOrder::Move(Sums& sums, int block) const {
  const BlockKind kind = memory_.blocks()[block].kind;
  sums.any_host = true;
  sums.weights += memory_.GpuVectors(block) - memory_.GpuWeights(block);
  sums.host += memory_.blocks()[block].weights;
  sums.embedding |= kind == BlockKind::kEmbedding;
  sums.head |= kind == BlockKind::kHead;
  sums.feed_forward |= kind == BlockKind::kFeedForward;
  const bool streams = kind != BlockKind::kFeedForward || problem_.routes != RoutePolicy::kCpu;
  if (streams) sums.streamed.Include(memory_.Streamed(block));
}

// An upper bound: as if the CPU computed passes as large as it ever may.
Bytes SpillOrder::HostBytes(const Sums& sums) const {
  Bytes bytes = sums.host;
  if (sums.embedding && sums.head) bytes -= memory_.TiedBytes();
  const bool routed = sums.feed_forward && problem_.routes != RoutePolicy::kStream;
  if (routed || sums.embedding) bytes += memory_.HopBuffers();
  if (routed) {
    const int most = problem_.routes == RoutePolicy::kCpu
                         ? problem_.max_pass_tokens
                         : std::min(problem_.max_pass_tokens, kMaxHostRouteTokens);
    bytes += problem_.host_route_bytes(most);
  }
  return bytes;
}

bool SpillOrder::Fits(const DeviceSpec& device, const Sums& sums, const SpillRoom& room) const {
  Bytes total = device.overhead;
  for (Bytes purpose :
       {sums.weights, sums.kv, memory_.Activations(DeviceKind::kGpu, sums.first, sums.end),
        RingBytes(sums.streamed, sums.ring_depth) + StreamStaging(sums.streamed.raw_group)}) {
    total += RoundUp(purpose, kDeviceGrain);
  }
  return total <= room.device && (!sums.any_host || HostBytes(sums) <= room.host);
}

SpillResult SpillOrder::Fit(const DeviceSpec& device, int first, int end, const SpillRoom& room,
                            int ring_depth) const {
  Sums sums = Begin(first, end);
  sums.ring_depth = ring_depth;
  SpillResult result;
  result.fits = Fits(device, sums, room);
  for (size_t i = 0; i < order_.size() && !result.fits; ++i) {
    if (order_[i] < first || order_[i] >= end) continue;
    Move(sums, order_[i]);
    ++result.spilled;
    result.fits = Fits(device, sums, room);
  }
  result.any_host = sums.any_host;
  result.ring = RingBytes(sums.streamed, ring_depth);
  return result;
}

std::vector<bool> SpillOrder::Homes(int first, int end, int spilled) const {
  std::vector<bool> homes(static_cast<size_t>(end - first), false);
  bool any = spilled > 0;
  for (int b = first; b < end; ++b) {
    homes[static_cast<size_t>(b - first)] = pinned_host_[b];
    any = any || pinned_host_[b];
  }
  if (!any) return {};
  int left = spilled;
  for (size_t i = 0; i < order_.size() && left > 0; ++i) {
    if (order_[i] < first || order_[i] >= end) continue;
    homes[static_cast<size_t>(order_[i] - first)] = true;
    --left;
  }
  return homes;
}

}  // namespace millrace
