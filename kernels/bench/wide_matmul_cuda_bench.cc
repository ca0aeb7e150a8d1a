// wide-matmul-bench [N ...]: products with many activation rows on gpu0 in the shapes of
// llama-3.1-70B and 8B: microseconds and TFLOP/s of the wide kernel at each width (* marks its
// choice), packing x, and beside it dequantising and cuBLASLt on the same matrices. Weights are
// random codes; each launch reads another copy of them; results are compared before and after
// timing, and with cuBLASLt's.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "kernels/bench/relative_error.h"
#include "kernels/cuda/buffers.h"
#include "kernels/cuda/cublas_lt.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/status.h"
#include "kernels/elementwise_cuda.h"
#include "kernels/fp16.h"
#include "kernels/weight_tiles_cuda.h"
#include "kernels/wide_matmul_cuda.h"
#include "kernels/wide_matmul_params.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

// A device buffer by its values' type.
struct Buffer {
  cuda::DeviceBuffer memory;
  template <typename T>
  T* as() const {
    return static_cast<T*>(memory.data());
  }
  void* data() const { return memory.data(); }
  Bytes size() const { return memory.size(); }
  static absl::StatusOr<Buffer> Create(Bytes size) {
    MILLRACE_ASSIGN_OR_RETURN(auto memory, cuda::DeviceBuffer::Create(0, size));
    return Buffer{std::move(memory)};
  }
};

constexpr absl::Duration kTimeout = absl::Seconds(20);
constexpr int64_t kLeastRead = int64_t{192}
                               << 20;  // bytes of weight copies, well past the L2 cache

struct Case {
  const char* name;
  int64_t rows, cols;
  DType dtype;
  bool swiglu;  // rows: gate and up together
};
constexpr Case kCases[] = {
    {"70B qkv", 10240, 8192, DType::kQ4_K, false},
    {"70B o", 8192, 8192, DType::kQ4_K, false},
    {"70B gate up", 57344, 8192, DType::kQ4_K, true},
    {"70B down", 8192, 28672, DType::kQ4_K, false},
    {"70B down", 8192, 28672, DType::kQ6_K, false},
    {"8B qkv", 6144, 4096, DType::kQ4_K, false},
    {"8B o", 4096, 4096, DType::kQ4_K, false},
    {"8B gate up", 28672, 4096, DType::kQ4_K, true},
    {"8B down", 4096, 14336, DType::kQ6_K, false},
    {"8B gate up", 28672, 4096, DType::kQ8_0, true},
    {"8B gate up", 28672, 4096, DType::kF16, true},
};

std::vector<int> HalfFields(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
      return {0};
    case DType::kQ4_K:
      return {0, 2};
    case DType::kQ6_K:
      return {208};
    default:
      return {};
  }
}

// `rows` rows as in a file: random codes, scales of one magnitude.
std::vector<uint8_t> RandomRows(DType dtype, int64_t rows, int64_t cols) {
  std::vector<uint8_t> bytes(static_cast<size_t>(rows * RowBytes(dtype, cols).count()));
  std::mt19937_64 rng(7);
  const size_t block = static_cast<size_t>(Info(dtype).block_bytes);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(rng());
  if (dtype == DType::kF16) {
    std::normal_distribution<float> normal(0.0f, 0.02f);
    for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
      const uint16_t h = FloatToHalf(normal(rng));
      std::memcpy(&bytes[i], &h, 2);
    }
    return bytes;
  }
  const uint16_t scale = FloatToHalf(0.001f);
  for (size_t b = 0; b < bytes.size(); b += block) {
    for (int field : HalfFields(dtype))
      std::memcpy(&bytes[b + static_cast<size_t>(field)], &scale, 2);
  }
  return bytes;
}

double Flops(const Case& c, int n) {
  return 2.0 * static_cast<double>(c.rows) * static_cast<double>(c.cols) * n;
}

class Bench {
 public:
  Bench(cuda::Stream stream, cuda::GemmEngine engine)
      : stream_(std::move(stream)), engine_(std::move(engine)) {}

  absl::Status Run(const Case& c, absl::Span<const int> sizes);

 private:
  // Device memory for one number of rows of x.
  struct Room {
    int n;
    Buffer x, packed, y, act, packed_act, w16;
    cuda::PackedRows Packed(const Case& c) const { return {packed.as<__half>(), n, c.cols}; }
  };

  cuda::StreamView stream() const { return stream_.view(); }
  absl::StatusOr<double> Time(int copies, absl::FunctionRef<absl::Status(int)> launch);
  absl::StatusOr<Room> MakeRoom(const Case& c, int n);
  absl::StatusOr<std::vector<float>> Library(const Case& c, Room& room);
  absl::Status RunSize(const Case& c, int n);
  absl::StatusOr<std::vector<float>> Values(const Case& c, const Room& room);
  WeightTiles Weights(const Case& c, int copy) const {
    WeightTiles w;
    w.dtype = c.dtype;
    w.rows = c.rows;
    w.cols = c.cols;
    w.data = weights_->as<uint8_t>() + copy * TiledBytes(c.dtype, c.rows, c.cols).count();
    return w;
  }
  absl::Status Wide(const Case& c, int copy, const cuda::PackedRows& x, int tokens, void* y);

  cuda::Stream stream_;
  cuda::GemmEngine engine_;
  std::optional<Buffer> weights_;
  int copies_ = 1;
};

absl::StatusOr<double> Bench::Time(int copies, absl::FunctionRef<absl::Status(int)> launch) {
  MILLRACE_ASSIGN_OR_RETURN(auto begin, cuda::Event::Create(0, cuda::Event::Timing::kOn));
  MILLRACE_ASSIGN_OR_RETURN(auto end, cuda::Event::Create(0, cuda::Event::Timing::kOn));
  std::vector<double> times;
  int launches = 4;
  for (int repeat = 0; repeat < 6; ++repeat) {
    MILLRACE_RETURN_IF_ERROR(begin.Record(stream()));
    for (int i = 0; i < launches; ++i) MILLRACE_RETURN_IF_ERROR(launch(i % copies));
    MILLRACE_RETURN_IF_ERROR(end.Record(stream()));
    MILLRACE_RETURN_IF_ERROR(end.Wait(kTimeout));
    MILLRACE_ASSIGN_OR_RETURN(const absl::Duration took, end.Since(begin));
    const double us = absl::ToDoubleMicroseconds(took) / launches;
    // The first round warms up and says how many launches make 20 ms.
    if (repeat > 0) times.push_back(us);
    launches = std::clamp(static_cast<int>(20000 / us), 4, 100);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// Of the result: up to a million values each from its beginning, middle and end.
absl::StatusOr<std::vector<float>> Bench::Values(const Case& c, const Room& room) {
  const int64_t size = c.swiglu ? 2 : 4;
  const Buffer& buffer = c.swiglu ? room.packed_act : room.y;
  const int64_t count = buffer.size().count() / size, some = std::min<int64_t>(count / 3, 1 << 20);
  std::vector<std::byte> bytes(static_cast<size_t>(3 * some * size));
  for (int64_t part = 0; part < 3; ++part) {
    const auto* from =
        static_cast<const std::byte*>(buffer.data()) + (count - some) * part / 2 * size;
    MILLRACE_RETURN_IF_ERROR(
        cuda::CopyAsync(bytes.data() + part * some * size, from, Bytes(some * size), stream()));
  }
  MILLRACE_RETURN_IF_ERROR(stream().Wait(kTimeout));
  std::vector<float> out(static_cast<size_t>(3 * some));
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t bits;
    if (c.swiglu) {
      std::memcpy(&bits, bytes.data() + 2 * i, 2);
      out[i] = HalfToFloat(bits);
    } else {
      std::memcpy(&out[i], bytes.data() + 4 * i, 4);
    }
  }
  return out;
}

// tokens 0: as WideMatmul chooses.
absl::Status Bench::Wide(const Case& c, int copy, const cuda::PackedRows& x, int tokens, void* y) {
  if (!c.swiglu) {
    return cuda::WideMatmul({{Weights(c, copy)}}, x, false, static_cast<float*>(y), c.rows,
                            stream(), tokens);
  }
  WeightTiles gate = Weights(c, copy), up = gate;
  gate.rows = up.rows = c.rows / 2;
  up.data += TiledBytes(c.dtype, gate.rows, c.cols).count();
  return cuda::WideMatmulSwiGlu(gate, up, x, {static_cast<__half*>(y), x.n, c.rows / 2}, stream(),
                                tokens);
}

absl::StatusOr<Bench::Room> Bench::MakeRoom(const Case& c, int n) {
  const int64_t out_cols = c.swiglu ? c.rows / 2 : c.rows;
  MILLRACE_ASSIGN_OR_RETURN(auto x, Buffer::Create(Bytes(n * c.cols * 2)));
  MILLRACE_ASSIGN_OR_RETURN(auto packed, Buffer::Create(cuda::PackedBytes(n, c.cols)));
  MILLRACE_ASSIGN_OR_RETURN(auto y, Buffer::Create(Bytes(n * c.rows * 4)));
  MILLRACE_ASSIGN_OR_RETURN(auto act, Buffer::Create(cuda::PackedBytes(n, out_cols)));
  MILLRACE_ASSIGN_OR_RETURN(auto packed_act, Buffer::Create(act.size()));
  MILLRACE_ASSIGN_OR_RETURN(auto w16, Buffer::Create(Bytes(c.rows * c.cols * 2)));
  std::vector<uint16_t> host(static_cast<size_t>(n * c.cols)), some(8191);
  std::mt19937 rng(11);
  std::normal_distribution<float> normal;
  for (uint16_t& h : some) h = FloatToHalf(normal(rng));
  for (size_t i = 0; i < host.size(); ++i) host[i] = some[(i * 7 + i / 8191) % some.size()];
  MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(x.data(), host.data(), x.size(), stream()));
  MILLRACE_RETURN_IF_ERROR(stream().Wait(kTimeout));
  return Room{n,
              std::move(x),
              std::move(packed),
              std::move(y),
              std::move(act),
              std::move(packed_act),
              std::move(w16)};
}

// Dequantising, cuBLASLt and packing; gives what cuBLASLt's results are, in the wide product's
// form.
absl::StatusOr<std::vector<float>> Bench::Library(const Case& c, Room& room) {
  const auto* x = room.x.as<__half>();
  auto dequantize = [&](int copy) {
    return cuda::DequantizeTiles(Weights(c, copy), room.w16.as<__half>(), c.cols, stream());
  };
  auto multiply = [&](int) -> absl::Status {
    if (!c.swiglu) {
      return engine_.Gemm(x, room.n, c.cols, c.cols, room.w16.as<__half>(), c.rows, c.cols, 1.0f,
                          room.y.as<float>(), c.rows, false, stream());
    }
    auto* y = room.y.as<__half>();
    MILLRACE_RETURN_IF_ERROR(engine_.GemmHalf(x, room.n, c.cols, c.cols, room.w16.as<__half>(),
                                              c.rows, c.cols, 1.0f, y, c.rows, stream()));
    return cuda::SwiGluOfHalves(y, c.rows, room.n, c.rows / 2, room.act.as<__half>(), stream());
  };
  MILLRACE_RETURN_IF_ERROR(dequantize(0));
  MILLRACE_RETURN_IF_ERROR(multiply(0));
  if (c.swiglu) {
    MILLRACE_RETURN_IF_ERROR(cuda::PackRows(room.act.as<__half>(), c.rows / 2,
                                            {room.packed_act.as<__half>(), room.n, c.rows / 2},
                                            stream()));
  }
  MILLRACE_ASSIGN_OR_RETURN(std::vector<float> values, Values(c, room));
  MILLRACE_ASSIGN_OR_RETURN(const double dequantize_us, Time(copies_, dequantize));
  MILLRACE_ASSIGN_OR_RETURN(const double gemm_us, Time(1, multiply));
  MILLRACE_ASSIGN_OR_RETURN(const double pack_us, Time(1, [&](int) {
                              return cuda::PackRows(x, c.cols, room.Packed(c), stream());
                            }));
  std::printf("%-12s %-5s n %4d | cublas %8.1f us %4.0f TF dequantise %6.1f us | pack %5.1f us |",
              c.name, DTypeName(c.dtype).data(), room.n, gemm_us, Flops(c, room.n) / gemm_us / 1e6,
              dequantize_us, pack_us);
  return values;
}

absl::Status Bench::RunSize(const Case& c, int n) {
  MILLRACE_ASSIGN_OR_RETURN(Room room, MakeRoom(c, n));
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<float> expected, Library(c, room));
  Buffer& result = c.swiglu ? room.packed_act : room.y;
  for (int tokens : {0, 256, 176, 128}) {
    MILLRACE_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(
        result.data(), 0xff, static_cast<size_t>(result.size().count()), stream().get()));
    auto wide = [&](int copy) { return Wide(c, copy, room.Packed(c), tokens, result.data()); };
    MILLRACE_RETURN_IF_ERROR(wide(0));
    MILLRACE_ASSIGN_OR_RETURN(const std::vector<float> before, Values(c, room));
    MILLRACE_ASSIGN_OR_RETURN(const double us, Time(copies_, wide));
    MILLRACE_RETURN_IF_ERROR(wide(0));
    MILLRACE_ASSIGN_OR_RETURN(const std::vector<float> after, Values(c, room));
    const bool same = std::memcmp(before.data(), after.data(), before.size() * 4) == 0;
    std::printf(" %s: %8.1f us %4.0f TF %.0e%s", tokens == 0 ? "*" : absl::StrCat(tokens).c_str(),
                us, Flops(c, n) / us / 1e6, RelativeError(after, expected), same ? "" : " CHANGED");
    std::fflush(stdout);
  }
  std::printf("\n");
  return absl::OkStatus();
}

absl::Status Bench::Run(const Case& c, absl::Span<const int> sizes) {
  const int64_t bytes = TiledBytes(c.dtype, c.rows, c.cols).count();
  copies_ = static_cast<int>(std::max<int64_t>(1, (kLeastRead + bytes - 1) / bytes));
  MILLRACE_ASSIGN_OR_RETURN(weights_, Buffer::Create(Bytes(copies_ * bytes)));
  // One piece of the matrix, again and again.
  constexpr int64_t kRows = 256;
  const std::vector<uint8_t> raw = RandomRows(c.dtype, kRows, c.cols);
  MILLRACE_ASSIGN_OR_RETURN(auto device, Buffer::Create(Bytes(static_cast<int64_t>(raw.size()))));
  MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(device.data(), raw.data(), device.size(), stream()));
  for (int copy = 0; copy < copies_; ++copy) {
    const WeightTiles tiles = Weights(c, copy);
    for (int64_t row = 0; row < c.rows; row += kRows) {
      MILLRACE_RETURN_IF_ERROR(cuda::TileRows(c.dtype, device.as<uint8_t>(), row, kRows, tiles,
                                              const_cast<uint8_t*>(tiles.data), stream()));
    }
  }
  MILLRACE_RETURN_IF_ERROR(stream().Wait(kTimeout));
  for (int n : sizes) MILLRACE_RETURN_IF_ERROR(RunSize(c, n));
  return absl::OkStatus();
}

absl::Status RunAll(absl::Span<const int> sizes) {
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaSetDevice(0));
  MILLRACE_ASSIGN_OR_RETURN(auto stream, cuda::Stream::Create(0));
  MILLRACE_ASSIGN_OR_RETURN(auto workspace, Buffer::Create(cuda::GemmEngine::kWorkspace));
  MILLRACE_ASSIGN_OR_RETURN(
      auto engine, cuda::GemmEngine::Create(0, workspace.data(), cuda::GemmEngine::kWorkspace));
  Bench bench(std::move(stream), std::move(engine));
  for (const Case& c : kCases) MILLRACE_RETURN_IF_ERROR(bench.Run(c, sizes));
  return absl::OkStatus();
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  std::vector<int> sizes;
  for (int i = 1; i < argc; ++i) sizes.push_back(std::atoi(argv[i]));
  if (sizes.empty()) sizes = {512, 4096};
  for (int n : sizes) {
    if (n < 1 || n > 16384) {
      std::fprintf(stderr, "usage: wide-matmul-bench [N ...], 1 to 16384 activation rows\n");
      return 2;
    }
  }
  const absl::Status status = millrace::RunAll(sizes);
  if (!status.ok()) std::fprintf(stderr, "wide-matmul-bench: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
