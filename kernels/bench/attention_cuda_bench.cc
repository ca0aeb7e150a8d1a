// attention-bench: attention on gpu0 over an f16 cache, 64 heads, 8 KV heads, head_dim 128: decode
// in microseconds, GB/s of keys and values and percent of what a plain read kernel reaches in this
// process; prefill in microseconds, TFLOP/s and percent of 790. Each timed decode reads another
// copy of the cache where the copies fit, so that nothing is found in the L2 cache; results are
// compared before and after timing. Ends within 20 seconds.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "absl/time/clock.h"
#include "kernels/attention_cuda.h"
#include "kernels/bench/read_ceiling.h"
#include "kernels/cuda/buffers.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/status.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(20);
constexpr absl::Duration kBudget = absl::Seconds(15);  // of timing; what is left out says so
constexpr int kHeads = 64, kKvHeads = 8, kHeadDim = 128;
constexpr int kMaxRows = 4096;
constexpr float kScale = 0.08838835f;
constexpr double kPeakTflops = 790;

struct Bench {
  int multiprocessors;
  absl::Time end;
  double ceiling;
  cuda::StreamView stream;
  const cuda::DeviceBuffer& cells;  // half keys, half values
  cuda::DeviceBuffer q, out, partials, counters, rows;
};

// Small finite f16 values that differ.
absl::Status Fill(const cuda::DeviceBuffer& to, cuda::StreamView stream) {
  std::vector<uint16_t> host(size_t{1} << 22);
  uint32_t x = 1;
  for (uint16_t& h : host) {
    x = x * 1664525u + 1013904223u;
    h = static_cast<uint16_t>((x >> 16 & 0x83ffu) | (0x3000u + (x >> 8 & 0x0c00u)));
  }
  const int64_t chunk = static_cast<int64_t>(host.size() * 2);
  for (int64_t at = 0; at < to.size().count(); at += chunk) {
    MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(static_cast<char*>(to.data()) + at, host.data(),
                                             Bytes(std::min(chunk, to.size().count() - at)),
                                             stream));
  }
  return stream.Wait(kTimeout);
}

struct Timing {
  double microseconds = 0;
  bool same = false;
};

// Median time of one of `launches` launches; launch(i) queues the i-th. out_bytes of `out` are
// compared.
template <typename Launch>
absl::StatusOr<Timing> Measure(const Bench& b, int launches, int64_t out_bytes,
                               const Launch& launch) {
  const auto result = [&]() -> absl::StatusOr<std::vector<char>> {
    MILLRACE_RETURN_IF_ERROR(launch(0));
    std::vector<char> host(static_cast<size_t>(out_bytes));
    MILLRACE_RETURN_IF_ERROR(
        cuda::CopyAsync(host.data(), b.out.data(), Bytes(out_bytes), b.stream));
    MILLRACE_RETURN_IF_ERROR(b.stream.Wait(kTimeout));
    return host;
  };
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<char> before, result());
  MILLRACE_ASSIGN_OR_RETURN(const cuda::Graph graph,
                            cuda::Graph::Capture(b.stream, [&]() -> absl::Status {
                              for (int i = 0; i < launches; ++i)
                                MILLRACE_RETURN_IF_ERROR(launch(i));
                              return absl::OkStatus();
                            }));
  MILLRACE_RETURN_IF_ERROR(graph.Launch(b.stream));  // warms up
  MILLRACE_ASSIGN_OR_RETURN(auto begin, cuda::Event::Create(0, cuda::Event::Timing::kOn));
  MILLRACE_ASSIGN_OR_RETURN(auto end, cuda::Event::Create(0, cuda::Event::Timing::kOn));
  std::vector<double> times;
  for (int repeat = 0; repeat < 9; ++repeat) {
    MILLRACE_RETURN_IF_ERROR(begin.Record(b.stream));
    MILLRACE_RETURN_IF_ERROR(graph.Launch(b.stream));
    MILLRACE_RETURN_IF_ERROR(end.Record(b.stream));
    MILLRACE_RETURN_IF_ERROR(end.Wait(kTimeout));
    MILLRACE_ASSIGN_OR_RETURN(const absl::Duration took, end.Since(begin));
    times.push_back(absl::ToDoubleMicroseconds(took) / launches);
  }
  std::sort(times.begin(), times.end());
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<char> after, result());
  return Timing{times[times.size() / 2], before == after};
}

KvView CacheOf(const Bench& b, int slots, int context, int64_t copy) {
  const int64_t half = b.cells.size().count() / 2;
  const int64_t bytes = int64_t{2} * slots * kKvHeads * context * kHeadDim;
  char* const k = static_cast<char*>(b.cells.data()) + copy * bytes;
  return {k, k + half, DType::kF16, slots, context, kKvHeads, kHeadDim};
}

absl::Status BenchDecode(const Bench& b, int n, int context) {
  const int64_t bytes = int64_t{4} * n * kKvHeads * context * kHeadDim;
  const int64_t copies = b.cells.size().count() / bytes;
  if (copies == 0 || absl::Now() > b.end) {
    std::printf("decode  %6d %4d  left out: %s\n", context, n, copies == 0 ? "memory" : "time");
    return absl::OkStatus();
  }
  std::vector<int> rows(static_cast<size_t>(2 * n));
  for (int r = 0; r < n; ++r) rows[r] = r, rows[n + r] = context - 1;
  MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(b.rows.data(), rows.data(), Bytes(8 * n), b.stream));
  MILLRACE_RETURN_IF_ERROR(b.stream.Wait(kTimeout));
  const int* const at = static_cast<const int*>(b.rows.data());
  const int splits = cuda::DecodeSplits(b.multiprocessors, kKvHeads, n, context);
  const int launches = static_cast<int>(std::clamp<int64_t>((int64_t{4} << 30) / bytes, 4, 200));
  MILLRACE_ASSIGN_OR_RETURN(
      const Timing t, Measure(b, launches, int64_t{2} * n * kHeads * kHeadDim, [&](int i) {
        return cuda::AttentionDecode(
            static_cast<const __half*>(b.q.data()), kHeads, CacheOf(b, n, context, i % copies),
            {at, at + n, n}, kScale, splits,
            {static_cast<float*>(b.partials.data()), static_cast<uint32_t*>(b.counters.data())},
            static_cast<__half*>(b.out.data()), b.stream);
      }));
  const double rate = static_cast<double>(bytes) / t.microseconds / 1e3;
  std::printf("decode  %6d %4d %10.2f us %7.0f GB/s %6.1f%%  splits %3d  %s\n", context, n,
              t.microseconds, rate, 100 * rate / b.ceiling, splits, t.same ? "same" : "DIFFERS");
  return absl::OkStatus();
}

absl::Status BenchPrefill(const Bench& b, int rows) {
  const std::vector<cuda::AttentionTile> tiles = cuda::CutTiles({AttentionSegment{0, 0, 0, rows}});
  const int count = static_cast<int>(tiles.size());
  MILLRACE_RETURN_IF_ERROR(
      cuda::CopyAsync(b.rows.data(), tiles.data(),
                      Bytes(static_cast<int64_t>(tiles.size() * sizeof(tiles[0]))), b.stream));
  MILLRACE_RETURN_IF_ERROR(b.stream.Wait(kTimeout));
  MILLRACE_ASSIGN_OR_RETURN(
      const Timing t, Measure(b, 20, int64_t{2} * rows * kHeads * kHeadDim, [&](int) {
        return cuda::AttentionPrefill(static_cast<const __half*>(b.q.data()), kHeads,
                                      CacheOf(b, 1, rows, 0),
                                      static_cast<const cuda::AttentionTile*>(b.rows.data()), count,
                                      kScale, static_cast<__half*>(b.out.data()), b.stream);
      }));
  const double flops = 4.0 * kHeads * kHeadDim * rows * (rows + 1.0) / 2;  // unmasked pairs only
  const double tflops = flops / t.microseconds / 1e6;
  std::printf("prefill %6d      %10.2f us %7.1f TFLOP/s %5.1f%%  %s\n", rows, t.microseconds,
              tflops, 100 * tflops / kPeakTflops, t.same ? "same" : "DIFFERS");
  return absl::OkStatus();
}

absl::Status RunBench() {
  const cuda::DeviceList list = cuda::ListDevices();
  if (list.devices.empty()) return absl::FailedPreconditionError(list.reason);
  const cuda::DeviceInfo& device = list.devices[0];
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaSetDevice(0));
  MILLRACE_ASSIGN_OR_RETURN(auto stream, cuda::Stream::Create(0));
  // The largest case (32 rows of 131072 positions) needs 16 GiB.
  const Bytes cells_size(std::min(int64_t{16} << 30, device.free_memory.count() / 2 >> 30 << 30));
  MILLRACE_ASSIGN_OR_RETURN(auto cells, cuda::DeviceBuffer::Create(0, cells_size));
  MILLRACE_RETURN_IF_ERROR(Fill(cells, stream.view()));
  const Bytes row_size(int64_t{2} * kMaxRows * kHeads * kHeadDim);
  MILLRACE_ASSIGN_OR_RETURN(auto q, cuda::DeviceBuffer::Create(0, row_size));
  MILLRACE_RETURN_IF_ERROR(Fill(q, stream.view()));
  MILLRACE_ASSIGN_OR_RETURN(auto out, cuda::DeviceBuffer::Create(0, row_size));
  MILLRACE_ASSIGN_OR_RETURN(
      auto partials,
      cuda::DeviceBuffer::Create(
          0, cuda::DecodePartialBytes(32, kHeads, kHeadDim, cuda::kMaxDecodeSplits)));
  MILLRACE_ASSIGN_OR_RETURN(auto counters,
                            cuda::DeviceBuffer::Create(0, cuda::DecodeCounterBytes(32, kHeads)));
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaMemsetAsync(counters.data(), 0, counters.size().count(), stream.view().get()));
  MILLRACE_ASSIGN_OR_RETURN(auto rows, cuda::DeviceBuffer::Create(0, Bytes(4096)));
  MILLRACE_ASSIGN_OR_RETURN(const double ceiling, ReadCeiling(cells, stream.view()));
  const Bench b{device.multiprocessors,
                absl::Now() + kBudget,
                ceiling,
                stream.view(),
                cells,
                std::move(q),
                std::move(out),
                std::move(partials),
                std::move(counters),
                std::move(rows)};
  std::printf("%s, %d heads over %d, head_dim %d, f16; plain read kernel %.0f GB/s\n",
              device.name.c_str(), kHeads, kKvHeads, kHeadDim, ceiling);
  for (int length : {512, 4096}) MILLRACE_RETURN_IF_ERROR(BenchPrefill(b, length));
  for (int n : {1, 8, 32}) {
    for (int context : {512, 4096, 32768, 131072}) {
      MILLRACE_RETURN_IF_ERROR(BenchDecode(b, n, context));
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace millrace

int main() {
  const absl::Status status = millrace::RunBench();
  if (!status.ok()) std::fprintf(stderr, "attention-bench: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
