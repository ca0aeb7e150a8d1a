// GGUF metadata values: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#ifndef MILLRACE_WORKER_MODEL_GGUF_VALUE_H_
#define MILLRACE_WORKER_MODEL_GGUF_VALUE_H_

#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/model/byte_cursor.h"

namespace millrace {

enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};
inline constexpr uint32_t kGgufTypes = 13;
inline constexpr int kGgufMaxArrayDepth = 4;

absl::string_view GgufTypeName(GgufType type);
// Bytes of one value; 0 for strings and arrays, whose size varies.
int GgufTypeSize(GgufType type);

// An array as it lies in the file, already walked and found whole. `bytes` is a view of the file.
struct GgufArray {
  GgufType element = GgufType::kUint8;
  uint64_t count = 0;
  absl::Span<const std::byte> bytes;
};

// Integers are widened; strings and arrays are views of the file.
struct GgufValue {
  GgufType type = GgufType::kUint8;
  std::variant<uint64_t, int64_t, double, bool, absl::string_view, GgufArray> data;
};

// Reads one value of `type`. `field` names it in messages. Arrays nested deeper than
// kGgufMaxArrayDepth are refused.
absl::StatusOr<GgufValue> ReadGgufValue(ByteCursor& cursor, uint32_t type, absl::string_view field,
                                        int depth = 0);

// The elements of an array, converted. InvalidArgument names the element type when it does not fit
// (strings for ints, negative or too large numbers).
absl::StatusOr<std::vector<absl::string_view>> GgufStrings(const GgufArray& array);
absl::StatusOr<std::vector<int64_t>> GgufIntegers(const GgufArray& array);
absl::StatusOr<std::vector<float>> GgufFloats(const GgufArray& array);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_GGUF_VALUE_H_
