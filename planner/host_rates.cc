#include "planner/host_rates.h"

#include <algorithm>

#include "proto/dtype.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

// A point's column of the table.
using Column = Bandwidth CpuRate::*;

double SecondsPerByte(const CpuRate& rate, Column column) {
  constexpr double kLeast = 1e6;  // bytes per second
  return 1 / std::max(kLeast, (rate.*column).bytes_per_second());
}

double SecondsPerByte(const std::vector<CpuRate>& rates, Column column, int tokens) {
  MILLRACE_CHECK(!rates.empty());
  const CpuRate& first = rates.front();
  if (rates.size() == 1 || tokens <= first.tokens) return SecondsPerByte(first, column);
  size_t upper = 1;
  while (upper + 1 < rates.size() && rates[upper].tokens < tokens) ++upper;
  const CpuRate &a = rates[upper - 1], &b = rates[upper];
  const double at_a = SecondsPerByte(a, column), at_b = SecondsPerByte(b, column);
  double slope = (at_b - at_a) / (b.tokens - a.tokens);
  if (tokens > b.tokens) slope = std::max(0.0, slope);
  return at_b + slope * (tokens - b.tokens);
}

double Q4KBytesPerElement() {
  const DTypeInfo& type = Info(DType::kQ4_K);
  return static_cast<double>(type.block_bytes) / type.block_elements;
}

bool MeasuredBesideCopies(const HostSpec& host) {
  return !host.cpu_rates.empty() &&
         std::all_of(host.cpu_rates.begin(), host.cpu_rates.end(),
                     [](const CpuRate& rate) { return rate.beside_copies > Bandwidth(); });
}

}  // namespace

double CpuSecondsPerByte(const std::vector<CpuRate>& rates, int tokens) {
  return SecondsPerByte(rates, &CpuRate::weights, tokens);
}

double CpuProductSeconds(const HostSpec& host, double bytes, double elements, int tokens,
                         LinkLoad link) {
  if (host.cpu_rates.empty()) {
    return tokens == 1 ? 0 : 2 * elements * tokens / CpuFlops(host);
  }
  const bool loaded = link == LinkLoad::kCopies && tokens > 1 && MeasuredBesideCopies(host);
  const Column column = loaded ? &CpuRate::beside_copies : &CpuRate::weights;
  const double one = SecondsPerByte(host.cpu_rates, column, 1);
  const double more = std::max(0.0, SecondsPerByte(host.cpu_rates, column, tokens) - one);
  return one * bytes + more * elements * Q4KBytesPerElement();
}

double FluidDiskBytes(const HostSpec& host, const HostRates& rates, double bytes) {
  const double disk = host.disk_bandwidth.bytes_per_second();
  return bytes * std::max(1.0, rates.copy_alone / std::max(1e6, disk));
}

HostRates RatesBeside(const HostSpec& host, const DeviceSpec& device) {
  Bandwidth dram = host.dram_bandwidth;
  if (!host.cpu_rates.empty()) dram = std::max(dram, host.cpu_rates.front().weights);
  const Bandwidth beside =
      MeasuredBesideCopies(host) ? host.cpu_rates.front().beside_copies : Bandwidth();
  return ShareHostMemory(device.h2d_bandwidth, dram, beside);
}

double CpuFlops(const HostSpec& host) {
  if (host.cpu_flops > 0) return host.cpu_flops;
  for (const DeviceSpec& d : host.devices) {
    if (d.kind == DeviceKind::kCpu && d.prefill_flops > 0) return d.prefill_flops;
  }
  return kDefaultFlopsPerThread * std::max(1, host.threads);
}

bool SameCpu(const HostSpec& a, const HostSpec& b) {
  const auto same = [](const CpuRate& x, const CpuRate& y) {
    return x.tokens == y.tokens && x.weights == y.weights && x.beside_copies == y.beside_copies;
  };
  return a.dram_bandwidth == b.dram_bandwidth && CpuFlops(a) == CpuFlops(b) &&
         std::equal(a.cpu_rates.begin(), a.cpu_rates.end(), b.cpu_rates.begin(), b.cpu_rates.end(),
                    same);
}

}  // namespace millrace
