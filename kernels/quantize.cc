#include "kernels/quantize.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/fp16.h"
#include "kernels/matmul.h"
#include "kernels/quantize_k.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr int64_t kGrain = 8;  // rows that a thread takes at a time

bool QuantizeQ8(const float* x, uint8_t* out) {
  constexpr int kValues = 32;
  float largest = 0;
  for (int i = 0; i < kValues; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float d = largest / 127.0f, inverse = d > 0 ? 1.0f / d : 0.0f;
  const uint16_t half = FloatToHalf(d);
  if ((half & 0x7c00) == 0x7c00) return false;
  std::memcpy(out, &half, 2);
  // The reciprocal of a d below f32's smallest normal number is infinite; f16 has it as zero.
  const bool usable = std::isfinite(inverse);
  for (int i = 0; i < kValues; ++i) {
    const float code = usable ? std::round(x[i] * inverse) : 0.0f;
    out[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(code));
  }
  return true;
}

QuantizeBlock BlockFunction(DType to) {
  const QuantizeKernels& kernels = QuantizeKernelsFor(DetectCpuIsa());
  switch (to) {
    case DType::kQ8_0:
      return QuantizeQ8;
    case DType::kQ6_K:
      return kernels.q6_k;
    case DType::kQ5_K:
      return kernels.q5_k;
    case DType::kQ4_K:
      return kernels.q4_k;
    default:
      return nullptr;
  }
}

bool AllFinite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

// The first row that could not be quantised, of all threads.
class FirstBadRow {
 public:
  void Add(int64_t row) {
    int64_t before = row_.load();
    while (row < before && !row_.compare_exchange_weak(before, row)) {
    }
  }
  int64_t row() const { return row_.load(); }
  bool any() const { return row() != kNone; }

 private:
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> row_{kNone};
};

}  // namespace

absl::Status Quantize(const WeightView& from, DType to, absl::string_view tensor, void* out,
                      ThreadPool& pool) {
  const QuantizeBlock quantize = BlockFunction(to);
  const DTypeInfo& type = Info(to);
  MILLRACE_CHECK(quantize != nullptr && !Info(from.dtype).quantized &&
                 from.cols % type.block_elements == 0);
  const int64_t row_bytes = RowBytes(to, from.cols).count();
  FirstBadRow not_finite, too_large;
  pool.ParallelFor(from.rows, kGrain, [&](int64_t begin, int64_t end, int) {
    std::vector<float> values(static_cast<size_t>(from.cols));
    for (int64_t r = begin; r < end; ++r) {
      const auto* row = static_cast<const std::byte*>(from.data) + r * from.stride().count();
      DequantizeRow(from.dtype, row, from.cols, values.data());
      if (!AllFinite(values)) {
        not_finite.Add(r);
        continue;
      }
      uint8_t* block = static_cast<uint8_t*>(out) + r * row_bytes;
      for (int64_t c = 0; c < from.cols; c += type.block_elements, block += type.block_bytes) {
        if (!quantize(values.data() + c, block)) too_large.Add(r);
      }
    }
  });
  if (not_finite.any()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", tensor, ", row ", not_finite.row(),
                     ": a value is infinite or not a number and cannot be quantised to ", type.name,
                     "; keep the tensor's type, or use a sound file"));
  }
  if (too_large.any()) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor, ", row ", too_large.row(),
                                                   ": a value is too large for the f16 scales of ",
                                                   type.name, "; keep the tensor's type"));
  }
  return absl::OkStatus();
}

}  // namespace millrace
