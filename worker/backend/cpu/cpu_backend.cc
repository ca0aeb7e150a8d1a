#include <sys/mman.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/elementwise.h"
#include "kernels/norm.h"
#include "kernels/rope.h"
#include "worker/backend/backend.h"

namespace millrace {
namespace {

// Anonymous memory: zeroed, resident only where touched.
class MappedMemory : public DeviceMemory {
 public:
  MappedMemory(void* base, Bytes size) : base_(base), size_(size) {}
  ~MappedMemory() override { munmap(base_, static_cast<size_t>(size_.count())); }
  MappedMemory(const MappedMemory&) = delete;
  MappedMemory& operator=(const MappedMemory&) = delete;
  std::byte* data() const override { return static_cast<std::byte*>(base_); }
  Bytes size() const override { return size_; }

 private:
  void* base_;
  Bytes size_;
};

void CopyRows(FloatView from, FloatView to) {
  for (int64_t r = 0; r < from.rows; ++r) {
    std::memcpy(to.row(r), from.row(r), sizeof(float) * static_cast<size_t>(from.cols));
  }
}

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(int threads) : pool_(threads > 0 ? threads : UsableThreads()) {
    context_.pool = &pool_;
    context_.isa = DetectCpuIsa();
  }

  int threads() const override { return pool_.size(); }

  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(Bytes size) override {
    void* base = mmap(nullptr, static_cast<size_t>(size.count()), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
      return absl::ResourceExhaustedError(
          absl::StrCat("cannot allocate ", FormatBytes(size), " of host memory: ",
                       std::strerror(errno)));
    }
    return std::make_unique<MappedMemory>(base, size);
  }

  absl::StatusOr<WeightView> PlaceWeights(const TensorSpec& spec,
                                          absl::Span<const std::byte> host) override {
    return WeightView{host.data(), spec.dtype, spec.rows(), spec.cols()};
  }

  absl::StatusOr<const float*> PlaceVector(const TensorSpec& spec,
                                           absl::Span<const std::byte> host) override {
    std::vector<float> values(static_cast<size_t>(spec.cols()));
    DequantizeRow(spec.dtype, host.data(), spec.cols(), values.data());
    vectors_.push_back(std::move(values));
    return vectors_.back().data();
  }

  void SetScratch(std::byte* scratch, size_t bytes) override {
    context_.scratch = scratch;
    context_.scratch_bytes = bytes;
  }

  absl::Status Embed(const WeightView& table, absl::Span<const TokenId> tokens,
                     FloatView out) override {
    millrace::Embed(context_, table, tokens, out);
    return absl::OkStatus();
  }
  absl::Status RmsNorm(FloatView x, const float* weight, float epsilon, FloatView out) override {
    millrace::RmsNorm(context_, x, weight, epsilon, out);
    return absl::OkStatus();
  }
  absl::Status HeadRmsNorm(FloatView x, int head_dim, const float* weight,
                           float epsilon) override {
    millrace::HeadRmsNorm(context_, x, head_dim, weight, epsilon);
    return absl::OkStatus();
  }
  absl::Status Matmul(FloatView x, absl::Span<const MatmulTarget> targets) override {
    millrace::Matmul(context_, x, targets);
    return absl::OkStatus();
  }
  absl::Status RopeTable(absl::Span<const int> positions, absl::Span<const double> frequencies,
                         float* table) override {
    millrace::RopeTable(context_, positions, frequencies, table);
    return absl::OkStatus();
  }
  absl::Status Rope(FloatView x, int head_dim, int dims, RopeStyle style,
                    const float* table) override {
    millrace::Rope(context_, x, head_dim, dims, style, table);
    return absl::OkStatus();
  }
  absl::Status KvAppend(FloatView k, FloatView v, absl::Span<const AttentionSegment> segments,
                        const KvView& cache) override {
    millrace::KvAppend(context_, k, v, segments, cache);
    return absl::OkStatus();
  }
  absl::Status Attention(FloatView q, int heads, const KvView& cache,
                         absl::Span<const AttentionSegment> segments, float scale,
                         FloatView out) override {
    millrace::Attention(context_, q, heads, cache, segments, scale, out);
    return absl::OkStatus();
  }
  absl::Status SwiGlu(FloatView gate, FloatView up) override {
    millrace::SwiGlu(context_, gate, up);
    return absl::OkStatus();
  }
  absl::Status ReadBack(FloatView device, FloatView host) override {
    CopyRows(device, host);
    return absl::OkStatus();
  }
  absl::Status Upload(FloatView host, FloatView device) override {
    CopyRows(host, device);
    return absl::OkStatus();
  }

 private:
  ThreadPool pool_;
  CpuContext context_;
  std::vector<std::vector<float>> vectors_;
};

}  // namespace

std::unique_ptr<Backend> MakeCpuBackend(int threads) {
  return std::make_unique<CpuBackend>(threads);
}

}  // namespace millrace
