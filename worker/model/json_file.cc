#include "worker/model/json_file.h"

#include <cmath>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "worker/weights/file_reader.h"

namespace millrace {

using nlohmann::json;

absl::StatusOr<json> ParseJsonObject(const std::string& file, absl::string_view text) {
  std::set<std::string> keys;
  std::string twice;
  auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth == 1 && event == json::parse_event_t::key) {
      std::string key = parsed.get<std::string>();
      if (!keys.insert(key).second) twice = std::move(key);
    }
    return true;
  };
  json parsed = json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) {
    return absl::DataLossError(absl::StrCat(file, ": not valid JSON (cut short or damaged)"));
  }
  if (!parsed.is_object()) {
    return absl::DataLossError(
        absl::StrCat(file, ": a ", parsed.type_name(), " where a JSON object is expected"));
  }
  if (!twice.empty()) {
    return absl::DataLossError(absl::StrCat(file, ": '", twice, "' appears twice"));
  }
  return parsed;
}

absl::StatusOr<json> ReadJsonObject(const std::string& path) {
  MILLRACE_ASSIGN_OR_RETURN(std::unique_ptr<FileReader> reader, OpenMappedFile(path));
  const absl::Span<const std::byte> bytes = reader->Map();
  return ParseJsonObject(
      path, absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

JsonFields::JsonFields(std::string file, const json& object)
    : file_(std::move(file)), object_(&object) {
  MILLRACE_CHECK(object.is_object());
}

std::string JsonFields::Where(absl::string_view key) const {
  return absl::StrCat(file_, ": '", prefix_, key, "': ");
}

absl::Status JsonFields::Error(absl::string_view key, absl::string_view what) const {
  return absl::DataLossError(absl::StrCat(Where(key), what));
}

absl::Status JsonFields::Unimplemented(absl::string_view key, absl::string_view what) const {
  return absl::UnimplementedError(absl::StrCat(Where(key), what));
}

const json* JsonFields::Find(absl::string_view key) const {
  auto it = object_->find(std::string(key));
  return it == object_->end() || it->is_null() ? nullptr : &*it;
}

absl::StatusOr<std::optional<int64_t>> JsonFields::Integer(absl::string_view key, int64_t low,
                                                           int64_t high) const {
  const json* value = Find(key);
  if (value == nullptr) return std::optional<int64_t>();
  if (!value->is_number_integer()) {
    return Error(key, absl::StrCat("is a ", value->type_name(), ", expected an integer"));
  }
  const bool too_large =
      value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  const int64_t number = too_large ? INT64_MAX : value->get<int64_t>();
  if (too_large || number < low || number > high) {
    return Error(key, absl::StrCat(value->dump(), " is not in [", low, ", ", high, "]"));
  }
  return std::optional<int64_t>(number);
}

absl::StatusOr<int64_t> JsonFields::RequiredInteger(absl::string_view key, int64_t low,
                                                    int64_t high) const {
  MILLRACE_ASSIGN_OR_RETURN(std::optional<int64_t> value, Integer(key, low, high));
  if (!value) return Error(key, "is missing");
  return *value;
}

absl::StatusOr<std::optional<double>> JsonFields::Number(absl::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return std::optional<double>();
  if (!value->is_number()) {
    return Error(key, absl::StrCat("is a ", value->type_name(), ", expected a number"));
  }
  const double number = value->get<double>();
  if (!std::isfinite(number)) return Error(key, "is not a finite number");
  return std::optional<double>(number);
}

absl::StatusOr<std::optional<bool>> JsonFields::Bool(absl::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return std::optional<bool>();
  if (!value->is_boolean()) {
    return Error(key, absl::StrCat("is a ", value->type_name(), ", expected true or false"));
  }
  return std::optional<bool>(value->get<bool>());
}

absl::StatusOr<std::optional<std::string>> JsonFields::String(absl::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return std::optional<std::string>();
  if (!value->is_string()) {
    return Error(key, absl::StrCat("is a ", value->type_name(), ", expected a string"));
  }
  return std::optional<std::string>(value->get<std::string>());
}

absl::StatusOr<std::optional<JsonFields>> JsonFields::Object(absl::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return std::optional<JsonFields>();
  if (!value->is_object()) {
    return Error(key, absl::StrCat("is a ", value->type_name(), ", expected an object"));
  }
  JsonFields inner(file_, *value);
  inner.prefix_ = absl::StrCat(prefix_, key, ".");
  return std::optional<JsonFields>(std::move(inner));
}

}  // namespace millrace
