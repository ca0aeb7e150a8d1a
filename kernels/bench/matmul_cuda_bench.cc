// matmul-bench [ROWS COLS]: the decode kernels on gpu0, per weight type and number of activation
// rows: microseconds, GB/s of weights, percent of what a plain read kernel reaches in this process.
// Each timed launch reads another copy of the weights, so that nothing is found in the L2 cache; the
// result is compared before and after timing.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/bench/read_ceiling.h"
#include "kernels/cuda/buffers.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/status.h"
#include "kernels/matmul_cuda.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(20);
constexpr int64_t kWorkingSet = int64_t{1} << 30;  // bytes of weight copies

struct Row {
  double microseconds = 0, gb_per_second = 0;
  bool same = false;
};

absl::StatusOr<Row> Measure(DType dtype, int64_t rows, int64_t cols, int n,
                            const cuda::DeviceBuffer& weights, cuda::StreamView stream) {
  const int64_t bytes = TiledBytes(dtype, rows, cols).count();
  const int copies = static_cast<int>(std::max<int64_t>(1, kWorkingSet / bytes));
  MILLRACE_ASSIGN_OR_RETURN(auto x, cuda::DeviceBuffer::Create(0, Bytes(n * cols * 2)));
  MILLRACE_ASSIGN_OR_RETURN(auto y, cuda::DeviceBuffer::Create(0, Bytes(n * rows * 4)));
  std::vector<uint16_t> host(static_cast<size_t>(n * cols));
  for (size_t i = 0; i < host.size(); ++i) host[i] = static_cast<uint16_t>(0x3000 + i * 7919 % 2048);
  MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(x.data(), host.data(), x.size(), stream));
  auto launch = [&](int copy) {
    WeightTiles w;
    w.data = static_cast<const uint8_t*>(weights.data()) + copy * bytes;
    w.dtype = dtype;
    w.rows = rows;
    w.cols = cols;
    cuda::MatmulInput in;
    in.x = static_cast<const __half*>(x.data());
    in.ldx = cols;
    in.n = n;
    return cuda::SmallMatmul(w, in, nullptr, false, static_cast<float*>(y.data()), rows, stream);
  };
  auto result = [&]() -> absl::StatusOr<std::vector<float>> {
    MILLRACE_RETURN_IF_ERROR(launch(0));
    std::vector<float> out(static_cast<size_t>(n * rows));
    MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(out.data(), y.data(), y.size(), stream));
    MILLRACE_RETURN_IF_ERROR(stream.Wait(kTimeout));
    return out;
  };
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<float> before, result());
  const int launches = std::max(20, copies);
  MILLRACE_ASSIGN_OR_RETURN(auto begin, cuda::Event::Create(0, cuda::Event::Timing::kOn));
  MILLRACE_ASSIGN_OR_RETURN(auto end, cuda::Event::Create(0, cuda::Event::Timing::kOn));
  std::vector<double> times;
  for (int repeat = 0; repeat < 7; ++repeat) {
    MILLRACE_RETURN_IF_ERROR(begin.Record(stream));
    for (int i = 0; i < launches; ++i) MILLRACE_RETURN_IF_ERROR(launch(i % copies));
    MILLRACE_RETURN_IF_ERROR(end.Record(stream));
    MILLRACE_RETURN_IF_ERROR(end.Wait(kTimeout));
    MILLRACE_ASSIGN_OR_RETURN(const absl::Duration took, end.Since(begin));
    times.push_back(absl::ToDoubleMicroseconds(took) / launches);
  }
  std::sort(times.begin(), times.end());
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<float> after, result());
  Row row;
  row.microseconds = times[times.size() / 2];
  row.gb_per_second = static_cast<double>(bytes) / row.microseconds / 1e3;
  row.same = before == after;
  return row;
}

absl::Status RunBench(int64_t rows, int64_t cols) {
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaSetDevice(0));
  MILLRACE_ASSIGN_OR_RETURN(auto stream, cuda::Stream::Create(0));
  MILLRACE_ASSIGN_OR_RETURN(auto weights, cuda::DeviceBuffer::Create(0, Bytes(2 * kWorkingSet)));
  // Bytes that are sane codes and scales in every format.
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(weights.data(), 0x2c, 2 * kWorkingSet, stream.view().get()));
  MILLRACE_ASSIGN_OR_RETURN(const double ceiling, ReadCeiling(weights, stream.view()));
  std::printf("W [%ld, %ld]; plain read kernel %.0f GB/s\n", rows, cols, ceiling);
  std::printf("%-6s %4s %10s %9s %8s %s\n", "type", "n", "us", "GB/s", "ceiling", "result");
  for (DType dtype : {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kQ8_0, DType::kQ4_0,
                      DType::kF16, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ3_K,
                      DType::kQ2_K}) {
    for (int n : {1, 2, 4, 8, 16, 32, 64}) {
      MILLRACE_ASSIGN_OR_RETURN(const Row r, Measure(dtype, rows, cols, n, weights, stream.view()));
      std::printf("%-6s %4d %10.2f %9.0f %7.1f%% %s\n", DTypeName(dtype).data(), n, r.microseconds,
                  r.gb_per_second, 100 * r.gb_per_second / ceiling, r.same ? "same" : "DIFFERS");
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  const int64_t rows = argc > 2 ? std::atoll(argv[1]) : 57344, cols = argc > 2 ? std::atoll(argv[2]) : 8192;
  if (rows < 16 || cols < 256 || cols % 256 != 0 || rows * cols > (int64_t{1} << 30)) {
    std::fprintf(stderr, "usage: matmul-bench [ROWS COLS], COLS a multiple of 256, at most 2^30 values\n");
    return 2;
  }
  const absl::Status status = millrace::RunBench(rows, cols);
  if (!status.ok()) std::fprintf(stderr, "matmul-bench: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
