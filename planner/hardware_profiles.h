// Hardware that one can plan for without having it: sustained figures of common cards, hosts, links
// and disks, each with where it comes from. Plain data; no figure here was measured unless it says
// so.
#ifndef MILLRACE_PLANNER_HARDWARE_PROFILES_H_
#define MILLRACE_PLANNER_HARDWARE_PROFILES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/bytes.h"
#include "proto/cluster_spec.h"

namespace millrace {

// What sustained figures are of the data sheet's, where nobody measured.
inline constexpr double kSustainedHbm = 0.92;    // the H200: 4.48 - 4.59 of 4.8 TB/s
inline constexpr double kSustainedTensor = 0.7;  // dense f16; the probe's own estimate
inline constexpr double kSustainedLink = 0.86;   // the H200: 54 of 63 GB/s
inline constexpr double kSustainedDram = 0.8;    // estimate
// One row's products over plain reads: 108 of 125 GB/s on the H200's host.
inline constexpr double kProductsOfDramRead = 0.87;
// Of a described card's memory, what is left to others, as the probe does.
inline constexpr Bytes kDescribedGpuHeadroom = 256_MiB;
// Of a described host, what the system keeps: this, or an eighth where that is less.
inline constexpr Bytes kDescribedHostHeadroom = 4_GiB;

struct GpuProfile {
  absl::string_view name;        // "rtx-3090"
  absl::string_view title;       // "NVIDIA GeForce RTX 3090"
  Bytes memory;                  // as a process sees it
  Bandwidth read;                // sustained
  double flops = 0;              // sustained, dense f16 products with f32 sums
  int pcie = 0;                  // generation of its x16 connector
  Bytes overhead;                // context and what CUDA takes later
  bool direct_products = false;  // DeviceSpec::direct_products
  absl::string_view source;      // of memory, read and flops
};

struct HostProfile {
  absl::string_view name;  // "ddr5-desktop"
  absl::string_view title;
  Bandwidth read;  // sustained, all threads
  int threads = 0;
  double flops = 0;  // sustained, of all threads, products of many rows with quantised weights
  absl::Span<const CpuRate> measured_rates;  // empty: EstimatedCpuRates
  absl::string_view source;
};

struct DiskProfile {
  absl::string_view name;  // "nvme-pcie4"
  Bandwidth read;          // sustained, large reads past the page cache
  absl::string_view source;
};

absl::Span<const GpuProfile> GpuProfiles();
absl::Span<const HostProfile> HostProfiles();
absl::Span<const DiskProfile> DiskProfiles();

// Null: no such profile. Names in lower case.
const GpuProfile* FindGpuProfile(absl::string_view name);
const HostProfile* FindHostProfile(absl::string_view name);
const DiskProfile* FindDiskProfile(absl::string_view name);

// A PCIe slot. Generations 3 to 5 (6 is not sold yet), 1, 2, 4, 8 or 16 lanes.
struct PcieSlot {
  int generation = 0;
  int lanes = 16;
};
// "4x8". InvalidArgument says what there is.
absl::StatusOr<PcieSlot> ParsePcieSlot(absl::string_view text);
// "pcie4x8"
std::string PcieSlotName(PcieSlot slot);
// Copies from locked host memory, sustained.
Bandwidth PcieBandwidth(PcieSlot slot);

// Products with Q4_K weights by rows: one row by what memory gives, each further one at `flops`.
std::vector<CpuRate> EstimatedCpuRates(Bandwidth dram_read, double flops);

// "gpu<index>" of that profile in that slot (or as far as the card's own connector goes), all of
// its memory but the headroom as budget.
DeviceSpec DescribedGpu(const GpuProfile& profile, int index, PcieSlot slot);

// A host with `memory`, no devices yet, its headroom kept out of the budget.
HostSpec DescribedHost(const HostProfile& profile, Bytes memory);

// The host's own device, for machines without a GPU.
DeviceSpec DescribedCpu(const HostSpec& host);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_HARDWARE_PROFILES_H_
