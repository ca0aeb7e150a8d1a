// cpu-matmul-bench: Matmul on the CPU against the DRAM read ceiling of the same run, per weight
// type and number n of activation rows: microseconds a call, GB/s of weights, percent of the
// ceiling, Tera-op/s. The calls walk through --bytes of distinct matrices (the shapes of a 70B
// model in turn), so that no weights are found in a cache; a sample of the last results is compared
// with MatmulReference after timing.
//
//   --threads N       default: all usable        --types q4_K,q6_K   default: all
//   --n 1,8,32        default: 1 to 256          --bytes 4           GiB of weights, default 4
//   --isa avx512      default: the best there is --huge              ask for huge pages (the
//   runtime's
//                                                mapped files have ordinary ones)
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "kernels/bench/cpu_read_ceiling.h"
#include "kernels/bench/random_weights.h"
#include "kernels/fp16.h"
#include "kernels/matmul.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

struct Options {
  int threads = UsableThreads();
  std::vector<DType> types = {DType::kQ4_K, DType::kQ6_K, DType::kQ5_K, DType::kQ8_0, DType::kQ4_0,
                              DType::kF16,  DType::kBF16, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                              DType::kQ3_K, DType::kQ2_K, DType::kF32};
  std::vector<int64_t> n = {1, 2, 4, 8, 16, 32, 64, 128, 256};
  int64_t bytes = int64_t{4} << 30;
  CpuIsa isa = DetectCpuIsa();
  bool huge = false;
};

struct Shape {
  int64_t rows, cols;
};
constexpr Shape kShapes[] = {{8192, 8192}, {28672, 8192}, {8192, 28672}};

// Pages of their own for the weights; never freed before the program ends.
absl::Span<std::byte> MapPages(int64_t bytes, bool huge) {
  void* p = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  MILLRACE_CHECK(p != MAP_FAILED);
  madvise(p, static_cast<size_t>(bytes), huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  return {static_cast<std::byte*>(p), static_cast<size_t>(bytes)};
}

// A few MiB of valid random blocks, whole blocks only; the buffer repeats them.
std::vector<std::byte> Pattern(DType dtype) {
  const DTypeInfo& info = Info(dtype);
  const int64_t block = info.quantized ? info.block_bytes : 4;
  std::vector<std::byte> bytes(static_cast<size_t>((int64_t{4} << 20) / block * block));
  std::mt19937_64 rng(7);
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    uint64_t word = rng();
    if (!info.quantized) {  // floats of both signs and moderate size
      word = dtype == DType::kF16    ? (word & 0x83ff83ff83ff83ffu) | 0x2400240024002400u
             : dtype == DType::kBF16 ? (word & 0x80ff80ff80ff80ffu) | 0x3d003d003d003d00u
                                     : (word & 0x80ffffff80ffffffu) | 0x3d0000003d000000u;
    }
    std::memcpy(&bytes[i], &word, 8);
  }
  std::uniform_real_distribution<float> scale(-0.02f, 0.02f);
  for (size_t at = 0; info.quantized && at < bytes.size(); at += static_cast<size_t>(block)) {
    for (int field : HalfFields(dtype)) {
      const uint16_t h = FloatToHalf(scale(rng));
      std::memcpy(&bytes[at + static_cast<size_t>(field)], &h, 2);
    }
  }
  return bytes;
}

void Fill(absl::Span<std::byte> buffer, DType dtype, ThreadPool& pool) {
  const std::vector<std::byte> pattern = Pattern(dtype);
  const int64_t size = static_cast<int64_t>(pattern.size());
  const int64_t total = static_cast<int64_t>(buffer.size());
  pool.ParallelFor((total + size - 1) / size, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(buffer.data() + i * size, pattern.data(),
                  static_cast<size_t>(std::min(size, total - i * size)));
    }
  });
}

std::vector<WeightView> Matrices(absl::Span<const std::byte> buffer, DType dtype) {
  std::vector<WeightView> views;
  int64_t at = 0;
  for (size_t i = 0;; ++i) {
    const Shape shape = kShapes[i % std::size(kShapes)];
    const int64_t bytes = shape.rows * RowBytes(dtype, shape.cols).count();
    if (at + bytes > static_cast<int64_t>(buffer.size())) break;
    views.push_back({buffer.data() + at, dtype, shape.rows, shape.cols});
    at += bytes;
  }
  MILLRACE_CHECK(!views.empty());
  return views;
}

// What all measurements share.
struct Bench {
  CpuContext context;
  std::vector<float> x, y;
  double ceiling = 0;  // GB/s
};

void Call(Bench& b, const WeightView& w, int64_t n) {
  MatmulTarget target;
  target.w = w;
  target.y = FloatView(b.y.data(), n, w.rows);
  Matmul(b.context, FloatView(b.x.data(), n, w.cols), {&target, 1});
}

// Relative error of some rows of the last call's result.
double ErrorOf(Bench& b, const WeightView& w, int64_t n) {
  constexpr int64_t kRows = 48;
  const int64_t tokens = std::min<int64_t>(n, 4), first = w.rows - kRows - 5;
  const int64_t row_bytes = RowBytes(w.dtype, w.cols).count();
  std::vector<float> expected(static_cast<size_t>(tokens * kRows));
  MatmulTarget target;
  target.w = {static_cast<const std::byte*>(w.data) + first * row_bytes, w.dtype, kRows, w.cols};
  target.y = FloatView(expected.data(), tokens, kRows);
  MatmulReference(FloatView(b.x.data() + (n - tokens) * w.cols, tokens, w.cols), target);
  double difference = 0, norm = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < kRows; ++r) {
      const double e = expected[static_cast<size_t>(t * kRows + r)];
      const double d = b.y[static_cast<size_t>((n - tokens + t) * w.rows + first + r)] - e;
      difference += d * d;
      norm += e * e;
    }
  }
  return std::sqrt(difference / norm);
}

void Measure(Bench& b, const std::vector<WeightView>& matrices, int64_t n) {
  const DType dtype = matrices[0].dtype;
  Call(b, matrices[0], n);
  double bytes = 0, weights = 0;
  for (const WeightView& w : matrices) {
    bytes += static_cast<double>(w.rows * RowBytes(dtype, w.cols).count());
    weights += static_cast<double>(w.rows * w.cols);
  }
  std::vector<double> times;  // seconds for all matrices
  for (int round = 0; round < (n <= 32 ? 5 : 3); ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (const WeightView& w : matrices) Call(b, w, n);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    times.push_back(took.count());
  }
  std::sort(times.begin(), times.end());
  const double seconds = times[times.size() / 2];
  const double error = ErrorOf(b, matrices.back(), n), gbs = bytes / seconds / 1e9;
  std::printf("%-6s %4ld %10.1f %8.1f %7.1f%% %9.2f   %.5f %s\n", DTypeName(dtype).data(), n,
              1e6 * seconds / static_cast<double>(matrices.size()), gbs, 100 * gbs / b.ceiling,
              2 * weights * static_cast<double>(n) / seconds / 1e12, error,
              error < 0.012 ? "ok" : "WRONG");
  std::fflush(stdout);
}

void RunBench(const Options& options) {
  ThreadPool pool(options.threads);
  absl::Span<std::byte> buffer = MapPages(options.bytes, options.huge);
  const int64_t most = *std::max_element(options.n.begin(), options.n.end());
  Bench b;
  const size_t scratch_bytes = MatmulScratchBytes(most, 28672, pool.size());
  b.context.pool = &pool;
  b.context.isa = options.isa;
  b.context.scratch = MapPages(static_cast<int64_t>(scratch_bytes), options.huge).data();
  b.context.scratch_bytes = scratch_bytes;
  b.x.resize(static_cast<size_t>(most * 28672));
  b.y.resize(static_cast<size_t>(most * 28672));
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  for (float& v : b.x) v = normal(rng);
  for (DType dtype : options.types) {
    Fill(buffer, dtype, pool);
    b.ceiling = std::max(b.ceiling, CpuReadCeiling(buffer, pool));
    std::printf("%d threads, %s, %s pages, %.1f GB of weights; DRAM read ceiling %.1f GB/s\n",
                pool.size(), CpuIsaName(options.isa).data(), options.huge ? "huge" : "ordinary",
                static_cast<double>(options.bytes) / 1e9, b.ceiling);
    std::printf("%-6s %4s %10s %8s %8s %9s   %s\n", "type", "n", "us/call", "GB/s", "ceiling",
                "Tera-op/s", "error");
    const std::vector<WeightView> matrices = Matrices(buffer, dtype);
    for (int64_t n : options.n) Measure(b, matrices, n);
  }
}

bool ParseIsa(absl::string_view name, CpuIsa& isa) {
  for (int i = 0; i <= static_cast<int>(DetectCpuIsa()); ++i) {
    isa = static_cast<CpuIsa>(i);
    if (CpuIsaName(isa) == name) return true;
  }
  return false;
}

bool ParseList(absl::string_view text, std::vector<int64_t>& values) {
  values.clear();
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    int64_t v = 0;
    if (!absl::SimpleAtoi(part, &v) || v < 1 || v > 4096) return false;
    values.push_back(v);
  }
  return true;
}

bool ParseTypes(absl::string_view text, std::vector<DType>& types) {
  types.clear();
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    for (DType dtype : kAllDTypes) {
      if (DTypeName(dtype) == part) types.push_back(dtype);
    }
  }
  return !types.empty();
}

bool Parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const absl::string_view flag = argv[i];
    if (flag == "--huge") {
      options.huge = true;
      continue;
    }
    if (i + 1 == argc) return false;
    const absl::string_view value = argv[++i];
    double gib = 0;
    if (flag == "--threads" && absl::SimpleAtoi(value, &options.threads)) continue;
    if (flag == "--n" && ParseList(value, options.n)) continue;
    if (flag == "--types" && ParseTypes(value, options.types)) continue;
    if (flag == "--isa" && ParseIsa(value, options.isa)) continue;
    if (flag == "--bytes" && absl::SimpleAtod(value, &gib) && gib >= 0.5) {
      options.bytes = static_cast<int64_t>(gib * static_cast<double>(1 << 30));
      continue;
    }
    return false;
  }
  return options.threads > 0;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  millrace::Options options;
  if (!millrace::Parse(argc, argv, options)) {
    std::fprintf(stderr,
                 "usage: cpu-matmul-bench [--threads N] [--types q4_K,..] [--n 1,8,..]\n"
                 "                        [--bytes GIB] [--isa avx2|avx512|..] [--huge]\n");
    return 2;
  }
  millrace::RunBench(options);
  return 0;
}
