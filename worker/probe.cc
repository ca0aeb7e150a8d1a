#include "worker/probe.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/thread_pool.h"
#include "proto/status_macros.h"
#include "worker/probe_cache.h"
#include "worker/probe_cpu.h"
#include "worker/process_memory.h"

namespace millrace {
namespace {

absl::Status CheckBudget(absl::string_view flag, Bytes budget, Bytes limit, absl::string_view of) {
  if (budget <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", FormatBytes(budget), " is more than ",
                                                 of, " has: ", FormatBytes(limit)));
}

using GpuReports = std::map<int, GpuReport>;  // by hardware index

absl::Status NoSuchGpu(const DeviceOption& option, const GpuList& list) {
  if (list.names.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--devices: '", option.id.value(), "': there is no GPU here (", list.reason, "); use cpu"));
  }
  std::vector<std::string> known;
  for (size_t i = 0; i < list.names.size(); ++i) {
    known.push_back(absl::StrCat("gpu", i, " (", list.names[i], ")"));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--devices: '", option.id.value(), "': no such GPU; there is ", absl::StrJoin(known, ", ")));
}

// What all logical devices on hardware `index` may use together; kNoLimit where one has no budget.
Bytes GpuBudget(const std::vector<DeviceOption>& devices, int index) {
  constexpr Bytes kNoLimit(std::numeric_limits<int64_t>::max());
  Bytes sum;
  for (const DeviceOption& device : devices) {
    if (device.kind != DeviceKind::kGpu || device.index != index) continue;
    if (!device.budget.has_value()) return kNoLimit;
    sum += *device.budget;
  }
  return sum;
}

// What was measured before on such a GPU, or now within `budget`; where that is too little, what
// was before. A cache that cannot be written is only a probe's error.
absl::Status AddTimes(const ProbeOptions& options, int index, Bytes budget, GpuReport& report) {
  if (!options.measure_times || options.gpus.measure_times == nullptr) {
    report.times = ReadDeviceTimes(options.cache_folder, report.key);
    return absl::OkStatus();
  }
  const Bytes room = std::min(report.free, budget) - report.overhead;
  absl::StatusOr<DeviceTimes> times =
      options.gpus.measure_times(index, Bytes(std::max<int64_t>(0, room.count()) / 10 * 9));
  if (absl::IsResourceExhausted(times.status())) {
    report.times = ReadDeviceTimes(options.cache_folder, report.key);
    return absl::OkStatus();
  }
  if (!times.ok()) return Annotate(times.status(), absl::StrCat("timing gpu", index));
  report.times = *std::move(times);
  return WriteDeviceTimes(options.cache_folder, report.key, report.times);
}

// One report per hardware device among `devices`.
absl::StatusOr<GpuReports> ProbeGpus(const ProbeOptions& options,
                                     const std::vector<DeviceOption>& devices) {
  const GpuSource& source = options.gpus;
  GpuReports reports;
  for (const DeviceOption& device : devices) {
    if (device.kind != DeviceKind::kGpu || reports.contains(device.index)) continue;
    const GpuList list = source.list();
    if (device.index >= static_cast<int>(list.names.size())) return NoSuchGpu(device, list);
    absl::StatusOr<GpuReport> report = source.probe(device.index, GpuBudget(devices, device.index));
    if (!report.ok()) {
      return Annotate(report.status(), absl::StrCat("probing gpu", device.index));
    }
    if (source.measure_prefill_flops) {
      MILLRACE_ASSIGN_OR_RETURN(report->prefill_flops, source.measure_prefill_flops(device.index));
    }
    MILLRACE_RETURN_IF_ERROR(
        AddTimes(options, device.index, GpuBudget(devices, device.index), *report));
    reports.emplace(device.index, *std::move(report));
  }
  return reports;
}

// Copies to all the GPUs at once, each from pages of its own (pages cannot be locked twice); where
// one cannot, none.
UploadBeside UploadToAll(const GpuSource& source, const GpuReports& gpus) {
  if (gpus.empty() || source.upload == nullptr) return nullptr;
  return [&source, &gpus](absl::Span<const std::byte> from) -> std::shared_ptr<void> {
    auto loads = std::make_shared<std::vector<std::shared_ptr<void>>>();
    constexpr size_t kPage = 4096;
    const size_t part = from.size() / gpus.size() / kPage * kPage;
    if (part == 0) return nullptr;
    for (const auto& [index, _] : gpus) {
      auto load = source.upload(index, from.subspan(loads->size() * part, part));
      if (!load.ok()) return nullptr;
      loads->push_back(*std::move(load));
    }
    return loads;
  };
}

// The logical device `option`, one of `all`, on the hardware that `report` is of.
absl::StatusOr<DeviceSpec> GpuDevice(const DeviceOption& option,
                                     const std::vector<DeviceOption>& all,
                                     const GpuReport& report) {
  Bytes given;
  int64_t open = 0;  // devices on the same hardware that were given no budget
  bool first = true, seen = false;
  for (const DeviceOption& other : all) {
    if (other.kind != DeviceKind::kGpu || other.index != option.index) continue;
    seen |= other.id == option.id;
    first &= seen;
    given += other.budget.value_or(Bytes(0));
    open += !other.budget.has_value();
  }
  const std::string flag = absl::StrCat("--devices: '", option.id.value(), "'");
  const std::string hardware = absl::StrCat("gpu", option.index, " (", report.name, ")");
  if (option.budget.has_value()) {
    MILLRACE_RETURN_IF_ERROR(CheckBudget(flag, *option.budget, report.total, hardware));
  }
  MILLRACE_RETURN_IF_ERROR(CheckBudget(absl::StrCat(flag, ": the budgets on the same GPU together"),
                                       given, report.total, hardware));
  DeviceSpec device;
  device.id = option.id;
  device.kind = DeviceKind::kGpu;
  device.name = report.name;
  device.memory_total = report.total;
  device.overhead = first ? report.overhead : Bytes(0);
  const Bytes left = std::max(Bytes(0), report.free - kGpuHeadroom - given);
  device.budget = option.budget.value_or(Bytes(left.count() / std::max<int64_t>(1, open)));
  device.memory_bandwidth = report.memory_bandwidth;
  device.h2d_bandwidth = report.h2d_bandwidth;
  device.prefill_flops = report.prefill_flops;
  device.direct_products = report.direct_products;
  device.times = report.times;
  if (device.budget <= device.overhead) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, ": ", FormatBytes(device.budget),
                     " is less than CUDA takes by itself: ", FormatBytes(device.overhead),
                     "; give it more, or choose another device (", FormatBytes(report.free), " of ",
                     FormatBytes(report.total), " are free on ", hardware, ")"));
  }
  return device;
}

}  // namespace

void SetProcessOverhead(HostSpec& host, Bytes overhead) {
  for (DeviceSpec& device : host.devices) {
    if (device.kind != DeviceKind::kCpu) continue;
    device.overhead = overhead;
    return;
  }
}

absl::StatusOr<HostSpec> ProbeHost(const ProbeOptions& options) {
  HostSpec host;
  host.worker = options.worker;
  host.threads = options.threads > 0 ? options.threads : UsableThreads();
  const HostMemory memory = MeasureHostMemory();
  host.memory_total = memory.total;
  host.budget = options.host_memory.value_or(std::min(memory.available, memory.total));
  MILLRACE_RETURN_IF_ERROR(
      CheckBudget("--host-memory", host.budget, memory.total, "this machine (or its cgroup)"));
  std::vector<DeviceOption> devices = options.devices;
  if (devices.empty()) devices = AutoDevices(static_cast<int>(options.gpus.list().names.size()));
  MILLRACE_ASSIGN_OR_RETURN(const GpuReports gpus, ProbeGpus(options, devices));
  CpuSpeeds cpu =
      MeasureCpu(host.threads, ProbeBuffer(host.budget), UploadToAll(options.gpus, gpus));
  host.dram_bandwidth = cpu.dram_bandwidth;
  host.cpu_flops = cpu.cpu_flops;
  host.cpu_rates = std::move(cpu.cpu_rates);
  const Bytes overhead = ResidentBytes();
  if (host.budget <= overhead) {
    return absl::InvalidArgumentError(
        absl::StrCat("--host-memory: ", FormatBytes(host.budget),
                     " is less than this process takes by itself: ", FormatBytes(overhead)));
  }
  for (const DeviceOption& option : devices) {
    if (option.kind == DeviceKind::kGpu) {
      MILLRACE_ASSIGN_OR_RETURN(DeviceSpec gpu, GpuDevice(option, devices, gpus.at(option.index)));
      host.devices.push_back(std::move(gpu));
      continue;
    }
    DeviceSpec device;
    device.id = option.id;
    device.kind = option.kind;
    device.name = CpuDescription(host.threads);
    device.memory_total = memory.total;
    device.budget = option.budget.value_or(host.budget);
    device.memory_bandwidth = host.dram_bandwidth;
    device.prefill_flops = host.cpu_flops;
    MILLRACE_RETURN_IF_ERROR(CheckBudget(absl::StrCat("--devices: '", option.id.value(), "'"),
                                         device.budget, memory.total, "this machine"));
    host.devices.push_back(std::move(device));
  }
  SetProcessOverhead(host, overhead);
  return host;
}

}  // namespace millrace
