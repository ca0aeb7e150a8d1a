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
  int first = 0, end = 0;
  Bytes weights, kv;  // on the device
  Bytes host;         // weights
  Bytes host_kv;
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
    return std::pair(Rank(block.kind),
                     ReverseBits(static_cast<uint32_t>(std::max(0, block.layer))));
  };
  std::sort(order_.begin(), order_.end(), [&](int a, int b) { return key(a) < key(b); });
  place_.assign(static_cast<size_t>(memory.size()), -1);
  for (size_t i = 0; i < order_.size(); ++i) place_[order_[i]] = static_cast<int>(i);
}

void SpillOrder::Extend(SpillRun& run) const {
  const int block = run.end++;
  if (place_[block] < 0) return;
  const auto at = std::lower_bound(run.order.begin(), run.order.end(), block,
                                   [&](int a, int b) { return place_[a] < place_[b]; });
  run.order.insert(at, block);
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
  Bytes bytes = sums.host + sums.host_kv;
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

Bytes SpillOrder::RingRoom(const DeviceSpec& device, const Sums& sums,
                           const SpillRoom& room) const {
  const bool shared = sums.embedding && sums.head;
  const Bytes locked = sums.host + sums.host_kv - (shared ? memory_.TiedBytes() : Bytes(0));
  Bytes left = room.device - device.overhead - LockedPageTables(locked);
  for (Bytes purpose :
       {sums.weights, sums.kv, memory_.Activations(DeviceKind::kGpu, sums.first, sums.end)}) {
    left -= RoundUp(purpose, kDeviceGrain);
  }
  return left;
}

bool SpillOrder::MayStayOnDisk(int block) const {
  const BlockKind kind = memory_.blocks()[block].kind;
  return kind != BlockKind::kEmbedding &&
         (kind != BlockKind::kHead || memory_.TiedBytes() == Bytes(0));
}

int SpillOrder::LeastOnDisk(const Sums& sums, const SpillRun& run, int spilled,
                            const SpillRoom& room) const {
  if (!sums.any_host) return 0;
  Bytes left = room.host - HostBytes(sums);
  if (left >= Bytes(0)) return 0;
  if (!room.disk) return -1;
  left -= kDiskStaging;
  int on_disk = 0;
  for (int i = spilled - 1; i >= 0 && left < Bytes(0); --i) {
    const int block = run.order[static_cast<size_t>(i)];
    if (!MayStayOnDisk(block)) continue;
    left += memory_.blocks()[block].weights;
    ++on_disk;
  }
  return left < Bytes(0) ? -1 : on_disk;
}

bool SpillOrder::FitRings(const DeviceSpec& device, const Sums& sums, const SpillRun& run,
                          const SpillRoom& room, const SpillResult& now,
                          SpillResults& results) const {
  const Bytes left = RingRoom(device, sums, room);
  for (int depth = 1; depth <= kFullRing && left >= Bytes(0); ++depth) {
    if (results[depth].fits) continue;
    const Bytes ring = RingBytes(sums.streamed, depth);
    if (RoundUp(ring + StreamStaging(sums.streamed.raw_group), kDeviceGrain) > left) break;
    const int on_disk = LeastOnDisk(sums, run, now.spilled, room);
    if (on_disk < 0) return false;  // with more there even less
    results[depth] = {true, now.spilled, sums.any_host, ring, on_disk, now.kv_on_host};
  }
  return !results[kFullRing].fits;
}

SpillResults SpillOrder::Fit(const DeviceSpec& device, const SpillRun& run,
                             const SpillRoom& room) const {
  Sums sums = Begin(run.first, run.end);
  SpillResults results;
  SpillResult now;
  for (;; ++now.spilled) {
    if (!FitRings(device, sums, run, room, now, results)) return results;
    if (now.spilled == static_cast<int>(run.order.size())) break;
    Move(sums, run.order[static_cast<size_t>(now.spilled)]);
  }
  // Caches only where there is no other way to any ring.
  if (results[1].fits || run.order.empty()) return results;
  for (int block : KvOrder(run.first, run.end)) {
    sums.kv -= memory_.Kv(block);
    sums.host_kv += memory_.Kv(block);
    ++now.kv_on_host;
    if (!FitRings(device, sums, run, room, now, results)) return results;
  }
  return results;
}

std::vector<int> SpillOrder::KvOrder(int first, int end) const {
  std::vector<int> order;
  for (int b = first; b < end; ++b) {
    if (memory_.blocks()[b].kind == BlockKind::kAttention) order.push_back(b);
  }
  const auto key = [&](int b) {
    return ReverseBits(static_cast<uint32_t>(memory_.blocks()[b].layer));
  };
  std::sort(order.begin(), order.end(), [&](int a, int b) { return key(a) < key(b); });
  return order;
}

std::vector<bool> SpillOrder::KvOnHost(int first, int end, int count) const {
  if (count == 0) return {};
  std::vector<bool> on_host(static_cast<size_t>(end - first), false);
  const std::vector<int> order = KvOrder(first, end);
  for (int i = 0; i < count; ++i)
    on_host[static_cast<size_t>(order[static_cast<size_t>(i)] - first)] = true;
  return on_host;
}

std::vector<bool> SpillOrder::OnDisk(int first, int end, int spilled, int on_disk) const {
  if (on_disk == 0) return {};
  std::vector<int> gone;
  for (size_t i = 0; i < order_.size() && static_cast<int>(gone.size()) < spilled; ++i) {
    if (order_[i] >= first && order_[i] < end) gone.push_back(order_[i]);
  }
  std::vector<bool> disk(static_cast<size_t>(end - first), false);
  for (size_t i = gone.size(); i-- > 0 && on_disk > 0;) {
    if (!MayStayOnDisk(gone[i])) continue;
    disk[static_cast<size_t>(gone[i] - first)] = true;
    --on_disk;
  }
  return disk;
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
