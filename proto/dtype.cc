#include "proto/dtype.h"

#include "absl/strings/match.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr std::array<DTypeInfo, 13> kInfo = {{
    {DType::kF32, "f32", 0, 1, 4, false},
    {DType::kF16, "f16", 1, 1, 2, false},
    {DType::kBF16, "bf16", 30, 1, 2, false},
    {DType::kQ8_0, "q8_0", 8, 32, 34, true},
    {DType::kQ4_0, "q4_0", 2, 32, 18, true},
    {DType::kQ4_1, "q4_1", 3, 32, 20, true},
    {DType::kQ5_0, "q5_0", 6, 32, 22, true},
    {DType::kQ5_1, "q5_1", 7, 32, 24, true},
    {DType::kQ4_K, "q4_K", 12, 256, 144, true},
    {DType::kQ5_K, "q5_K", 13, 256, 176, true},
    {DType::kQ6_K, "q6_K", 14, 256, 210, true},
    {DType::kQ3_K, "q3_K", 11, 256, 110, true},
    {DType::kQ2_K, "q2_K", 10, 256, 84, true},
}};

}  // namespace

const DTypeInfo& Info(DType dtype) {
  const size_t i = static_cast<size_t>(dtype);
  MILLRACE_CHECK(i < kInfo.size() && kInfo[i].dtype == dtype);
  return kInfo[i];
}

std::optional<DType> DTypeFromGgml(uint32_t ggml_type) {
  for (const DTypeInfo& info : kInfo) {
    if (static_cast<uint32_t>(info.ggml_type) == ggml_type) return info.dtype;
  }
  return std::nullopt;
}

std::optional<DType> DTypeFromName(absl::string_view name) {
  for (const DTypeInfo& info : kInfo) {
    if (absl::EqualsIgnoreCase(info.name, name)) return info.dtype;
  }
  return std::nullopt;
}

Bytes RowBytes(DType dtype, int64_t cols) {
  const DTypeInfo& info = Info(dtype);
  MILLRACE_CHECK(cols >= 0 && cols % info.block_elements == 0);
  return Bytes(cols / info.block_elements * info.block_bytes);
}

}  // namespace millrace
