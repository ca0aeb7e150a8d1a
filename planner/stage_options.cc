#include "planner/stage_options.h"

#include <algorithm>

#include "planner/host_rates.h"
#include "planner/host_split.h"

namespace millrace {

StageTable::StageTable(const PlacementProblem& problem, const MemoryBudget& memory,
                       const CostModel& cost, const ResolvedPins& pins)
    : problem_(problem),
      memory_(memory),
      cost_(cost),
      pins_(pins),
      spill_(problem, memory, pins),
      passes_(PassesOf(problem)),
      refs_(AllDevices(problem.cluster)) {
  const int n = size();
  options_.resize(refs_.size() * static_cast<size_t>(n) * static_cast<size_t>(n));
  least_.assign(static_cast<size_t>(n) + 1, 0);
  std::vector<double> fastest(static_cast<size_t>(n), 1e300);
  for (int d = 0; d < devices(); ++d) {
    AddTimes(d);
    for (int b = 0; b < n; ++b) {
      const double here = seconds_before_[d][b + 1] - seconds_before_[d][b];
      fastest[b] = std::min({fastest[b], here, HostSeconds(d, b)});
    }
    like_.push_back(d);
    for (int other = d - 1; other >= 0; --other) {
      if (Alike(other, d)) like_[d] = like_[other];
    }
    if (like_[d] == d) MakeOptions(d);
  }
  for (int i = n - 1; i >= 0; --i) least_[i] = least_[i + 1] + fastest[i];
}

void StageTable::AddTimes(int device) {
  seconds_before_.emplace_back(1, 0.0);
  pass_seconds_.emplace_back(passes_.size());
  for (int b = 0; b < size(); ++b) {
    double sum = 0;
    for (size_t p = 0; p < passes_.size(); ++p) {
      const double once = cost_.DeviceSeconds(Host(device), Device(device), b, passes_[p].shape);
      pass_seconds_[device][p].push_back(once);
      sum += passes_[p].weight * once;
    }
    seconds_before_[device].push_back(seconds_before_[device].back() + sum);
  }
}

double StageTable::HostSeconds(int device, int block) const {
  constexpr double kNever = 1e300;
  if (Device(device).kind != DeviceKind::kGpu) return kNever;
  const Block& b = memory_.blocks()[block];
  const HostRates rates = RatesBeside(Host(device), Device(device));
  double sum = 0;
  for (const WeightedPass& pass : passes_) {
    if (b.kind == BlockKind::kEmbedding) {
      sum += pass.weight * cost_.HostEmbedSeconds(Device(device), pass.shape);
    } else if (b.kind == BlockKind::kFeedForward && pass.shape.tokens <= kMaxHostRouteTokens) {
      sum += pass.weight * static_cast<double>(b.weights.count()) / rates.cpu_alone;
    } else {
      return kNever;
    }
  }
  return sum;
}

void StageTable::MakeOptions(int device) {
  const size_t n = static_cast<size_t>(size());
  for (int i = 0; i < size(); ++i) {
    SpillRun run{i, i, {}};
    while (run.end < size()) {
      spill_.Extend(run);
      const StageOption option = Make(device, run);
      options_[(static_cast<size_t>(device) * n + static_cast<size_t>(i)) * n +
               static_cast<size_t>(run.end) - 1] = option;
      if (option.hopeless) break;
    }
  }
}

bool StageTable::Alike(int a, int b) const {
  const HostSpec &host_a = Host(a), &host_b = Host(b);
  const DeviceSpec &x = Device(a), &y = Device(b);
  for (const std::vector<bool>& allowed : pins_.allowed) {
    if (allowed[a] != allowed[b]) return false;
  }
  return x.kind == y.kind && x.budget == y.budget && x.overhead == y.overhead &&
         x.memory_bandwidth == y.memory_bandwidth && x.times == y.times && x.h2d_bandwidth == y.h2d_bandwidth &&
         x.prefill_flops == y.prefill_flops && Room(a) == Room(b) && HostRoom(a) == HostRoom(b) &&
         host_a.disk_bandwidth == host_b.disk_bandwidth && SameCpu(host_a, host_b);
}

const StageOption& StageTable::Option(int device, int first, int end) const {
  const size_t n = static_cast<size_t>(size());
  return options_[(static_cast<size_t>(like_[device]) * n + static_cast<size_t>(first)) * n +
                  static_cast<size_t>(end) - 1];
}

const HostSpec& StageTable::Host(int device) const {
  return problem_.cluster.hosts[refs_[device].host];
}
const DeviceSpec& StageTable::Device(int device) const {
  return Host(device).devices[refs_[device].device];
}

Bytes StageTable::Room(int device) const {
  const DeviceSpec& d = Device(device);
  const Bytes budget =
      d.kind == DeviceKind::kCpu ? std::min(d.budget, Host(device).budget) : d.budget;
  return budget - d.overhead;
}

Bytes StageTable::HostRoom(int device) const {
  const HostSpec& host = Host(device);
  Bytes left = host.budget;
  int64_t gpus = 0;
  for (const DeviceSpec& d : host.devices) {
    if (d.kind == DeviceKind::kCpu) left -= d.budget;
    gpus += d.kind == DeviceKind::kGpu;
  }
  return Bytes(std::max<int64_t>(0, left.count()) / std::max<int64_t>(1, gpus));
}

double StageTable::HopSeconds(int from_device, int to_device) const {
  const bool same = refs_[from_device].host == refs_[to_device].host;
  const LinkSpec& link = same ? problem_.cluster.local : problem_.cluster.remote;
  double sum = 0;
  for (const WeightedPass& pass : passes_) {
    sum += pass.weight * cost_.HopSeconds(link, pass.shape.tokens);
  }
  return sum;
}

std::vector<StageOffload> StageTable::Offloads(const StageChoice& choice) const {
  if (Device(choice.device).kind != DeviceKind::kGpu) return {StageOffload{}};
  const StageOption& best = Option(choice.device, choice.first, choice.end);
  SpillRun run{choice.first, choice.first, {}};
  while (run.end < choice.end) spill_.Extend(run);
  std::vector<StageOffload> offloads = {OffloadOf(choice, best)};
  if (offloads.front().host_home.empty()) return offloads;
  for (const StageOption& other : RingOptions(choice.device, run)) {
    if (other.ring != best.ring) offloads.push_back(OffloadOf(choice, other));
  }
  return offloads;
}

StageOffload StageTable::OffloadOf(const StageChoice& choice, const StageOption& option) const {
  StageOffload offload;
  offload.host_home = spill_.Homes(choice.first, choice.end, option.spilled);
  if (offload.host_home.empty()) return offload;
  offload.on_disk = spill_.OnDisk(choice.first, choice.end, option.spilled, option.on_disk);
  offload.kv_on_host = spill_.KvOnHost(choice.first, choice.end, option.kv_on_host);
  offload.ring = option.ring;
  return offload;
}

double StageTable::DeviceSeconds(int device, int first, int end) const {
  return seconds_before_[device][end] - seconds_before_[device][first];
}

StageOption StageTable::Make(int device, const SpillRun& run) const {
  const int first = run.first, end = run.end;
  StageOption option;
  const bool gpu = Device(device).kind == DeviceKind::kGpu;
  for (int b = first; b < end; ++b) {
    if (!pins_.allowed[b][device] || (pins_.home[b] == PinnedHome::kDevice && !gpu)) {
      option.hopeless = true;
      return option;
    }
  }
  if (gpu) {
    MakeOnGpu(device, run, option);
  } else {
    MakeOnCpu(device, first, end, option);
  }
  return option;
}

void StageTable::MakeOnCpu(int device, int first, int end, StageOption& option) const {
  const StageNeeds needs = memory_.Needs(Device(device), first, end, {});
  const Bytes room = Room(device) + Device(device).overhead;
  option.fits = needs.device_total() <= room;
  option.hopeless = !option.fits && needs.weights + needs.kv > room && end < size();
  option.seconds = DeviceSeconds(device, first, end);
}

// By growing depth of the ring.
std::vector<StageOption> StageTable::RingOptions(int device, const SpillRun& run) const {
  // Where the CPU is to compute every pass itself, it needs the weights in memory.
  const bool disk =
      Host(device).disk_bandwidth > Bandwidth() && problem_.routes != RoutePolicy::kCpu;
  const SpillResults spills =
      spill_.Fit(Device(device), run, {Device(device).budget, HostRoom(device), disk});
  std::vector<StageOption> options;
  for (int depth = 1; depth <= kFullRing; ++depth) {
    const SpillResult& spill = spills[depth];
    if (!spill.fits) continue;
    const double seconds = spill.any_host
                               ? OffloadedSeconds(device, run.first, run.end, spill, depth)
                               : DeviceSeconds(device, run.first, run.end);
    options.push_back(
        {true, false, seconds, spill.spilled, spill.ring, spill.on_disk, spill.kv_on_host});
  }
  return options;
}

// A full ring where that is fastest or all that is needed; on a small budget a shallower one leaves
// more for weights.
void StageTable::MakeOnGpu(int device, const SpillRun& run, StageOption& option) const {
  const std::vector<StageOption> options = RingOptions(device, run);
  for (auto it = options.rbegin(); it != options.rend(); ++it) {
    if (!option.fits || it->seconds < option.seconds) option = *it;
  }
  // With nothing but norms and caches on the device, and the least ring, more blocks take only
  // more.
  option.hopeless = !option.fits && run.end < size();
}

double StageTable::OffloadedSeconds(int device, int first, int end, const SpillResult& spill,
                                    int ring_depth) const {
  const StageOffload offload =
      OffloadOf({device, first, end},
                {true, false, 0, spill.spilled, spill.ring, spill.on_disk, spill.kv_on_host});
  double sum = 0;
  for (size_t p = 0; p < passes_.size(); ++p) {
    sum += passes_[p].weight * OffloadedPass(device, first, end, offload, p, ring_depth);
  }
  return sum;
}

double StageTable::OffloadedPass(int device, int first, int end, const StageOffload& offload,
                                 size_t pass_index, int ring_depth) const {
  const PassShape shape = passes_[pass_index].shape;
  const std::vector<double>& on_device = pass_seconds_[device][pass_index];
  const HostRates rates = RatesBeside(Host(device), Device(device));
  FluidPass pass;
  for (int b = first; b < end; ++b) {
    const size_t i = static_cast<size_t>(b - first);
    pass.device_seconds += on_device[b];
    if (offload.KvOnHost(i)) pass.device_seconds += cost_.HostKvSeconds(Device(device), b, shape);
    if (offload.host_home.empty() || !offload.host_home[i]) continue;
    const double bytes = static_cast<double>(memory_.blocks()[b].weights.count());
    if (offload.OnDisk(i)) {
      pass.streamed_bytes += FluidDiskBytes(Host(device), rates, bytes);
      continue;
    }
    switch (memory_.blocks()[b].kind) {
      case BlockKind::kEmbedding:
        pass.device_seconds += cost_.HostEmbedSeconds(Device(device), shape) - on_device[b];
        break;
      case BlockKind::kFeedForward:
        pass.ff_bytes += bytes;
        pass.ff_device_seconds += on_device[b];
        pass.ff_compute_seconds += cost_.HostComputeSeconds(Host(device), b, shape);
        pass.ff_hop_seconds += cost_.HostHopSeconds(Device(device), shape);
        break;
      default:
        pass.streamed_bytes += bytes;
    }
  }
  const bool large = shape.tokens > kMaxHostRouteTokens && problem_.routes != RoutePolicy::kCpu;
  const HostSplit split = BestHostSplit(pass, rates, large ? RoutePolicy::kStream : problem_.routes);
  const double copies =
      (pass.streamed_bytes + split.stream_share * pass.ff_bytes) / rates.copy_alone;
  return split.seconds + kRingStall[ring_depth] * copies;
}

}  // namespace millrace
