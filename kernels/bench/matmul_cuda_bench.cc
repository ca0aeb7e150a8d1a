// matmul-bench [ROWS COLS [gated] [TYPE ...] [N ...]]: the decode kernels on gpu0, per weight type
// and number of activation rows: microseconds, GB/s of weights, percent of what a plain read kernel
// reaches in this process. From 17 rows on also the narrow kernel (wide_matmul_cuda.h) where the
// GPU has it, cut in every way it knows. Gated: the first half of the weight rows is gate, the
// second up, joined by SwiGLU. Random weights, scaled so that products have a root mean square of
// 2. Each timed launch reads another copy of them, so that nothing is found in the L2 cache; the
// result is compared before and after timing, and the narrow kernel's with the small one's.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/bench/random_weights.h"
#include "kernels/bench/read_ceiling.h"
#include "kernels/bench/relative_error.h"
#include "kernels/cuda/buffers.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/status.h"
#include "kernels/fp16.h"
#include "kernels/matmul_cuda.h"
#include "kernels/weight_tiles_cuda.h"
#include "kernels/wide_matmul_cuda.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(20);
constexpr int64_t kWorkingSet = int64_t{1} << 30;  // bytes of weight copies
constexpr int kLeastNarrow = 17;
constexpr int64_t kRandomRows = 528;  // of weights; then they repeat, but never at a tile's place
constexpr float kResultRms = 2;
constexpr int kSmall = 0;  // else row parts of the narrow kernel

struct Plan {
  int64_t rows = 57344, cols = 8192;
  bool gated = false;
  std::vector<DType> dtypes;
  std::vector<int> sizes;
};

struct Row {
  double microseconds = 0, gb_per_second = 0;
  bool same = false;
  std::vector<float> values;
};

class Case {
 public:
  static absl::StatusOr<Case> Create(const Plan& plan, DType dtype, int n,
                                     const cuda::DeviceBuffer& weights, cuda::StreamView stream);
  absl::StatusOr<Row> Measure(int kernel) const;
  // Those that take this case.
  std::vector<int> Kernels() const;

 private:
  Case(const Plan& plan, DType dtype, int n, const uint8_t* weights, cuda::StreamView stream,
       cuda::DeviceBuffer x, cuda::DeviceBuffer packed, cuda::DeviceBuffer y)
      : plan_(plan),
        dtype_(dtype),
        n_(n),
        weights_(weights),
        stream_(stream),
        x_(std::move(x)),
        packed_(std::move(packed)),
        y_(std::move(y)) {}
  int64_t bytes() const { return TiledBytes(dtype_, plan_.rows, plan_.cols).count(); }
  absl::Status Launch(int kernel, int copy) const;
  absl::StatusOr<std::vector<float>> Result(int kernel) const;
  absl::Status Scale();

  const Plan& plan_;
  DType dtype_;
  int n_;
  const uint8_t* weights_;
  cuda::StreamView stream_;
  cuda::DeviceBuffer x_, packed_, y_;
  float multiplier_ = 1;
};

double Rms(const std::vector<float>& values) {
  double sum = 0;
  for (float v : values) sum += static_cast<double>(v) * v;
  return std::sqrt(sum / static_cast<double>(values.size()));
}

absl::StatusOr<Case> Case::Create(const Plan& plan, DType dtype, int n,
                                  const cuda::DeviceBuffer& weights, cuda::StreamView stream) {
  MILLRACE_ASSIGN_OR_RETURN(auto x, cuda::DeviceBuffer::Create(0, Bytes(n * plan.cols * 2)));
  MILLRACE_ASSIGN_OR_RETURN(auto packed,
                            cuda::DeviceBuffer::Create(0, cuda::PackedBytes(n, plan.cols)));
  MILLRACE_ASSIGN_OR_RETURN(auto y, cuda::DeviceBuffer::Create(0, Bytes(n * plan.rows * 4)));
  std::mt19937_64 rng(static_cast<uint64_t>(n));
  std::vector<uint16_t> host;
  for (float v : RandomFloats(static_cast<size_t>(n * plan.cols), rng)) {
    host.push_back(FloatToHalf(v));
  }
  MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(x.data(), host.data(), x.size(), stream));
  MILLRACE_RETURN_IF_ERROR(cuda::PackRows(static_cast<const __half*>(x.data()), plan.cols,
                                          {static_cast<__half*>(packed.data()), n, plan.cols},
                                          stream));
  MILLRACE_RETURN_IF_ERROR(stream.Wait(kTimeout));
  Case out(plan, dtype, n, static_cast<const uint8_t*>(weights.data()), stream, std::move(x),
           std::move(packed), std::move(y));
  MILLRACE_RETURN_IF_ERROR(out.Scale());
  return out;
}

absl::Status Case::Scale() {
  const WeightTiles w = {weights_, dtype_, kTileRows * 16, plan_.cols, 1};
  cuda::MatmulInput in;
  in.x = static_cast<const __half*>(x_.data());
  in.ldx = plan_.cols;
  in.n = 1;
  auto* y = static_cast<float*>(y_.data());
  MILLRACE_RETURN_IF_ERROR(cuda::SmallMatmul(w, in, nullptr, false, y, w.rows, stream_));
  std::vector<float> out(static_cast<size_t>(w.rows));
  const Bytes size(w.rows * int64_t{sizeof(float)});
  MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(out.data(), y, size, stream_));
  MILLRACE_RETURN_IF_ERROR(stream_.Wait(kTimeout));
  multiplier_ = kResultRms / static_cast<float>(Rms(out));
  return absl::OkStatus();
}

std::vector<int> Case::Kernels() const {
  if (n_ < kLeastNarrow || !cuda::HasWideMatmul(0)) return {kSmall};
  if (plan_.gated) return {kSmall, 4};
  return n_ <= 32 ? std::vector<int>{kSmall, 1, 2, 4} : std::vector<int>{kSmall, 2, 4};
}

absl::Status Case::Launch(int kernel, int copy) const {
  WeightTiles w;
  w.data = weights_ + copy * bytes();
  w.dtype = dtype_;
  w.rows = plan_.gated ? plan_.rows / 2 : plan_.rows;
  w.cols = plan_.cols;
  w.multiplier = multiplier_;
  WeightTiles up = w;
  up.data += bytes() / 2;
  cuda::MatmulInput in;
  in.x = static_cast<const __half*>(x_.data());
  in.ldx = plan_.cols;
  in.n = n_;
  const cuda::PackedRows packed = {static_cast<__half*>(packed_.data()), n_, plan_.cols};
  auto* halves = static_cast<__half*>(y_.data());
  auto* floats = static_cast<float*>(y_.data());
  if (kernel != kSmall) {
    return plan_.gated
               ? cuda::NarrowMatmulSwiGlu(w, up, packed, halves, w.rows, stream_)
               : cuda::NarrowMatmul({{w}}, packed, false, floats, w.rows, stream_, kernel);
  }
  return plan_.gated ? cuda::SmallMatmulSwiGlu(w, up, in, halves, w.rows, stream_)
                     : cuda::SmallMatmul(w, in, nullptr, false, floats, w.rows, stream_);
}

absl::StatusOr<std::vector<float>> Case::Result(int kernel) const {
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaMemsetAsync(y_.data(), 0xff, static_cast<size_t>(y_.size().count()), stream_.get()));
  MILLRACE_RETURN_IF_ERROR(Launch(kernel, 0));
  std::vector<float> out(static_cast<size_t>(n_ * plan_.rows));
  MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(out.data(), y_.data(), y_.size(), stream_));
  MILLRACE_RETURN_IF_ERROR(stream_.Wait(kTimeout));
  if (!plan_.gated) return out;
  std::vector<float> halves;
  const auto* bits = reinterpret_cast<const uint16_t*>(out.data());
  for (size_t i = 0; i < out.size() / 2; ++i) halves.push_back(HalfToFloat(bits[i]));
  return halves;
}

absl::StatusOr<Row> Case::Measure(int kernel) const {
  const int copies = static_cast<int>(std::max<int64_t>(1, kWorkingSet / bytes()));
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<float> before, Result(kernel));
  const int launches = std::max(20, copies);
  MILLRACE_ASSIGN_OR_RETURN(auto begin, cuda::Event::Create(0, cuda::Event::Timing::kOn));
  MILLRACE_ASSIGN_OR_RETURN(auto end, cuda::Event::Create(0, cuda::Event::Timing::kOn));
  std::vector<double> times;
  for (int repeat = 0; repeat < 7; ++repeat) {
    MILLRACE_RETURN_IF_ERROR(begin.Record(stream_));
    for (int i = 0; i < launches; ++i) MILLRACE_RETURN_IF_ERROR(Launch(kernel, i % copies));
    MILLRACE_RETURN_IF_ERROR(end.Record(stream_));
    MILLRACE_RETURN_IF_ERROR(end.Wait(kTimeout));
    MILLRACE_ASSIGN_OR_RETURN(const absl::Duration took, end.Since(begin));
    times.push_back(absl::ToDoubleMicroseconds(took) / launches);
  }
  std::sort(times.begin(), times.end());
  Row row;
  MILLRACE_ASSIGN_OR_RETURN(row.values, Result(kernel));
  row.microseconds = times[times.size() / 2];
  row.gb_per_second = static_cast<double>(bytes()) / row.microseconds / 1e3;
  row.same = std::memcmp(before.data(), row.values.data(), before.size() * sizeof(float)) == 0;
  return row;
}

// Random rows, again and again.
absl::Status FillWeights(DType dtype, int64_t cols, const cuda::DeviceBuffer& weights,
                         cuda::StreamView stream) {
  std::mt19937_64 rng(7);
  const std::vector<uint8_t> raw = RandomWeights(dtype, kRandomRows, cols, rng);
  const Bytes raw_size(static_cast<int64_t>(raw.size()));
  MILLRACE_ASSIGN_OR_RETURN(auto device_raw, cuda::DeviceBuffer::Create(0, raw_size));
  MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(device_raw.data(), raw.data(), raw_size, stream));
  auto* data = static_cast<uint8_t*>(weights.data());
  const WeightTiles tiles = {data, dtype, kRandomRows, cols, 1};
  MILLRACE_RETURN_IF_ERROR(cuda::TileRows(dtype, static_cast<const uint8_t*>(device_raw.data()), 0,
                                          kRandomRows, tiles, data, stream));
  const int64_t all = weights.size().count();
  for (int64_t done = TiledBytes(dtype, kRandomRows, cols).count(); done < all; done *= 2) {
    MILLRACE_CUDA_RETURN_IF_ERROR(
        cudaMemcpyAsync(data + done, data, static_cast<size_t>(std::min(done, all - done)),
                        cudaMemcpyDeviceToDevice, stream.get()));
  }
  return stream.Wait(kTimeout);
}

absl::Status RunCase(const Case& c, DType dtype, int n, double ceiling) {
  std::vector<float> small;
  for (int kernel : c.Kernels()) {
    MILLRACE_ASSIGN_OR_RETURN(Row r, c.Measure(kernel));
    const std::string name = kernel == kSmall ? "small" : absl::StrCat("narrow ", kernel);
    std::printf("%-6s %4d %-8s %10.2f %9.0f %7.1f%% %s", DTypeName(dtype).data(), n, name.c_str(),
                r.microseconds, r.gb_per_second, 100 * r.gb_per_second / ceiling,
                r.same ? "same" : "DIFFERS");
    if (kernel == kSmall) {
      std::printf(", rms %.2f\n", Rms(r.values));
      small = std::move(r.values);
    } else {
      std::printf(", from small by %.0e\n", RelativeError(r.values, small));
    }
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

absl::Status RunBench(const Plan& plan) {
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaSetDevice(0));
  MILLRACE_ASSIGN_OR_RETURN(auto stream, cuda::Stream::Create(0));
  MILLRACE_ASSIGN_OR_RETURN(auto weights, cuda::DeviceBuffer::Create(0, Bytes(2 * kWorkingSet)));
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaMemsetAsync(weights.data(), 0, 2 * kWorkingSet, stream.view().get()));
  MILLRACE_ASSIGN_OR_RETURN(const double ceiling, ReadCeiling(weights, stream.view()));
  std::printf("W [%ld, %ld]%s; plain read kernel %.0f GB/s\n", plan.rows, plan.cols,
              plan.gated ? " gated" : "", ceiling);
  std::printf("%-6s %4s %-8s %10s %9s %8s %s\n", "type", "n", "kernel", "us", "GB/s", "ceiling",
              "result");
  for (DType dtype : plan.dtypes) {
    MILLRACE_RETURN_IF_ERROR(FillWeights(dtype, plan.cols, weights, stream.view()));
    for (int n : plan.sizes) {
      MILLRACE_ASSIGN_OR_RETURN(const Case c, Case::Create(plan, dtype, n, weights, stream.view()));
      MILLRACE_RETURN_IF_ERROR(RunCase(c, dtype, n, ceiling));
    }
  }
  return absl::OkStatus();
}

// False: an argument makes no sense.
bool ParsePlan(int argc, char** argv, Plan& plan) {
  if (argc > 2) {
    plan.rows = std::atoll(argv[1]);
    plan.cols = std::atoll(argv[2]);
  }
  for (int i = 3; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "gated") {
      plan.gated = true;
    } else if (const int n = std::atoi(argv[i]); n > 0) {
      if (n > cuda::kSmallMatmulRows) return false;
      plan.sizes.push_back(n);
    } else {
      const std::optional<DType> dtype = DTypeFromName(word);
      if (!dtype || TiledType(*dtype) != *dtype) return false;
      plan.dtypes.push_back(*dtype);
    }
  }
  if (plan.dtypes.empty()) {
    plan.dtypes = {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kQ8_0,
                   DType::kQ4_0, DType::kF16,  DType::kQ4_1, DType::kQ5_0,
                   DType::kQ5_1, DType::kQ3_K, DType::kQ2_K};
  }
  if (plan.sizes.empty()) plan.sizes = {1, 2, 4, 8, 16, 32, 64};
  const int64_t least = plan.gated ? 32 : 16;
  return argc != 2 && plan.rows >= least && plan.rows % least == 0 && plan.cols >= 256 &&
         plan.cols % 256 == 0 && plan.rows * plan.cols <= kWorkingSet;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  millrace::Plan plan;
  if (!millrace::ParsePlan(argc, argv, plan)) {
    std::fprintf(
        stderr,
        "usage: matmul-bench [ROWS COLS [gated] [TYPE ...] [N ...]], ROWS a multiple of 16 "
        "(gated: 32), COLS of 256, at most 2^30 values, N at most 64\n");
    return 2;
  }
  const absl::Status status = millrace::RunBench(plan);
  if (!status.ok()) std::fprintf(stderr, "matmul-bench: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
