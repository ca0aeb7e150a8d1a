#include "worker/model/gguf_value.h"

#include <array>
#include <bit>
#include <limits>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF blocks are read in place");

struct TypeInfo {
  absl::string_view name;
  int size;
};
constexpr std::array<TypeInfo, kGgufTypes> kTypes = {{{"uint8", 1},
                                                      {"int8", 1},
                                                      {"uint16", 2},
                                                      {"int16", 2},
                                                      {"uint32", 4},
                                                      {"int32", 4},
                                                      {"float32", 4},
                                                      {"bool", 1},
                                                      {"string", 0},
                                                      {"array", 0},
                                                      {"uint64", 8},
                                                      {"int64", 8},
                                                      {"float64", 8}}};

template <typename T, typename Wide>
absl::StatusOr<GgufValue> ReadScalar(ByteCursor& cursor, GgufType type, absl::string_view field) {
  MILLRACE_ASSIGN_OR_RETURN(T value, cursor.Read<T>(field));
  return GgufValue{type, static_cast<Wide>(value)};
}

absl::StatusOr<GgufValue> ReadBool(ByteCursor& cursor, absl::string_view field) {
  MILLRACE_ASSIGN_OR_RETURN(uint8_t value, cursor.Read<uint8_t>(field));
  if (value > 1) {
    return absl::DataLossError(absl::StrCat(field, ": a bool is ", value, ", not 0 or 1"));
  }
  return GgufValue{GgufType::kBool, value == 1};
}

absl::StatusOr<GgufValue> ReadArray(ByteCursor& cursor, absl::string_view field, int depth) {
  if (depth >= kGgufMaxArrayDepth) {
    return absl::DataLossError(
        absl::StrCat(field, ": arrays nested deeper than ", kGgufMaxArrayDepth));
  }
  MILLRACE_ASSIGN_OR_RETURN(uint32_t element, cursor.Read<uint32_t>(field));
  if (element >= kGgufTypes) {
    return absl::DataLossError(
        absl::StrCat(field, ": array element type ", element, " is not a GGUF type"));
  }
  MILLRACE_ASSIGN_OR_RETURN(uint64_t count, cursor.Read<uint64_t>(field));
  GgufArray array{static_cast<GgufType>(element), count, {}};
  const uint64_t size = GgufTypeSize(array.element);
  // The least that an element takes: a string has its length, an array its type and count.
  const uint64_t least = size > 0 ? size : (array.element == GgufType::kString ? 8 : 12);
  if (count > cursor.left() / least) {
    return absl::DataLossError(absl::StrCat(field, ": an array of ", count, " x ",
                                            GgufTypeName(array.element), " does not fit in the ",
                                            cursor.left(),
                                            " bytes that are left: the file is cut short or "
                                            "damaged"));
  }
  if (size > 0) {
    MILLRACE_ASSIGN_OR_RETURN(array.bytes, cursor.Take(count * size, field));
    return GgufValue{GgufType::kArray, array};
  }
  ByteCursor walk = cursor;
  for (uint64_t i = 0; i < count; ++i) {
    MILLRACE_RETURN_IF_ERROR(ReadGgufValue(walk, element, field, depth + 1));
  }
  MILLRACE_ASSIGN_OR_RETURN(array.bytes, cursor.Take(walk.position() - cursor.position(), field));
  return GgufValue{GgufType::kArray, array};
}

// Calls `take(value)` for every element; stops at the first error.
template <typename Take>
absl::Status ForEach(const GgufArray& array, Take take) {
  ByteCursor cursor(array.bytes);
  for (uint64_t i = 0; i < array.count; ++i) {
    MILLRACE_ASSIGN_OR_RETURN(GgufValue value,
                              ReadGgufValue(cursor, static_cast<uint32_t>(array.element), "array"));
    if (!take(value)) {
      return absl::InvalidArgumentError(absl::StrCat("element ", i, " of an array of ",
                                                     GgufTypeName(array.element),
                                                     " does not have the expected kind or range"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view GgufTypeName(GgufType type) {
  const uint32_t i = static_cast<uint32_t>(type);
  return i < kGgufTypes ? kTypes[i].name : "?";
}

int GgufTypeSize(GgufType type) {
  const uint32_t i = static_cast<uint32_t>(type);
  return i < kGgufTypes ? kTypes[i].size : 0;
}

absl::StatusOr<GgufValue> ReadGgufValue(ByteCursor& cursor, uint32_t type, absl::string_view field,
                                        int depth) {
  const GgufType t = static_cast<GgufType>(type);
  switch (t) {
    case GgufType::kUint8:
      return ReadScalar<uint8_t, uint64_t>(cursor, t, field);
    case GgufType::kInt8:
      return ReadScalar<int8_t, int64_t>(cursor, t, field);
    case GgufType::kUint16:
      return ReadScalar<uint16_t, uint64_t>(cursor, t, field);
    case GgufType::kInt16:
      return ReadScalar<int16_t, int64_t>(cursor, t, field);
    case GgufType::kUint32:
      return ReadScalar<uint32_t, uint64_t>(cursor, t, field);
    case GgufType::kInt32:
      return ReadScalar<int32_t, int64_t>(cursor, t, field);
    case GgufType::kFloat32:
      return ReadScalar<float, double>(cursor, t, field);
    case GgufType::kBool:
      return ReadBool(cursor, field);
    case GgufType::kString: {
      MILLRACE_ASSIGN_OR_RETURN(absl::string_view text, cursor.ReadString(field));
      return GgufValue{t, text};
    }
    case GgufType::kArray:
      return ReadArray(cursor, field, depth);
    case GgufType::kUint64:
      return ReadScalar<uint64_t, uint64_t>(cursor, t, field);
    case GgufType::kInt64:
      return ReadScalar<int64_t, int64_t>(cursor, t, field);
    case GgufType::kFloat64:
      return ReadScalar<double, double>(cursor, t, field);
  }
  return absl::DataLossError(absl::StrCat(field, ": value type ", type, " is not a GGUF type"));
}

absl::StatusOr<std::vector<absl::string_view>> GgufStrings(const GgufArray& array) {
  std::vector<absl::string_view> out;
  MILLRACE_RETURN_IF_ERROR(ForEach(array, [&](const GgufValue& v) {
    const auto* text = std::get_if<absl::string_view>(&v.data);
    if (text != nullptr) out.push_back(*text);
    return text != nullptr;
  }));
  return out;
}

absl::StatusOr<std::vector<int64_t>> GgufIntegers(const GgufArray& array) {
  std::vector<int64_t> out;
  MILLRACE_RETURN_IF_ERROR(ForEach(array, [&](const GgufValue& v) {
    if (const auto* i = std::get_if<int64_t>(&v.data)) {
      out.push_back(*i);
      return true;
    }
    const auto* u = std::get_if<uint64_t>(&v.data);
    if (u == nullptr || *u > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return false;
    }
    out.push_back(static_cast<int64_t>(*u));
    return true;
  }));
  return out;
}

absl::StatusOr<std::vector<float>> GgufFloats(const GgufArray& array) {
  std::vector<float> out;
  MILLRACE_RETURN_IF_ERROR(ForEach(array, [&](const GgufValue& v) {
    const auto* d = std::get_if<double>(&v.data);
    if (d != nullptr) out.push_back(static_cast<float>(*d));
    return d != nullptr;
  }));
  return out;
}

}  // namespace millrace
