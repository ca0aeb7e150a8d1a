#include "planner/milp_model.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "planner/cost_model.h"
#include "planner/lp_text.h"
#include "planner/memory_budget.h"
#include "planner/pins.h"
#include "planner/spill.h"
#include "proto/device_layout.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr double kMicroseconds = 1e6;
// Up to so many blocks the order of spilling is stated for all pairs.
constexpr int kAllPairs = 40;

double Grains(Bytes bytes) {
  return static_cast<double>(bytes.count()) / static_cast<double>(kDeviceGrain.count());
}

// A block's place in the order in which blocks go to host memory, as planner/spill.h has it.
std::tuple<int, uint32_t, int> SpillPlace(const Block& block, int index) {
  const int kinds[] = {static_cast<int>(BlockKind::kEmbedding),
                       static_cast<int>(BlockKind::kFeedForward),
                       static_cast<int>(BlockKind::kAttention), static_cast<int>(BlockKind::kHead)};
  const int rank =
      static_cast<int>(std::find(kinds, kinds + 4, static_cast<int>(block.kind)) - kinds);
  uint32_t reversed = 0;
  for (uint32_t bit = 0, layer = static_cast<uint32_t>(std::max(0, block.layer)); bit < 32; ++bit) {
    reversed |= (layer >> bit & 1) << (31 - bit);
  }
  return {rank, reversed, index};
}

class Writer {
 public:
  Writer(const PlacementProblem& problem, const ResolvedPins& pins, MilpScope scope)
      : problem_(problem),
        pins_(pins),
        scope_(scope),
        memory_(problem),
        cost_(problem, memory_),
        refs_(AllDevices(problem.cluster)),
        n_(memory_.size()) {}

  std::string Text() {
    Assignment();
    Hops();
    for (int d = 0; d < devices(); ++d) {
      if (Device(d).kind == DeviceKind::kGpu) {
        Gpu(d);
      } else {
        Cpu(d);
      }
    }
    lp_.Minimize(objective_);
    return lp_.Text();
  }

 private:
  int devices() const { return static_cast<int>(refs_.size()); }
  const HostSpec& Host(int d) const { return problem_.cluster.hosts[refs_[d].host]; }
  const DeviceSpec& Device(int d) const { return Host(d).devices[refs_[d].device]; }
  const Block& At(int b) const { return memory_.blocks()[b]; }
  static std::string Name(const char* kind, int d) { return absl::StrCat(kind, "_", d); }
  static std::string Name(const char* kind, int b, int d) { return absl::StrCat(kind, b, "_", d); }
  LpSum One(const std::string& variable) const { return LpSum().Add(1, variable); }
  // The sum over blocks of a factor times a variable.
  template <typename Factor>
  LpSum Over(const char* kind, int d, Factor factor) const {
    LpSum sum;
    for (int b = 0; b < n_; ++b) sum.Add(factor(b), Name(kind, b, d));
    return sum;
  }
  // 1 where the device has a stage.
  LpSum Used(int d) const {
    return Over("s", d, [](int) { return 1.0; });
  }
  bool FeedForward(int b) const { return At(b).kind == BlockKind::kFeedForward; }
  bool Streams(int b) const {
    return At(b).kind == BlockKind::kAttention || At(b).kind == BlockKind::kHead;
  }

  void Assignment();
  void Hops();
  void Cpu(int d);
  LpSum Activations(int d, double unit) const;
  void Gpu(int d);
  void GpuHomes(int d);
  void GpuMemory(int d);
  void Ring(int d);
  void HostMemory(int d);
  void GpuTime(int d);
  LpSum DeviceTime(int d) const;
  void CpuParts(int d);

  const PlacementProblem& problem_;
  const ResolvedPins& pins_;
  const MilpScope scope_;
  const MemoryBudget memory_;
  const CostModel cost_;
  const std::vector<DeviceRef> refs_;
  const int n_;
  LpText lp_;
  LpSum objective_;
};

// Every block on one device, a device's blocks in one run: s is 1 where a run begins.
void Writer::Assignment() {
  for (int b = 0; b < n_; ++b) {
    LpSum all;
    for (int d = 0; d < devices(); ++d) {
      const bool cpu = Device(d).kind == DeviceKind::kCpu;
      all.Add(1, Name("x", b, d));
      lp_.Binary(Name("x", b, d));
      if (!pins_.allowed[b][d] || (cpu && pins_.home[b] == PinnedHome::kDevice)) {
        lp_.AtMost(One(Name("x", b, d)), 0);
      }
      LpSum begins = One(Name("s", b, d)).Add(-1, Name("x", b, d));
      if (b > 0) begins.Add(1, Name("x", b - 1, d));
      lp_.AtLeast(begins, 0);
    }
    lp_.Equal(all, 1);
  }
  for (int d = 0; d < devices(); ++d) lp_.AtMost(Used(d), 1);
}

// k is 1 where the device changes before block b, m where the worker does.
void Writer::Hops() {
  const double local = kMicroseconds * cost_.HopSeconds(problem_.cluster.local, 1);
  const double remote = kMicroseconds * cost_.HopSeconds(problem_.cluster.remote, 1);
  for (int b = 1; b < n_; ++b) {
    const std::string change = absl::StrCat("k", b), move = absl::StrCat("m", b);
    for (int d = 0; d < devices(); ++d) {
      lp_.AtLeast(One(change).Add(-1, Name("x", b, d)).Add(1, Name("x", b - 1, d)), 0);
    }
    for (size_t h = 0; h < problem_.cluster.hosts.size(); ++h) {
      LpSum moved = One(move), stayed = One(move);
      for (int d = 0; d < devices(); ++d) {
        if (refs_[d].host != static_cast<int>(h)) continue;
        moved.Add(-1, Name("x", b, d)).Add(1, Name("x", b - 1, d));
        stayed.Add(1, Name("x", b, d)).Add(1, Name("x", b - 1, d));
      }
      lp_.AtLeast(moved, 0);
      lp_.AtMost(stayed, 2);
    }
    objective_.Add(local, change).Add(remote - local, move);
  }
}

// In units of `unit` bytes.
LpSum Writer::Activations(int d, double unit) const {
  const ActivationNeeds& needs = problem_.activations_on(Device(d).kind);
  LpSum sum;
  sum.Add(static_cast<double>(needs.body.count()) / unit, Used(d));
  sum.Add(static_cast<double>(needs.first_extra.count()) / unit, Name("x", 0, d));
  sum.Add(static_cast<double>(needs.last_extra.count()) / unit, Name("x", n_ - 1, d));
  return sum;
}

void Writer::Cpu(int d) {
  objective_.Add(1, Over("x", d, [&](int b) {
                   return kMicroseconds * cost_.DeviceSeconds(Host(d), Device(d), b, {});
                 }));
  const Bytes budget = std::min(Device(d).budget, Host(d).budget);
  LpSum bytes = Over("x", d, [&](int b) { return Grains(At(b).weights + memory_.Kv(b)); });
  bytes.Add(1, Activations(d, static_cast<double>(kDeviceGrain.count())));
  bytes.Add(Grains(Device(d).overhead), Used(d));
  // z: a stage with everything, in which the head shares the table.
  bytes.Add(-Grains(memory_.TiedBytes()), Name("z", d));
  for (int b : {0, n_ - 1}) lp_.AtMost(One(Name("z", d)).Add(-1, Name("x", b, d)), 0);
  lp_.AtMost(bytes, Grains(budget));
}

void Writer::Gpu(int d) {
  GpuHomes(d);
  GpuMemory(d);
  Ring(d);
  if (scope_ == MilpScope::kExact || Host(d).disk_bandwidth == Bandwidth()) HostMemory(d);
  CpuParts(d);
  GpuTime(d);
}

void Writer::GpuHomes(int d) {
  std::vector<int> order;
  for (int b = 0; b < n_; ++b) {
    const std::string home = Name("o", b, d);
    lp_.Binary(home);
    lp_.AtMost(One(home).Add(-1, Name("x", b, d)), 0);
    if (pins_.home[b] == PinnedHome::kAny) order.push_back(b);
    if (pins_.home[b] == PinnedHome::kHost) lp_.Equal(One(home).Add(-1, Name("x", b, d)), 0);
    if (pins_.home[b] == PinnedHome::kDevice) lp_.AtMost(One(home), 0);
  }
  std::sort(order.begin(), order.end(),
            [&](int a, int b) { return SpillPlace(At(a), a) < SpillPlace(At(b), b); });
  // Who goes has all before it on this device gone.
  for (size_t later = 1; later < order.size(); ++later) {
    const bool all = scope_ == MilpScope::kExact || n_ <= kAllPairs;
    for (size_t i = all ? 0 : later - 1; i < later; ++i) {
      lp_.AtMost(One(Name("o", order[later], d))
                     .Add(-1, Name("o", order[i], d))
                     .Add(1, Name("x", order[i], d)),
                 1);
    }
  }
}

// Whole grains for weights, caches, activations, and ring with staging.
void Writer::GpuMemory(int d) {
  LpSum all;
  const auto purpose = [&](const char* name, const LpSum& grains) {
    lp_.Integer(Name(name, d));
    lp_.AtLeast(One(Name(name, d)).Add(-1, grains), 0);
    all.Add(1, Name(name, d));
  };
  LpSum weights = Over("x", d, [&](int b) { return Grains(memory_.GpuWeights(b)); });
  weights.Add(-1, Over("o", d, [&](int b) {
    return Grains(memory_.GpuWeights(b) - memory_.GpuVectors(b));
  }));
  purpose("gw", weights);
  LpSum caches = Over("x", d, [&](int b) { return Grains(memory_.Kv(b)); });
  if (scope_ == MilpScope::kBound) {  // h: the cache lies in host memory
    caches.Add(-1, Over("h", d, [&](int b) { return Grains(memory_.Kv(b)); }));
    for (int b = 0; b < n_; ++b) {
      lp_.AtMost(One(Name("h", b, d)).Add(-1, Name("x", b, d)), 0);
    }
  }
  purpose("gk", caches);
  purpose("ga", Activations(d, static_cast<double>(kDeviceGrain.count())));
  // Page tables of what is locked in host memory: eight bytes for each page of 4096.
  constexpr double kTables = 8.0 / 4096;
  LpSum locked = Over("o", d, [&](int b) { return kTables * Grains(At(b).weights); });
  locked.Add(-kTables * Grains(memory_.TiedBytes()), Name("tied", d));
  purpose("gt", locked);
  purpose("gr", One(Name("ring", d)).Add(1, Name("staging", d)));
  const Bytes room = Device(d).budget - Device(d).overhead;
  lp_.AtMost(all, std::floor(Grains(std::max(Bytes(0), room))));
  if (room < Bytes(0)) lp_.AtMost(Used(d), 0);
}

// ring >= group, block, block + group, 2 block + group by depth 1 to 4, of the largest that
// streams.
void Writer::Ring(int d) {
  Bytes most;
  for (int b = 0; b < n_; ++b) {
    if (FeedForward(b) && problem_.routes == RoutePolicy::kCpu) continue;
    const StreamSizes& sizes = memory_.Streamed(b);
    const auto at_least = [&](const char* name, Bytes bytes) {
      lp_.AtLeast(One(Name(name, d)).Add(-Grains(bytes), Name("o", b, d)), 0);
    };
    at_least("group", sizes.tiled_group);
    at_least("block", sizes.tiled_block);
    at_least("staging", StreamStaging(sizes.raw_group));
    most = std::max(most, 2 * sizes.tiled_block + sizes.tiled_group);
  }
  LpSum depths;
  for (int depth = 1; depth <= kFullRing; ++depth) {
    const std::string chosen = Name("r", depth, d);
    lp_.Binary(chosen);
    depths.Add(1, chosen);
    LpSum ring = One(Name("ring", d)).Add(-Grains(most), chosen);
    if (depth != 2) ring.Add(-1, Name("group", d));
    if (depth > 1) ring.Add(depth == 4 ? -2 : -1, Name("block", d));
    lp_.AtLeast(ring, -Grains(most));
  }
  lp_.Equal(depths, 1);
}

// Weights as in the file, buffers for hops (hop), and the CPU's for its routes (route).
void Writer::HostMemory(int d) {
  Bytes room = Host(d).budget;
  int64_t gpus = 0;
  for (const DeviceSpec& device : Host(d).devices) {
    if (device.kind == DeviceKind::kCpu) room -= device.budget;
    gpus += device.kind == DeviceKind::kGpu;
  }
  room = Bytes(std::max<int64_t>(0, room.count()) / gpus);
  const int most = problem_.routes == RoutePolicy::kCpu
                       ? problem_.max_pass_tokens
                       : std::min(problem_.max_pass_tokens, kMaxHostRouteTokens);
  const std::string route = Name("route", d), hop = Name("hop", d), tied = Name("tied", d);
  LpSum bytes = Over("o", d, [&](int b) { return Grains(At(b).weights); });
  bytes.Add(-Grains(memory_.TiedBytes()), tied);
  bytes.Add(Grains(memory_.HopBuffers()), hop);
  bytes.Add(Grains(problem_.host_route_bytes(most)), route);
  lp_.AtMost(bytes, Grains(room));
  for (int b : {0, n_ - 1}) lp_.AtMost(One(tied).Add(-1, Name("o", b, d)), 0);
  lp_.AtLeast(One(hop).Add(-1, Name("o", 0, d)), 0);
  lp_.AtLeast(One(hop).Add(-1, route), 0);
  for (int b = 0; b < n_ && problem_.routes != RoutePolicy::kStream; ++b) {
    if (FeedForward(b)) lp_.AtLeast(One(route).Add(-1, Name("o", b, d)), 0);
  }
}

// p = q o: of every host-homed feed-forward block the CPU computes the same share q.
void Writer::CpuParts(int d) {
  const std::string share = Name("q", d);
  lp_.AtMost(One(share), 1);
  for (int b = 0; b < n_; ++b) {
    if (!FeedForward(b)) continue;
    const std::string part = Name("p", b, d), home = Name("o", b, d);
    lp_.AtMost(One(part).Add(-1, home), 0);
    lp_.AtMost(One(part).Add(-1, share), 0);
    lp_.AtLeast(One(part).Add(-1, share).Add(-1, home), -1);
    if (problem_.routes == RoutePolicy::kStream) lp_.AtMost(One(part), 0);
    if (problem_.routes == RoutePolicy::kCpu) lp_.Equal(One(part).Add(-1, home), 0);
  }
}

// Everything on the device, with what never overlaps. Microseconds.
LpSum Writer::DeviceTime(int d) const {
  const auto on_device = [&](int b) {
    return kMicroseconds * cost_.DeviceSeconds(Host(d), Device(d), b, {});
  };
  LpSum sum = Over("x", d, on_device);
  sum.Add(kMicroseconds * cost_.HostEmbedSeconds(Device(d), {}) - on_device(0), Name("o", 0, d));
  if (scope_ == MilpScope::kBound) {
    for (int b = 0; b < n_; ++b) {
      if (At(b).kind != BlockKind::kAttention) continue;
      sum.Add(kMicroseconds * cost_.HostKvSeconds(Device(d), b, {}), Name("h", b, d));
    }
  }
  return sum;
}

// t >= device time - what the CPU takes of it + c, and >= c + (copied - c copy_shared) /
// copy_alone; c is the CPU's time. n is 1 where nothing streams: then the CPU reads at its rate
// alone.
void Writer::GpuTime(int d) {
  const HostRates rates = RatesBeside(Host(d), Device(d));
  const std::string time = Name("t", d), cpu = Name("c", d), nothing = Name("n", d);
  lp_.Binary(nothing);
  LpSum copied, by_compute, by_reading, shared, saved;  // copied: microseconds of the link alone
  double most_shared = 0, most_copied = 0;
  for (int b = 0; b < n_; ++b) {
    const double bytes = kMicroseconds * static_cast<double>(At(b).weights.count());
    const std::string home = Name("o", b, d), part = Name("p", b, d);
    if (Streams(b) || FeedForward(b)) {
      copied.Add(bytes / rates.copy_alone, home);
      most_copied += bytes / rates.copy_alone;
    }
    if (Streams(b)) lp_.AtMost(One(nothing).Add(1, home), 1);
    if (!FeedForward(b)) continue;
    lp_.AtMost(One(nothing).Add(1, home).Add(-1, part), 1);
    copied.Add(-bytes / rates.copy_alone, part);
    const double hop = kMicroseconds * cost_.HostHopSeconds(Device(d), {});
    by_compute.Add(kMicroseconds * cost_.HostComputeSeconds(Host(d), b, {}) + hop, part);
    by_reading.Add(bytes / rates.cpu_alone + hop, part);
    shared.Add(bytes / rates.cpu_shared + hop, part);
    most_shared += bytes / rates.cpu_shared + hop;
    saved.Add(kMicroseconds * cost_.DeviceSeconds(Host(d), Device(d), b, {}), part);
  }
  lp_.AtLeast(One(cpu).Add(-1, by_compute), 0);
  lp_.AtLeast(One(cpu).Add(-1, by_reading), 0);
  lp_.AtLeast(One(cpu).Add(-1, shared).Add(most_shared, nothing), 0);
  lp_.AtLeast(One(time).Add(-1, DeviceTime(d)).Add(1, saved).Add(-1, cpu), 0);
  lp_.AtLeast(One(time).Add(rates.copy_shared / rates.copy_alone - 1, cpu).Add(-1, copied), 0);
  const std::string stall = Name("w", d);
  for (int depth = 1; depth <= kFullRing; ++depth) {
    const double part = kRingStall[depth];
    if (part == 0) continue;
    lp_.AtLeast(One(stall).Add(-part, copied).Add(-part * most_copied, Name("r", depth, d)),
                -part * most_copied);
  }
  objective_.Add(1, time).Add(1, stall);
}

}  // namespace

absl::StatusOr<std::string> PlacementMilp(const PlacementProblem& problem, MilpScope scope) {
  MILLRACE_ASSIGN_OR_RETURN(const ResolvedPins pins, ResolvePins(problem));
  return Writer(problem, pins, scope).Text();
}

}  // namespace millrace
