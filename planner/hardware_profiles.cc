#include "planner/hardware_profiles.h"

#include <algorithm>
#include <array>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/dtype.h"

namespace millrace {
namespace {

constexpr Bandwidth Sheet(double gb_per_second) {
  return Bandwidth::GBPerSecond(gb_per_second * kSustainedHbm);
}
constexpr double SheetTflops(double tera) { return tera * 1e12 * kSustainedTensor; }
constexpr Bytes MiB(int64_t n) { return Bytes(n << 20); }

// The context takes 0.51 GiB on the H200 (measured); cuBLAS and modules 600 MiB besides, where
// weights are multiplied as they are 128 MiB. The same is assumed of the other cards.
constexpr Bytes kWithLibrary = 1124_MiB, kWithoutLibrary = 652_MiB;

// Memory: what the driver leaves of the data sheet's, about 98%, with ECC in GDDR6 92%.
constexpr std::array<GpuProfile, 8> kGpus = {{
    {"rtx-3090", "NVIDIA GeForce RTX 3090", MiB(24 * 1024 * 98 / 100), Sheet(936), SheetTflops(71),
     4, kWithLibrary, false,
     "estimate: data sheet 24 GB x 0.98, 936 GB/s x 0.92, 71 TFLOP/s x 0.7"},
    {"rtx-4090", "NVIDIA GeForce RTX 4090", MiB(24 * 1024 * 98 / 100), Sheet(1008),
     SheetTflops(165.2), 4, kWithLibrary, false,
     "estimate: data sheet 24 GB x 0.98, 1008 GB/s x 0.92, 165 TFLOP/s x 0.7"},
    {"rtx-5090", "NVIDIA GeForce RTX 5090", MiB(32 * 1024 * 98 / 100), Sheet(1792),
     SheetTflops(209.5), 5, kWithLibrary, false,
     "estimate: data sheet 32 GB x 0.98, 1792 GB/s x 0.92, 209 TFLOP/s x 0.7"},
    {"a100-40", "NVIDIA A100 40GB", MiB(40 * 1024 * 98 / 100), Sheet(1555), SheetTflops(312), 4,
     kWithLibrary, false, "estimate: data sheet 40 GB x 0.98, 1555 GB/s x 0.92, 312 TFLOP/s x 0.7"},
    {"a100-80", "NVIDIA A100 80GB", MiB(80 * 1024 * 98 / 100), Sheet(2039), SheetTflops(312), 4,
     kWithLibrary, false,
     "estimate: data sheet (SXM) 80 GB x 0.98, 2039 GB/s x 0.92, 312 TFLOP/s x 0.7"},
    {"h100", "NVIDIA H100 80GB", MiB(80 * 1024 * 98 / 100), Sheet(3350), SheetTflops(989), 5,
     kWithoutLibrary, true,
     "estimate: data sheet (SXM) 80 GB x 0.98, 3350 GB/s x 0.92, 989 TFLOP/s x 0.7"},
    {"h200", "NVIDIA H200", MiB(139 * 1024), Bandwidth::GBPerSecond(4480), 7.0e14, 5,
     kWithoutLibrary, true,
     "measured on the reference machine: 139 GiB, read 4.48 TB/s, products 700 TFLOP/s"},
    {"l40s", "NVIDIA L40S", MiB(48 * 1024 * 92 / 100), Sheet(864), SheetTflops(362), 4,
     kWithLibrary, false,
     "estimate: data sheet 48 GB x 0.92 (ECC), 864 GB/s x 0.92, 362 TFLOP/s x 0.7"},
}};

constexpr Bandwidth Gb(double v) { return Bandwidth::GBPerSecond(v); }
// `cpu-matmul-bench`, 16 threads, docs/benchmarks.md.
constexpr std::array<CpuRate, 4> kReferenceRates = {
    {{1, Gb(108)}, {8, Gb(48)}, {32, Gb(33)}, {256, Gb(6.5)}}};

// Flops of CPUs: 0.2 TFLOP/s a thread were measured on a server (AVX-512, no AMX, 16 threads), 0.37
// with AMX; desktops' cores run faster and with half the units.
constexpr std::array<HostProfile, 5> kHosts = {{
    {"ddr4-desktop",
     "8 cores with AVX2, 2 channels of DDR4-3200",
     Gb(51.2 * kSustainedDram),
     8,
     1.2e12,
     {},
     "estimate: 51.2 GB/s x 0.8, 8 threads x 0.15 TFLOP/s"},
    {"ddr5-desktop",
     "8 cores with AVX-512, 2 channels of DDR5-5600",
     Gb(89.6 * kSustainedDram),
     8,
     2.0e12,
     {},
     "estimate: 89.6 GB/s x 0.8, 8 threads x 0.25 TFLOP/s"},
    {"ddr5-server-8ch",
     "32 cores with AMX, 8 channels of DDR5-4800",
     Gb(307.2 * kSustainedDram),
     32,
     11.8e12,
     {},
     "estimate: 307.2 GB/s x 0.8, 32 threads x 0.37 TFLOP/s"},
    {"ddr5-server-12ch",
     "64 cores with AVX-512, 12 channels of DDR5-4800",
     Gb(460.8 * kSustainedDram),
     64,
     12.8e12,
     {},
     "estimate: 460.8 GB/s x 0.8, 64 threads x 0.2 TFLOP/s"},
    {"reference-server", "16 threads of the reference machine, with AMX", Gb(125), 16, 5.9e12,
     kReferenceRates,
     "measured on the reference machine (docs/benchmarks.md): 125 GB/s, rates by rows"},
}};

constexpr std::array<DiskProfile, 3> kDisks = {{
    {"sata-ssd", Gb(0.5), "estimate: the interface's 0.6 GB/s x 0.83"},
    {"nvme-pcie3", Gb(3.0), "estimate: data sheets' 3.5 GB/s x 0.85"},
    {"nvme-pcie4", Gb(6.0), "estimate: data sheets' 7.0 GB/s x 0.85"},
}};

template <typename Profile>
const Profile* FindIn(absl::Span<const Profile> all, absl::string_view name) {
  for (const Profile& profile : all) {
    if (absl::EqualsIgnoreCase(profile.name, name)) return &profile;
  }
  return nullptr;
}

}  // namespace

absl::Span<const GpuProfile> GpuProfiles() { return kGpus; }
absl::Span<const HostProfile> HostProfiles() { return kHosts; }
absl::Span<const DiskProfile> DiskProfiles() { return kDisks; }

const GpuProfile* FindGpuProfile(absl::string_view name) { return FindIn(GpuProfiles(), name); }
const HostProfile* FindHostProfile(absl::string_view name) { return FindIn(HostProfiles(), name); }
const DiskProfile* FindDiskProfile(absl::string_view name) { return FindIn(DiskProfiles(), name); }

absl::StatusOr<PcieSlot> ParsePcieSlot(absl::string_view text) {
  const std::vector<absl::string_view> halves = absl::StrSplit(text, 'x');
  PcieSlot slot;
  if (halves.size() == 2 && absl::SimpleAtoi(halves[0], &slot.generation) &&
      absl::SimpleAtoi(halves[1], &slot.lanes) && slot.generation >= 3 && slot.generation <= 5) {
    for (int lanes : {1, 2, 4, 8, 16}) {
      if (slot.lanes == lanes) return slot;
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "'", text, "' is not GENERATIONxLANES, e.g. 4x16: generations 3 to 5, lanes 1, 2, 4, 8, 16"));
}

std::string PcieSlotName(PcieSlot slot) {
  return absl::StrCat("pcie", slot.generation, "x", slot.lanes);
}

Bandwidth PcieBandwidth(PcieSlot slot) {
  constexpr double kLaneOfGen3 = 8e9 * 128 / 130 / 8;  // bytes per second
  const double lane = kLaneOfGen3 * (1 << (slot.generation - 3));
  return Bandwidth::BytesPerSecond(lane * slot.lanes * kSustainedLink);
}

std::vector<CpuRate> EstimatedCpuRates(Bandwidth dram_read, double flops) {
  const DTypeInfo& type = Info(DType::kQ4_K);
  const double row = 2.0 * type.block_elements / type.block_bytes / flops;  // seconds per byte
  const double one = 1 / (dram_read.bytes_per_second() * kProductsOfDramRead);
  std::vector<CpuRate> rates;
  for (int tokens : {1, 256}) {  // linear between: planner/host_rates.h
    rates.push_back({tokens, Bandwidth::BytesPerSecond(1 / (one + row * (tokens - 1)))});
  }
  return rates;
}

DeviceSpec DescribedGpu(const GpuProfile& profile, int index, PcieSlot slot) {
  slot.generation = std::min(slot.generation, profile.pcie);
  DeviceSpec gpu;
  gpu.id = DeviceId(absl::StrCat("gpu", index));
  gpu.kind = DeviceKind::kGpu;
  gpu.name = std::string(profile.title);
  gpu.memory_total = profile.memory;
  gpu.budget = profile.memory - kDescribedGpuHeadroom;
  gpu.overhead = profile.overhead;
  gpu.memory_bandwidth = profile.read;
  gpu.h2d_bandwidth = PcieBandwidth(slot);
  gpu.prefill_flops = profile.flops;
  gpu.direct_products = profile.direct_products;
  return gpu;
}

HostSpec DescribedHost(const HostProfile& profile, Bytes memory) {
  HostSpec host;
  host.worker = WorkerId("local");
  host.memory_total = memory;
  host.budget = memory - std::min(kDescribedHostHeadroom, Bytes(memory.count() / 8));
  host.dram_bandwidth = profile.read;
  host.cpu_flops = profile.flops;
  host.threads = profile.threads;
  host.cpu_rates = {profile.measured_rates.begin(), profile.measured_rates.end()};
  if (host.cpu_rates.empty()) host.cpu_rates = EstimatedCpuRates(profile.read, profile.flops);
  return host;
}

DeviceSpec DescribedCpu(const HostSpec& host) {
  DeviceSpec cpu;
  cpu.id = DeviceId("cpu");
  cpu.kind = DeviceKind::kCpu;
  cpu.name = absl::StrCat("CPU, ", host.threads, " threads");
  cpu.memory_total = host.memory_total;
  cpu.budget = host.budget;
  cpu.overhead = 64_MiB;  // of the process, estimate
  cpu.memory_bandwidth = host.dram_bandwidth;
  cpu.prefill_flops = host.cpu_flops;
  return cpu;
}

}  // namespace millrace
