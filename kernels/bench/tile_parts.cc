#include "kernels/bench/tile_parts.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "kernels/matmul_driver.h"

namespace millrace {
namespace {

// The least seconds that f() takes, of some rounds.
template <typename F>
double BestOf(int rounds, F f) {
  double best = 1e9;
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count());
  }
  return best;
}

// Nanoseconds of one of `count` runs of f(thread) by each of `threads` threads at a time.
template <typename F>
double EachThread(ThreadPool& pool, int threads, int64_t count, F f) {
  return 1e9 / static_cast<double>(count) * BestOf(3, [&] {
           pool.ParallelFor(threads, 1, [&](int64_t begin, int64_t end, int) {
             for (int64_t thread = begin; thread < end; ++thread) {
               for (int64_t i = 0; i < count; ++i) f(static_cast<int>(thread));
             }
           });
         });
}

void Additions() {
  int64_t a = 1;
  for (int i = 0; i < 1000; ++i) asm volatile("add $1, %0" : "+r"(a));
}

__attribute__((target("avx512f"))) void MultiplyAdds() {
  __m512 v[10] = {};
  for (int i = 0; i < 100; ++i) {
    for (int j = 0; j < 10; ++j) v[j] = _mm512_fmadd_ps(v[j], v[j], v[j]);
    asm volatile(""
                 : "+v"(v[0]), "+v"(v[1]), "+v"(v[2]), "+v"(v[3]), "+v"(v[4]), "+v"(v[5]),
                   "+v"(v[6]), "+v"(v[7]), "+v"(v[8]), "+v"(v[9]));
  }
}

struct Variant {
  TileShape shape;
  const char* name;
};
using Ask = TileShape::Ask;
constexpr Variant kVariants[] = {
    {{32, 256, Ask::kChunk}, "32x256 chunk"},   {{32, 256, Ask::kPanel}, "32x256 panel"},
    {{32, 256, Ask::kBoth}, "32x256 both"},     {{32, 512, Ask::kPanel}, "32x512 panel"},
    {{64, 256, Ask::kPanel}, "64x256 panel"},   {{64, 512, Ask::kPanel}, "64x512 panel"},
    {{128, 256, Ask::kPanel}, "128x256 panel"}, {{128, 512, Ask::kPanel}, "128x512 panel"},
};

// One type, one n.
class Parts {
 public:
  Parts(const CpuContext& context, FloatView x, float* y, absl::Span<const WeightView> matrices)
      : context_(context), x_(x), y_(y), matrices_(matrices) {
    weights_ = bytes_ = 0;
    for (const WeightView& w : matrices) {
      weights_ += static_cast<double>(w.rows * w.cols);
      bytes_ += static_cast<double>(w.rows * RowBytes(w.dtype, w.cols).count());
    }
  }

  // Nanoseconds a thread for 256 weights of 32 cached rows with `cols` columns.
  double Cached(int threads, int64_t cols, bool unpack, bool multiply) {
    const WeightView w = matrices_[0];
    MatmulArgs args = ArgsFor(TargetOf(w), x_.rows);
    args.cols = cols;
    args.xt = reinterpret_cast<uint16_t*>(context_.scratch);
    std::byte* panels = context_.scratch + Align64(TileInputBytes(x_.rows, x_.cols));
    const int64_t panel_bytes = Align64(TilePanelScratchBytes(x_.rows));
    const int64_t count = std::max<int64_t>(1, 10'000'000'000 / (32 * cols * (200 + 10 * x_.rows)));
    return EachThread(*context_.pool, threads, count,
                      [&](int thread) {
                        TileWork work;
                        work.begin = 32 * thread;
                        work.end = work.limit = work.begin + 32;
                        work.cold = false;
                        work.unpack = unpack;
                        work.multiply = multiply;
                        AmxTileKernels().panel(args, work, panels + thread * panel_bytes);
                      }) /
           static_cast<double>(32 * cols / 256);
  }

  void PrintCached(int threads, bool tiles) {
    const int64_t cols = matrices_[0].cols;
    std::printf("  cached, %2d threads: unpack %6.2f", threads, Cached(threads, cols, true, false));
    if (tiles) {
      std::printf("  products %6.2f (of 256 columns %6.2f)  both %6.2f",
                  Cached(threads, cols, false, true), Cached(threads, 256, false, true),
                  Cached(threads, cols, true, true));
    }
    std::printf("\n");
  }

  void PrintPacking() {
    const double seconds = BestOf(3, [&] {
      for (const WeightView& w : matrices_) {
        PackForTiles(AmxTileKernels(), *context_.pool, Input(w),
                     reinterpret_cast<uint16_t*>(context_.scratch));
      }
    });
    std::printf("  packing x              %6.2f\n", PerChunk(seconds));
  }

  void PrintMemory(const char* name, absl::FunctionRef<void(const MatmulTarget&)> multiply) {
    const double seconds = BestOf(3, [&] {
      for (const WeightView& w : matrices_) multiply(TargetOf(w));
    });
    std::printf("  memory, %-14s %6.2f  %6.1f GB/s %6.2f Tera-op/s\n", name, PerChunk(seconds),
                bytes_ / seconds / 1e9,
                2 * weights_ * static_cast<double>(x_.rows) / seconds / 1e12);
    std::fflush(stdout);
  }

  void PrintTiles(const Variant& variant) {
    PrintMemory(variant.name, [&](const MatmulTarget& target) {
      MatmulSlab(AmxTileKernels(), *context_.pool, Input(target.w), 0, {&target, 1}, variant.shape,
                 context_.scratch);
    });
  }

  void PrintMatmul(const char* name, CpuIsa isa) {
    CpuContext context = context_;
    context.isa = isa;
    PrintMemory(name, [&](const MatmulTarget& target) {
      Matmul(context, Input(target.w), {&target, 1});
    });
  }

 private:
  MatmulTarget TargetOf(const WeightView& w) const {
    MatmulTarget target;
    target.w = w;
    target.y = FloatView(y_, x_.rows, w.rows);
    return target;
  }
  FloatView Input(const WeightView& w) const { return FloatView(x_.data, x_.rows, w.cols); }
  double PerChunk(double seconds) const {
    return 1e9 * seconds / (weights_ / 256 / context_.pool->size());
  }

  const CpuContext& context_;
  FloatView x_;
  float* y_;
  absl::Span<const WeightView> matrices_;
  double weights_, bytes_;
};

}  // namespace

void PrintCoreRates(ThreadPool& pool) {
  std::printf("a thread's additions and 512-bit multiply-adds a nanosecond:");
  for (int threads : {1, pool.size()}) {
    std::printf("  %d threads %.2f, %.2f", threads,
                1000 / EachThread(pool, threads, 20000, [](int) { Additions(); }),
                1000 / EachThread(pool, threads, 20000, [](int) { MultiplyAdds(); }));
  }
  std::printf("\n");
}

void MeasureParts(const CpuContext& context, FloatView x, float* y,
                  absl::Span<const WeightView> matrices) {
  const bool tiles = context.isa == CpuIsa::kAmx;
  std::printf("%s, n = %ld: ns a thread for 256 weights\n", DTypeName(matrices[0].dtype).data(),
              x.rows);
  Parts parts(context, x, y, matrices);
  parts.PrintPacking();
  for (int threads : {1, context.pool->size()}) parts.PrintCached(threads, tiles);
  if (x.rows <= 8) parts.PrintMatmul("vectors", CpuIsa::kAvx512);
  if (!tiles) return;
  for (const Variant& variant : kVariants) parts.PrintTiles(variant);
  parts.PrintMatmul("as chosen", context.isa);
}

}  // namespace millrace
