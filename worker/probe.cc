#include "worker/probe.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "kernels/cpu_context.h"
#include "kernels/matmul.h"
#include "kernels/thread_pool.h"
#include "proto/status_macros.h"
#include "worker/process_memory.h"

namespace millrace {
namespace {

constexpr absl::Duration kMeasureFor = absl::Milliseconds(100);

// Zeroed anonymous memory, 4096-byte aligned, given back at once when destroyed (malloc may keep
// it, and then the probe would count as overhead).
class ScratchPages {
 public:
  explicit ScratchPages(size_t size) : size_(size) {
    void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    data_ = p == MAP_FAILED ? nullptr : static_cast<std::byte*>(p);
  }
  ~ScratchPages() {
    if (data_ != nullptr) munmap(data_, size_);
  }
  ScratchPages(const ScratchPages&) = delete;
  ScratchPages& operator=(const ScratchPages&) = delete;
  std::byte* data() const { return data_; }

 private:
  size_t size_;
  std::byte* data_ = nullptr;
};

uint64_t SumWords(const std::byte* data, size_t bytes) {
  uint64_t sums[8] = {};
  const auto* words = reinterpret_cast<const uint64_t*>(data);
  for (size_t i = 0; i + 8 <= bytes / 8; i += 8) {
    for (int j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  uint64_t sum = 0;
  for (uint64_t s : sums) sum += s;
  return sum;
}

// Bytes the probe may touch: large against caches, small against what may be used.
Bytes ProbeBuffer(Bytes budget) {
  const Bytes free = budget - ResidentBytes();
  return Bytes(std::clamp<int64_t>(free.count() / 2, 8 << 20, 96 << 20));
}

absl::Status CheckBudget(absl::string_view flag, Bytes budget, Bytes limit, absl::string_view of) {
  if (budget <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", FormatBytes(budget), " is more than ",
                                                 of, " has: ", FormatBytes(limit)));
}

using GpuReports = std::map<int, GpuReport>;  // by hardware index

absl::Status NoSuchGpu(const DeviceOption& option, const GpuList& list) {
  if (list.names.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--devices: '", option.id.value(),
                                                   "': there is no GPU here (", list.reason,
                                                   "); use cpu"));
  }
  std::vector<std::string> known;
  for (size_t i = 0; i < list.names.size(); ++i) {
    known.push_back(absl::StrCat("gpu", i, " (", list.names[i], ")"));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--devices: '", option.id.value(), "': no such GPU; there is ", absl::StrJoin(known, ", ")));
}

// One report per hardware device among `devices`.
absl::StatusOr<GpuReports> ProbeGpus(const GpuSource& source,
                                     const std::vector<DeviceOption>& devices) {
  GpuReports reports;
  for (const DeviceOption& device : devices) {
    if (device.kind != DeviceKind::kGpu || reports.contains(device.index)) continue;
    const GpuList list = source.list();
    if (device.index >= static_cast<int>(list.names.size())) return NoSuchGpu(device, list);
    absl::StatusOr<GpuReport> report = source.probe(device.index);
    if (!report.ok()) {
      return Annotate(report.status(), absl::StrCat("probing gpu", device.index));
    }
    if (source.measure_prefill_flops) {
      MILLRACE_ASSIGN_OR_RETURN(report->prefill_flops, source.measure_prefill_flops(device.index));
    }
    reports.emplace(device.index, *std::move(report));
  }
  return reports;
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
  MILLRACE_RETURN_IF_ERROR(
      CheckBudget(absl::StrCat(flag, ": the budgets on the same GPU together"), given,
                  report.total, hardware));
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

Bandwidth MeasureReadBandwidth(int threads, Bytes buffer) {
  constexpr int64_t kChunk = 256 << 10;  // bytes
  ScratchPages pages(static_cast<size_t>(buffer.count()));
  if (pages.data() == nullptr) return Bandwidth();
  ThreadPool pool(threads);
  const int64_t chunks = buffer.count() / kChunk;
  std::atomic<uint64_t> sink{0};
  // Written first: untouched pages are one shared page of zeros.
  pool.ParallelFor(chunks, 1, [&](int64_t begin, int64_t end, int) {
    std::memset(pages.data() + begin * kChunk, 1, static_cast<size_t>((end - begin) * kChunk));
  });
  double best = 0;  // bytes per second
  const absl::Time start = absl::Now();
  do {
    const absl::Time round = absl::Now();
    pool.ParallelFor(chunks, 4, [&](int64_t begin, int64_t end, int) {
      const auto size = static_cast<size_t>((end - begin) * kChunk);
      sink.fetch_add(SumWords(pages.data() + begin * kChunk, size), std::memory_order_relaxed);
    });
    const double seconds = absl::ToDoubleSeconds(absl::Now() - round);
    if (seconds > 0) best = std::max(best, static_cast<double>(chunks * kChunk) / seconds);
  } while (absl::Now() - start < kMeasureFor);
  return Bandwidth::BytesPerSecond(sink.load() == 0 ? 0 : best);
}

double MeasureMatmulFlops(int threads) {
  constexpr int64_t kRows = 512, kCols = 512, kBatch = 128;
  ThreadPool pool(threads);
  const size_t scratch_bytes = MatmulScratchBytes(kBatch, kCols, pool.size());
  ScratchPages pages(scratch_bytes + (1 << 20) + (kBatch * (kRows + kCols) * sizeof(float)) +
                     kRows * kCols * 2);
  if (pages.data() == nullptr) return 0;
  CpuContext context;
  context.pool = &pool;
  context.isa = DetectCpuIsa();
  context.scratch = pages.data();
  context.scratch_bytes = (scratch_bytes + 4095) & ~size_t{4095};
  std::byte* next = pages.data() + context.scratch_bytes;
  auto* x = reinterpret_cast<float*>(next);
  auto* y = x + kBatch * kCols;
  MatmulTarget target;
  target.w = {y + kBatch * kRows, DType::kF16, kRows, kCols};
  target.y = FloatView(y, kBatch, kRows);
  double best = 0;
  const absl::Time start = absl::Now();
  do {
    const absl::Time round = absl::Now();
    Matmul(context, FloatView(x, kBatch, kCols), {&target, 1});
    const double seconds = absl::ToDoubleSeconds(absl::Now() - round);
    if (seconds > 0) best = std::max(best, 2.0 * kRows * kCols * kBatch / seconds);
  } while (absl::Now() - start < kMeasureFor);
  return best;
}

std::string CpuDescription(int threads) {
  std::ifstream file("/proc/cpuinfo");
  std::string line, model = "CPU";
  while (std::getline(file, line)) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
      model = line.substr(colon + 2);
      break;
    }
  }
  const absl::string_view isa = CpuIsaName(DetectCpuIsa());
  return absl::StrCat(model, ", ", threads, threads == 1 ? " thread, " : " threads, ", isa);
}

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
  MILLRACE_ASSIGN_OR_RETURN(const GpuReports gpus, ProbeGpus(options.gpus, devices));
  host.dram_bandwidth = MeasureReadBandwidth(host.threads, ProbeBuffer(host.budget));
  host.cpu_flops = MeasureMatmulFlops(host.threads);
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
