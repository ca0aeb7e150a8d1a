#include "planner/stage_options.h"

#include <algorithm>

namespace millrace {

StageTable::StageTable(const PlacementProblem& problem, const MemoryBudget& memory,
                       const CostModel& cost, const ResolvedPins& pins)
    : problem_(problem),
      memory_(memory),
      cost_(cost),
      pins_(pins),
      refs_(AllDevices(problem.cluster)) {
  const int n = size();
  options_.resize(refs_.size() * static_cast<size_t>(n) * static_cast<size_t>(n));
  least_.assign(static_cast<size_t>(n) + 1, 0);
  std::vector<double> fastest(static_cast<size_t>(n), 1e300);
  for (int d = 0; d < devices(); ++d) {
    for (int i = 0; i < n; ++i) {
      fastest[i] = std::min(fastest[i], cost_.DecodeSeconds(Host(d), Device(d), i, i + 1, {}));
      for (int j = i + 1; j <= n; ++j) {
        StageOption option = Make(d, i, j);
        const bool hopeless = option.hopeless;
        options_[(static_cast<size_t>(d) * n + i) * n + j - 1] = std::move(option);
        if (hopeless) break;
      }
    }
  }
  for (int i = n - 1; i >= 0; --i) least_[i] = least_[i + 1] + fastest[i];
}

const StageOption& StageTable::Option(int device, int first, int end) const {
  const size_t n = static_cast<size_t>(size());
  return options_[(static_cast<size_t>(device) * n + static_cast<size_t>(first)) * n +
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
  const Bytes budget = d.kind == DeviceKind::kCpu ? std::min(d.budget, Host(device).budget) : d.budget;
  return budget - d.overhead;
}

// Host memory that one GPU's stage may use: what the worker's CPU devices leave, in equal shares.
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
  return cost_.HopSeconds(same ? problem_.cluster.local : problem_.cluster.remote, 1);
}

StageOption StageTable::Make(int device, int first, int end) const {
  StageOption option;
  const DeviceSpec& d = Device(device);
  const bool gpu = d.kind == DeviceKind::kGpu;
  std::vector<bool> host_home(static_cast<size_t>(end - first), false);
  bool any_host = false;
  for (int b = first; b < end; ++b) {
    const PinnedHome home = pins_.home[b];
    const bool unsupported = gpu && home == PinnedHome::kHost && !problem_.gpu_host_homes;
    if (!pins_.allowed[b][device] || (home == PinnedHome::kDevice && !gpu) || unsupported) {
      option.hopeless = true;
      return option;
    }
    if (gpu && home == PinnedHome::kHost) {
      host_home[static_cast<size_t>(b - first)] = true;
      any_host = true;
    }
  }
  if (any_host) option.host_home = host_home;
  const StageNeeds needs = memory_.Needs(d, first, end, option.host_home);
  const Bytes room = Room(device) + d.overhead;
  if (needs.device_total() <= room && needs.host_weights <= (gpu ? HostRoom(device) : Bytes(0))) {
    option.fits = true;
  } else if (gpu && problem_.gpu_host_homes) {
    option.fits = SpillToHost(device, first, end, option);
  } else {
    option.hopeless = needs.weights + needs.kv > room && end < size();
  }
  if (option.fits) {
    option.seconds = cost_.DecodeSeconds(Host(device), d, first, end, option.host_home);
  }
  return option;
}

// Moves blocks to the host, feed-forward halves from the last layer back first, then attention,
// until the device holds the rest.
bool StageTable::SpillToHost(int device, int first, int end, StageOption& option) const {
  const DeviceSpec& d = Device(device);
  if (option.host_home.empty()) option.host_home.assign(static_cast<size_t>(end - first), false);
  for (BlockKind kind : {BlockKind::kFeedForward, BlockKind::kEmbedding, BlockKind::kAttention,
                         BlockKind::kHead}) {
    for (int b = end - 1; b >= first; --b) {
      if (memory_.blocks()[b].kind != kind || pins_.home[b] == PinnedHome::kDevice) continue;
      if (option.host_home[static_cast<size_t>(b - first)]) continue;
      option.host_home[static_cast<size_t>(b - first)] = true;
      const StageNeeds needs = memory_.Needs(d, first, end, option.host_home);
      if (needs.host_weights > HostRoom(device)) return false;
      if (needs.device_total() <= d.budget) return true;
    }
  }
  return false;
}

}  // namespace millrace
