// DType: how one tensor's values are stored. Block formats are those of GGUF:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (type ids) and the block structs
// described in kernels/quant_blocks.h.
#ifndef MILLRACE_PROTO_DTYPE_H_
#define MILLRACE_PROTO_DTYPE_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
#include "proto/bytes.h"
#include "proto/dtype_id.h"

namespace millrace {

inline constexpr std::array<DType, 13> kAllDTypes = {
    DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0, DType::kQ4_0,
    DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K,
    DType::kQ6_K, DType::kQ3_K, DType::kQ2_K};

struct DTypeInfo {
  DType dtype;
  absl::string_view name;  // "q4_K", as the field writes it
  int ggml_type;           // GGUF's tensor type id
  int block_elements;      // elements per block: 1, 32 or 256
  int block_bytes;         // bytes per block
  bool quantized;          // blocks with scales, against plain floats
};

const DTypeInfo& Info(DType dtype);
inline absl::string_view DTypeName(DType dtype) { return Info(dtype).name; }
std::optional<DType> DTypeFromGgml(uint32_t ggml_type);
// Any case: "f16", "Q4_K", "bf16".
std::optional<DType> DTypeFromName(absl::string_view name);

// Bytes of one row of `cols` elements. `cols` must be a multiple of block_elements (CHECKed).
Bytes RowBytes(DType dtype, int64_t cols);

}  // namespace millrace

#endif  // MILLRACE_PROTO_DTYPE_H_
