#include "worker/probe.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <memory>

#include "absl/strings/str_cat.h"
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
  if (devices.empty()) devices.push_back({DeviceKind::kCpu, DeviceId("cpu"), std::nullopt});
  for (const DeviceOption& device : devices) {
    if (device.kind == DeviceKind::kGpu) {
      return absl::UnimplementedError(absl::StrCat("--devices: '", device.id.value(),
                                                   "': this worker has no CUDA backend; use cpu"));
    }
  }
  host.dram_bandwidth = MeasureReadBandwidth(host.threads, ProbeBuffer(host.budget));
  const double flops = MeasureMatmulFlops(host.threads);
  const Bytes overhead = ResidentBytes();
  if (host.budget <= overhead) {
    return absl::InvalidArgumentError(
        absl::StrCat("--host-memory: ", FormatBytes(host.budget),
                     " is less than this process takes by itself: ", FormatBytes(overhead)));
  }
  for (const DeviceOption& option : devices) {
    DeviceSpec device;
    device.id = option.id;
    device.kind = option.kind;
    device.name = CpuDescription(host.threads);
    device.memory_total = memory.total;
    device.budget = option.budget.value_or(host.budget);
    // One process: the first device carries its image and libraries.
    device.overhead = host.devices.empty() ? overhead : Bytes(0);
    device.memory_bandwidth = host.dram_bandwidth;
    device.prefill_flops = flops;
    MILLRACE_RETURN_IF_ERROR(CheckBudget(absl::StrCat("--devices: '", option.id.value(), "'"),
                                         device.budget, memory.total, "this machine"));
    host.devices.push_back(std::move(device));
  }
  return host;
}

}  // namespace millrace
