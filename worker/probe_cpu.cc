#include "worker/probe_cpu.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/cpu_context.h"
#include "kernels/matmul.h"
#include "kernels/thread_pool.h"
#include "worker/process_memory.h"

namespace millrace {
namespace {

constexpr absl::Duration kMeasureFor = absl::Milliseconds(100);

// Anonymous memory, 4096-byte aligned, given back at once when destroyed (malloc may keep it, and
// then the probe would count as overhead).
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
  size_t size() const { return size_; }

 private:
  size_t size_;
  std::byte* data_ = nullptr;
};

constexpr int64_t kChunk = 256 << 10;  // bytes

// Written before it is read: untouched pages are one shared page of zeros. As Q4_K blocks the bytes
// are valid, their scales (f16) 0.048.
void Touch(ThreadPool& pool, const ScratchPages& pages) {
  constexpr int kByte = 0x2a;
  const int64_t size = static_cast<int64_t>(pages.size()), chunks = (size + kChunk - 1) / kChunk;
  pool.ParallelFor(chunks, 1, [&](int64_t begin, int64_t end, int) {
    const int64_t last = std::min(end * kChunk, size);
    std::memset(pages.data() + begin * kChunk, kByte, static_cast<size_t>(last - begin * kChunk));
  });
}

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

// The median of several passes, bytes per second: the fastest would be one that others' caches
// helped.
double ReadRate(ThreadPool& pool, const ScratchPages& pages) {
  constexpr size_t kLeastRounds = 3;
  const int64_t chunks = static_cast<int64_t>(pages.size()) / kChunk;
  std::atomic<uint64_t> sink{0};
  std::vector<double> rates;
  const absl::Time start = absl::Now();
  do {
    const absl::Time round = absl::Now();
    pool.ParallelFor(chunks, 4, [&](int64_t begin, int64_t end, int) {
      const auto size = static_cast<size_t>((end - begin) * kChunk);
      sink.fetch_add(SumWords(pages.data() + begin * kChunk, size), std::memory_order_relaxed);
    });
    const double seconds = std::max(1e-9, absl::ToDoubleSeconds(absl::Now() - round));
    rates.push_back(static_cast<double>(chunks * kChunk) / seconds);
  } while (rates.size() < kLeastRounds || absl::Now() - start < kMeasureFor);
  std::nth_element(rates.begin(), rates.begin() + static_cast<int64_t>(rates.size() / 2),
                   rates.end());
  return sink.load() == 0 ? 0 : rates[rates.size() / 2];
}

int64_t AlignPage(size_t bytes) { return static_cast<int64_t>((bytes + 4095) & ~size_t{4095}); }

// Products with weights that lie one after the other in a buffer, taken in turn so that none is
// read again before all others were.
class Products {
 public:
  // Of up to `tokens` rows of x with matrices of `cols` columns, in `pages`: x, y, scratch,
  // weights.
  Products(ThreadPool& pool, const ScratchPages& pages, DType type, int64_t tokens, int64_t cols)
      : type_(type), cols_(cols), row_bytes_(RowBytes(type, cols).count()) {
    const int64_t size = static_cast<int64_t>(pages.size());
    // Of a quarter of the weights at a time, no more than a feed-forward matrix of a 70B has.
    constexpr int64_t kLargest = 28672;
    most_rows_ = std::clamp<int64_t>(size / (4 * row_bytes_), 16, kLargest);
    const size_t scratch = MatmulScratchBytes(tokens, cols, pool.size());
    const int64_t x = AlignPage(static_cast<size_t>(tokens * cols) * sizeof(float));
    const int64_t y = AlignPage(static_cast<size_t>(tokens * most_rows_) * sizeof(float));
    const int64_t used = AlignPage(scratch) + x + y;
    context_.pool = &pool;
    context_.isa = DetectCpuIsa();
    context_.scratch = pages.data();
    context_.scratch_bytes = static_cast<size_t>(AlignPage(scratch));
    x_ = reinterpret_cast<float*>(pages.data() + AlignPage(scratch));
    y_ = reinterpret_cast<float*>(pages.data() + AlignPage(scratch) + x);
    weights_ = pages.data() + used;
    rows_ = std::max<int64_t>(0, size - used) / row_bytes_;
    most_rows_ = std::min(most_rows_, rows_);
    if (rows_ > 0) std::fill(x_, x_ + tokens * cols, 0.5f);
  }

  Bytes weight_bytes() const { return Bytes(rows_ * row_bytes_); }

  // Bytes of weights per second in passes of `tokens` rows, measured for `duration` and at least
  // twice.
  double Rate(int64_t tokens, absl::Duration duration) {
    const int64_t least = std::min<int64_t>(most_rows_, 64 * context_.pool->size());
    Seconds(tokens, least);  // wakes threads and units
    const double per_row = Seconds(tokens, least) / static_cast<double>(least);
    const double wanted = absl::ToDoubleSeconds(duration) / 3 / per_row;
    const int64_t rows = static_cast<int64_t>(
        std::min(std::max(wanted, static_cast<double>(least)), static_cast<double>(most_rows_)));
    double seconds = 0;
    int64_t times = 0;
    while (times < 2 || seconds < absl::ToDoubleSeconds(duration)) {
      seconds += Seconds(tokens, rows);
      ++times;
    }
    return static_cast<double>(times * rows * row_bytes_) / seconds;
  }

 private:
  double Seconds(int64_t tokens, int64_t rows) {
    if (at_ + rows > rows_) at_ = 0;
    MatmulTarget target;
    target.w = {weights_ + at_ * row_bytes_, type_, rows, cols_};
    target.y = FloatView(y_, tokens, rows);
    at_ += rows;
    const absl::Time start = absl::Now();
    Matmul(context_, FloatView(x_, tokens, cols_), {&target, 1});
    return std::max(1e-9, absl::ToDoubleSeconds(absl::Now() - start));
  }

  const DType type_;
  const int64_t cols_, row_bytes_;
  int64_t rows_ = 0, most_rows_ = 0;  // of all weights, of one product
  int64_t at_ = 0;                    // the next product's first row
  CpuContext context_;
  float *x_ = nullptr, *y_ = nullptr;
  const std::byte* weights_ = nullptr;
};

constexpr absl::Duration kRateFor = absl::Milliseconds(30);

Bandwidth RateOf(Products& products, int tokens) {
  return Bandwidth::BytesPerSecond(products.Rate(tokens, kRateFor));
}

// Copies come from memory as weights do: from more than a last-level cache, where there is as much.
void MeasureBesideCopies(Products& products, const ScratchPages& pages, const UploadBeside& upload,
                         std::vector<CpuRate>& rates) {
  constexpr size_t kMost = size_t{1} << 30;
  const auto load = upload({pages.data(), std::min(kMost, pages.size())});
  if (load == nullptr) return;
  for (CpuRate& rate : rates) {
    rate.beside_copies = std::min(rate.weights, RateOf(products, rate.tokens));
  }
}

std::vector<CpuRate> MeasureRates(ThreadPool& pool, const ScratchPages& pages,
                                  const UploadBeside& upload) {
  constexpr int kTokens[] = {1, 4, 8, 32, 128, 256};
  constexpr int64_t kCols = 8192;
  constexpr Bytes kLeastWeights = 16_MiB;
  std::vector<CpuRate> rates;
  Products products(pool, pages, DType::kQ4_K, std::end(kTokens)[-1], kCols);
  if (products.weight_bytes() < kLeastWeights) return rates;
  for (int tokens : kTokens) {
    Bandwidth rate = RateOf(products, tokens);
    // More rows are never less work: what looks like it is noise.
    if (!rates.empty()) rate = std::min(rate, rates.back().weights);
    rates.push_back({tokens, rate});
  }
  if (upload != nullptr) MeasureBesideCopies(products, pages, upload, rates);
  return rates;
}

// Multiply-adds x 2 per second at `bytes_per_second` of weights of that type.
double FlopsAt(double bytes_per_second, DType type, int tokens) {
  const DTypeInfo& info = Info(type);
  return 2.0 * tokens * bytes_per_second * info.block_elements / info.block_bytes;
}

double MeasureF16Flops(ThreadPool& pool, const ScratchPages& pages) {
  constexpr int kTokens = 128;
  Products products(pool, pages, DType::kF16, kTokens, 1024);
  if (products.weight_bytes() <= Bytes(0)) return 0;
  return FlopsAt(products.Rate(kTokens, kMeasureFor), DType::kF16, kTokens);
}

}  // namespace

CpuSpeeds MeasureCpu(int threads, Bytes buffer, const UploadBeside& upload) {
  CpuSpeeds speeds;
  ScratchPages pages(static_cast<size_t>(buffer.count()));
  if (pages.data() == nullptr) return speeds;
  ThreadPool pool(threads);
  Touch(pool, pages);
  speeds.dram_bandwidth = Bandwidth::BytesPerSecond(ReadRate(pool, pages));
  speeds.cpu_rates = MeasureRates(pool, pages, upload);
  speeds.cpu_flops = MeasureF16Flops(pool, pages);
  if (!speeds.cpu_rates.empty()) {
    const CpuRate& last = speeds.cpu_rates.back();
    speeds.cpu_flops = std::max(
        speeds.cpu_flops, FlopsAt(last.weights.bytes_per_second(), DType::kQ4_K, last.tokens));
  }
  return speeds;
}

Bandwidth MeasureReadBandwidth(int threads, Bytes buffer) {
  ScratchPages pages(static_cast<size_t>(buffer.count()));
  if (pages.data() == nullptr) return Bandwidth();
  ThreadPool pool(threads);
  Touch(pool, pages);
  return Bandwidth::BytesPerSecond(ReadRate(pool, pages));
}

// https://docs.kernel.org/admin-guide/abi-testing.html, /sys/devices/system/cpu/cpuX/cache
Bytes LastLevelCacheBytes() {
  std::map<std::string, int64_t> sizes;  // bytes by the processors that share a cache
  for (int cpu = 0;; ++cpu) {
    const std::string folder = absl::StrCat("/sys/devices/system/cpu/cpu", cpu, "/cache/index3/");
    std::ifstream size_file(folder + "size"), shared_file(folder + "shared_cpu_list");
    int64_t kib = 0;
    std::string shared;
    if (!(size_file >> kib) || !(shared_file >> shared)) break;  // "32768K"
    sizes[shared] = kib << 10;
  }
  Bytes sum;
  for (const auto& [_, size] : sizes) sum += Bytes(size);
  return sum;
}

Bytes ProbeBufferFor(Bytes cache, Bytes room) {
  constexpr Bytes kUnknownCache = 64_MiB, kLeast = 8_MiB;
  const Bytes wanted = std::clamp((cache > Bytes(0) ? cache : kUnknownCache) * 8, 96_MiB, 4_GiB);
  return std::max(kLeast, std::min(wanted, Bytes(room.count() / 2)));
}

Bytes ProbeBuffer(Bytes budget) {
  const Bytes left = std::min(budget - ResidentBytes(), MeasureHostMemory().available);
  return ProbeBufferFor(LastLevelCacheBytes(), left);
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

}  // namespace millrace
