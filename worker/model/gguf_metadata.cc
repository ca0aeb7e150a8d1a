#include "worker/model/gguf_metadata.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

std::string WrongType(const GgufValue& value, absl::string_view expected) {
  return absl::StrCat("is of type ", GgufTypeName(value.type), ", expected ", expected);
}

}  // namespace

bool GgufMetadata::Insert(absl::string_view key, GgufValue value) {
  return values_.emplace(std::string(key), std::move(value)).second;
}

const GgufValue* GgufMetadata::Find(absl::string_view key) const {
  auto it = values_.find(std::string(key));
  return it == values_.end() ? nullptr : &it->second;
}

absl::Status GgufMetadata::Error(absl::string_view key, absl::string_view what) const {
  return absl::DataLossError(absl::StrCat(file_, ": key '", key, "': ", what));
}

absl::StatusOr<std::optional<int64_t>> GgufMetadata::Integer(absl::string_view key, int64_t low,
                                                             int64_t high) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::optional<int64_t>();
  int64_t number = 0;
  if (const auto* i = std::get_if<int64_t>(&value->data)) {
    number = *i;
  } else if (const auto* u = std::get_if<uint64_t>(&value->data)) {
    if (*u > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Error(key, absl::StrCat(*u, " is out of range"));
    }
    number = static_cast<int64_t>(*u);
  } else {
    return Error(key, WrongType(*value, "an integer"));
  }
  if (number < low || number > high) {
    return Error(key, absl::StrCat(number, " is not in [", low, ", ", high, "]"));
  }
  return std::optional<int64_t>(number);
}

absl::StatusOr<std::optional<double>> GgufMetadata::Float(absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::optional<double>();
  const auto* number = std::get_if<double>(&value->data);
  if (number == nullptr) return Error(key, WrongType(*value, "a float"));
  if (!std::isfinite(*number)) return Error(key, "is not a finite number");
  return std::optional<double>(*number);
}

absl::StatusOr<std::optional<bool>> GgufMetadata::Bool(absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::optional<bool>();
  const auto* flag = std::get_if<bool>(&value->data);
  if (flag == nullptr) return Error(key, WrongType(*value, "a bool"));
  return std::optional<bool>(*flag);
}

absl::StatusOr<std::optional<std::string>> GgufMetadata::String(absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::optional<std::string>();
  const auto* text = std::get_if<absl::string_view>(&value->data);
  if (text == nullptr) return Error(key, WrongType(*value, "a string"));
  return std::optional<std::string>(std::string(*text));
}

absl::StatusOr<std::optional<std::vector<absl::string_view>>> GgufMetadata::Strings(
    absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::optional<std::vector<absl::string_view>>();
  const auto* array = std::get_if<GgufArray>(&value->data);
  if (array == nullptr) return Error(key, WrongType(*value, "an array of strings"));
  auto strings = GgufStrings(*array);
  if (!strings.ok()) return Error(key, strings.status().message());
  return std::optional<std::vector<absl::string_view>>(*std::move(strings));
}

absl::StatusOr<std::optional<std::vector<int64_t>>> GgufMetadata::Integers(
    absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::optional<std::vector<int64_t>>();
  const auto* array = std::get_if<GgufArray>(&value->data);
  if (array == nullptr) return Error(key, WrongType(*value, "an array of integers"));
  auto integers = GgufIntegers(*array);
  if (!integers.ok()) return Error(key, integers.status().message());
  return std::optional<std::vector<int64_t>>(*std::move(integers));
}

absl::StatusOr<std::optional<std::vector<float>>> GgufMetadata::Floats(
    absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::optional<std::vector<float>>();
  const auto* array = std::get_if<GgufArray>(&value->data);
  if (array == nullptr) return Error(key, WrongType(*value, "an array of floats"));
  auto floats = GgufFloats(*array);
  if (!floats.ok()) return Error(key, floats.status().message());
  return std::optional<std::vector<float>>(*std::move(floats));
}

}  // namespace millrace
