#include "planner/host_split.h"

#include <algorithm>

namespace millrace {
namespace {

struct Bounds {
  double serial = 0;  // GPU and CPU after each other
  double copies = 0;  // until all copies are made
};

Bounds At(const FluidPass& p, const HostRates& rates, double share) {
  const double streamed = p.streamed_bytes + share * p.ff_bytes;
  const double rate = streamed > 0 ? rates.cpu_shared : rates.cpu_alone;
  const double cpu =
      (1 - share) * (std::max(p.ff_bytes / rate, p.ff_compute_seconds) + p.ff_hop_seconds);
  const double device = p.device_seconds - (1 - share) * p.ff_device_seconds;
  return {device + cpu,
          streamed > 0 ? cpu + (streamed - cpu * rates.copy_shared) / rates.copy_alone : 0};
}

}  // namespace

HostSplit BestHostSplit(const FluidPass& pass, const HostRates& rates, RoutePolicy policy) {
  const auto split_at = [&](double share) {
    const Bounds b = At(pass, rates, share);
    return HostSplit{std::max(b.serial, b.copies), share};
  };
  if (policy == RoutePolicy::kCpu) return split_at(0);
  HostSplit best = split_at(1);
  if (policy == RoutePolicy::kStream || pass.ff_bytes <= 0) return best;
  const auto consider = [&](double share) {
    const HostSplit other = split_at(share);
    if (other.seconds < best.seconds) best = other;
  };
  // The lines through a share of nearly nothing and through all; at exactly nothing the CPU is
  // faster.
  constexpr double kLeast = 1e-9;
  const Bounds low = At(pass, rates, kLeast), high = At(pass, rates, 1);
  const double gap_low = low.serial - low.copies, gap_high = high.serial - high.copies;
  if ((gap_low > 0) != (gap_high > 0)) {
    consider(kLeast + (1 - kLeast) * gap_low / (gap_low - gap_high));
  }
  consider(0);
  return best;
}

}  // namespace millrace
