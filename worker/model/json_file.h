// JSON files with errors that name file and key.
#ifndef MILLRACE_WORKER_MODEL_JSON_FILE_H_
#define MILLRACE_WORKER_MODEL_JSON_FILE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace millrace {

// Parses `text`. DataLoss: not JSON, not an object at the top, or a key of the top object twice.
absl::StatusOr<nlohmann::json> ParseJsonObject(const std::string& file, absl::string_view text);
// The whole file; NotFound when there is none.
absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& path);

// Reads fields of one object. Absent and null give nullopt; the wrong type or range DataLoss.
// A view: `object` must outlive it.
class JsonFields {
 public:
  JsonFields(std::string file, const nlohmann::json& object);

  const nlohmann::json* Find(absl::string_view key) const;  // nullptr when absent or null
  absl::StatusOr<std::optional<int64_t>> Integer(absl::string_view key, int64_t low,
                                                 int64_t high) const;
  absl::StatusOr<int64_t> RequiredInteger(absl::string_view key, int64_t low, int64_t high) const;
  absl::StatusOr<std::optional<double>> Number(absl::string_view key) const;  // finite
  absl::StatusOr<std::optional<bool>> Bool(absl::string_view key) const;
  absl::StatusOr<std::optional<std::string>> String(absl::string_view key) const;
  // The object under `key`; messages then say "key.inner".
  absl::StatusOr<std::optional<JsonFields>> Object(absl::string_view key) const;

  const std::string& file() const { return file_; }
  absl::Status Error(absl::string_view key, absl::string_view what) const;
  absl::Status Unimplemented(absl::string_view key, absl::string_view what) const;

 private:
  std::string Where(absl::string_view key) const;

  std::string file_;
  std::string prefix_;  // "rope_parameters."
  const nlohmann::json* object_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_JSON_FILE_H_
