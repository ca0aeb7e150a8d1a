// layer-bench [ROWS]: decoder layers of the 8B and the 70B shape one after the other on gpu0,
// recorded as a graph as a decode pass is: microseconds a layer, GB/s of weights, percent of what a
// plain read kernel reaches in this process; with attention over 512 positions of an f16 cache, and
// without. Every layer has weights of its own, so that nothing is found in the L2 cache; the
// residual stream is compared before and after timing. ROWS: activation rows, 1 to 8, each of
// another sequence.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/attention_cuda.h"
#include "kernels/bench/read_ceiling.h"
#include "kernels/cuda/buffers.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/status.h"
#include "kernels/matmul_cuda.h"
#include "kernels/norm_cuda.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(20);
constexpr int64_t kWeightBytes = int64_t{3} << 30;
constexpr int kKvHeads = 8, kHeadDim = 128, kContext = 512;

struct Shape {
  const char* name;
  int64_t d, d_ff;
  int heads;
  int64_t qkv() const { return d + 2 * kKvHeads * kHeadDim; }
};

// What a layer is made of beside the residual stream.
struct Rooms {
  cuda::DeviceBuffer weights, vectors, halves, floats, cells, rows, workspace;
};

class LayerBench {
 public:
  LayerBench(const Shape& shape, DType dtype, int n, Rooms& rooms, cuda::StreamView stream)
      : shape_(shape), dtype_(dtype), n_(n), rooms_(rooms), stream_(stream) {
    for (auto [rows, cols] : {std::pair(shape.qkv(), shape.d),
                              {shape.d, shape.d},
                              {2 * shape.d_ff, shape.d},
                              {shape.d, shape.d_ff}}) {
      layer_bytes_ += TiledBytes(dtype, rows, cols).count();
    }
    layers_ = static_cast<int>(std::min<int64_t>(16, kWeightBytes / layer_bytes_));
  }
  int64_t layer_bytes() const { return layer_bytes_; }

  // Microseconds a layer; negative: the result changed.
  absl::StatusOr<double> Measure(bool attention) {
    attention_ = attention;
    MILLRACE_RETURN_IF_ERROR(Issue());
    MILLRACE_ASSIGN_OR_RETURN(auto graph,
                              cuda::Graph::Capture(stream_, [this] { return Issue(); }));
    MILLRACE_ASSIGN_OR_RETURN(const std::vector<float> before, Result(graph));
    MILLRACE_ASSIGN_OR_RETURN(auto begin, cuda::Event::Create(0, cuda::Event::Timing::kOn));
    MILLRACE_ASSIGN_OR_RETURN(auto end, cuda::Event::Create(0, cuda::Event::Timing::kOn));
    std::vector<double> times;
    for (int repeat = 0; repeat < 21; ++repeat) {
      MILLRACE_RETURN_IF_ERROR(begin.Record(stream_));
      MILLRACE_RETURN_IF_ERROR(graph.Launch(stream_));
      MILLRACE_RETURN_IF_ERROR(end.Record(stream_));
      MILLRACE_RETURN_IF_ERROR(end.Wait(kTimeout));
      MILLRACE_ASSIGN_OR_RETURN(const absl::Duration took, end.Since(begin));
      times.push_back(absl::ToDoubleMicroseconds(took) / layers_);
    }
    std::sort(times.begin(), times.end());
    MILLRACE_ASSIGN_OR_RETURN(const std::vector<float> after, Result(graph));
    return before == after ? times[times.size() / 2] : -1;
  }

 private:
  __half* Halves(int64_t at) const { return static_cast<__half*>(rooms_.halves.data()) + at; }
  float* Floats(int64_t at) const { return static_cast<float*>(rooms_.floats.data()) + at; }

  WeightTiles Next(int64_t rows, int64_t cols) {
    WeightTiles w;
    w.data = static_cast<const uint8_t*>(rooms_.weights.data()) + offset_;
    w.dtype = dtype_;
    w.rows = rows;
    w.cols = cols;
    w.multiplier = 1e-3f;
    offset_ += TiledBytes(dtype_, rows, cols).count();
    return w;
  }

  cuda::DeferredNorm NormRoom(int which) const {
    cuda::DeferredNorm norm;
    norm.sums = Floats(0) + which * cuda::kDeferredNormBytes / 4;
    norm.prescale = norm.sums + cuda::kDeferredNormRows * cuda::kDeferredNormParts;
    norm.d = shape_.d;
    norm.epsilon = 1e-5f;
    norm.parts = 1;
    return norm;
  }

  cuda::MatmulInput Input(const __half* x, int64_t ldx, const cuda::DeferredNorm& norm) const {
    cuda::MatmulInput in;
    in.x = x;
    in.ldx = ldx;
    in.n = n_;
    in.norm = norm;
    return in;
  }

  absl::Status Add(const WeightTiles& w, const __half* x, float* hidden) {
    cuda::NextNorm next;
    next.before = norm_;
    next.after = NormRoom(norm_.sums == NormRoom(0).sums ? 1 : 0);
    next.weight = static_cast<const float*>(rooms_.vectors.data());
    next.out = Halves(0);
    next.ldo = shape_.d;
    MILLRACE_RETURN_IF_ERROR(cuda::SmallMatmulThenNorm(w, Input(x, w.cols, {}), nullptr, hidden,
                                                       shape_.d, next, stream_));
    norm_ = next.after;
    return absl::OkStatus();
  }

  absl::Status Issue() {
    offset_ = 0;
    float* hidden = Floats(cuda::kDeferredNormBytes / 2);
    float* qkv = hidden + n_ * shape_.d;
    __half *normed = Halves(0), *mixed = normed + n_ * shape_.d, *act = mixed + n_ * shape_.d;
    const auto* ones = static_cast<const float*>(rooms_.vectors.data());
    MILLRACE_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(hidden, ones, n_ * shape_.d * sizeof(float),
                                                  cudaMemcpyDeviceToDevice, stream_.get()));
    norm_ = NormRoom(0);
    MILLRACE_RETURN_IF_ERROR(
        cuda::RmsNormDeferred(hidden, shape_.d, n_, ones, norm_, normed, stream_));
    for (int layer = 0; layer < layers_; ++layer) {
      MILLRACE_RETURN_IF_ERROR(cuda::SmallMatmul(Next(shape_.qkv(), shape_.d),
                                                 Input(normed, shape_.d, norm_), nullptr, false,
                                                 qkv, shape_.qkv(), stream_));
      if (attention_) MILLRACE_RETURN_IF_ERROR(Attention(qkv, mixed));
      MILLRACE_RETURN_IF_ERROR(Add(Next(shape_.d, shape_.d), mixed, hidden));
      const WeightTiles gate = Next(shape_.d_ff, shape_.d), up = Next(shape_.d_ff, shape_.d);
      MILLRACE_RETURN_IF_ERROR(cuda::SmallMatmulSwiGlu(gate, up, Input(normed, shape_.d, norm_),
                                                       act, shape_.d_ff, stream_));
      MILLRACE_RETURN_IF_ERROR(Add(Next(shape_.d, shape_.d_ff), act, hidden));
    }
    return absl::OkStatus();
  }

  absl::Status Attention(const float* qkv, __half* mixed) {
    cuda::RopeAppendArgs rope;
    rope.qkv = qkv;
    rope.stride = shape_.qkv();
    rope.heads = shape_.heads;
    const KvView cache = {rooms_.cells.data(),
                          static_cast<char*>(rooms_.cells.data()) + rooms_.cells.size().count() / 2,
                          DType::kF16,
                          8,
                          2 * kContext,
                          kKvHeads,
                          kHeadDim};
    const auto* rows = static_cast<const int*>(rooms_.rows.data());
    cuda::DecodeWorkspace workspace;
    workspace.counters = static_cast<uint32_t*>(rooms_.workspace.data());
    workspace.partials = static_cast<float*>(rooms_.workspace.data()) + 65536;
    const int splits = cuda::DecodeSplits(132, kKvHeads, n_, 2 * kContext);
    return cuda::RopeAttentionDecode(rope, cache, {rows, rows + 8, n_}, 0.088f, splits, workspace,
                                     mixed, stream_);
  }

  absl::StatusOr<std::vector<float>> Result(const cuda::Graph& graph) {
    MILLRACE_RETURN_IF_ERROR(graph.Launch(stream_));
    std::vector<float> out(static_cast<size_t>(n_ * shape_.d));
    MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(out.data(), Floats(cuda::kDeferredNormBytes / 2),
                                             Bytes(static_cast<int64_t>(out.size() * 4)), stream_));
    MILLRACE_RETURN_IF_ERROR(stream_.Wait(kTimeout));
    return out;
  }

  const Shape shape_;
  const DType dtype_;
  const int n_;
  Rooms& rooms_;
  const cuda::StreamView stream_;
  int64_t layer_bytes_ = 0, offset_ = 0;
  int layers_ = 0;
  bool attention_ = true;
  cuda::DeferredNorm norm_;
};

absl::StatusOr<cuda::DeviceBuffer> Zeros(int64_t size, cuda::StreamView stream) {
  MILLRACE_ASSIGN_OR_RETURN(auto buffer, cuda::DeviceBuffer::Create(0, Bytes(size)));
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaMemsetAsync(buffer.data(), 0, static_cast<size_t>(size), stream.get()));
  return buffer;
}

absl::StatusOr<Rooms> MakeRooms(cuda::StreamView stream) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  MILLRACE_ASSIGN_OR_RETURN(auto weights, Zeros(kWeightBytes, stream));
  MILLRACE_ASSIGN_OR_RETURN(auto vectors, Zeros(kMiB, stream));
  MILLRACE_ASSIGN_OR_RETURN(auto halves, Zeros(8 * kMiB, stream));
  MILLRACE_ASSIGN_OR_RETURN(auto floats, Zeros(8 * kMiB, stream));
  MILLRACE_ASSIGN_OR_RETURN(auto cells, Zeros(64 * kMiB, stream));
  MILLRACE_ASSIGN_OR_RETURN(auto row_numbers, Zeros(64, stream));
  MILLRACE_ASSIGN_OR_RETURN(auto workspace, Zeros(64 * kMiB, stream));
  Rooms r = {std::move(weights), std::move(vectors),     std::move(halves),   std::move(floats),
             std::move(cells),   std::move(row_numbers), std::move(workspace)};
  // Bytes that are sane codes and scales in every format.
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaMemsetAsync(r.weights.data(), 0x2c, kWeightBytes, stream.get()));
  std::vector<float> values(static_cast<size_t>(1 << 18));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(i * 7919 % 2048) / 1024 - 1;
  MILLRACE_RETURN_IF_ERROR(
      cuda::CopyAsync(r.vectors.data(), values.data(), r.vectors.size(), stream));
  const int rows[16] = {0, 1, 2, 3, 4, 5, 6, 7, 511, 511, 511, 511, 511, 511, 511, 511};
  MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(r.rows.data(), rows, r.rows.size(), stream));
  MILLRACE_RETURN_IF_ERROR(stream.Wait(kTimeout));
  return r;
}

absl::Status RunBench(int n) {
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaSetDevice(0));
  MILLRACE_ASSIGN_OR_RETURN(auto stream, cuda::Stream::Create(0));
  MILLRACE_ASSIGN_OR_RETURN(Rooms rooms, MakeRooms(stream.view()));
  MILLRACE_ASSIGN_OR_RETURN(const double ceiling, ReadCeiling(rooms.weights, stream.view()));
  std::printf("%d activation rows, context %d; plain read kernel %.0f GB/s\n", n, kContext,
              ceiling);
  std::printf("%-4s %-5s %12s %9s %8s %14s\n", "", "type", "us a layer", "GB/s", "ceiling",
              "no attention");
  for (const Shape& shape : {Shape{"8B", 4096, 14336, 32}, Shape{"70B", 8192, 28672, 64}}) {
    for (DType dtype : {DType::kQ4_K, DType::kQ6_K, DType::kQ8_0, DType::kF16}) {
      LayerBench bench(shape, dtype, n, rooms, stream.view());
      MILLRACE_ASSIGN_OR_RETURN(const double whole, bench.Measure(true));
      MILLRACE_ASSIGN_OR_RETURN(const double part, bench.Measure(false));
      const double rate = static_cast<double>(bench.layer_bytes()) / whole / 1e3;
      std::printf("%-4s %-5s %12.2f %9.0f %7.1f%% %14.2f%s\n", shape.name, DTypeName(dtype).data(),
                  whole, rate, 100 * rate / ceiling, part,
                  whole < 0 || part < 0 ? "  DIFFERS" : "");
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  const int n = argc > 1 ? std::atoi(argv[1]) : 1;
  if (n < 1 || n > millrace::cuda::kDeferredNormRows) {
    std::fprintf(stderr, "usage: layer-bench [ROWS], 1 to 8 rows\n");
    return 2;
  }
  const absl::Status status = millrace::RunBench(n);
  if (!status.ok()) std::fprintf(stderr, "layer-bench: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
