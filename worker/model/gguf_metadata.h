// GgufMetadata: a file's key-value pairs with typed access.
#ifndef MILLRACE_WORKER_MODEL_GGUF_METADATA_H_
#define MILLRACE_WORKER_MODEL_GGUF_METADATA_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/model/gguf_value.h"

namespace millrace {

// Keys that are absent give nullopt; keys of the wrong type or out of range give DataLoss that
// names file and key. Views stay valid as long as the file they were read from.
class GgufMetadata {
 public:
  explicit GgufMetadata(std::string file) : file_(std::move(file)) {}

  // False when the key is there already.
  bool Insert(absl::string_view key, GgufValue value);
  const GgufValue* Find(absl::string_view key) const;
  const std::map<std::string, GgufValue, std::less<>>& all() const { return values_; }
  const std::string& file() const { return file_; }

  // Any integer type whose value lies in [low, high].
  absl::StatusOr<std::optional<int64_t>> Integer(absl::string_view key, int64_t low,
                                                 int64_t high) const;
  absl::StatusOr<std::optional<double>> Float(absl::string_view key) const;  // finite
  absl::StatusOr<std::optional<bool>> Bool(absl::string_view key) const;
  absl::StatusOr<std::optional<std::string>> String(absl::string_view key) const;
  absl::StatusOr<std::optional<std::vector<absl::string_view>>> Strings(
      absl::string_view key) const;
  absl::StatusOr<std::optional<std::vector<int64_t>>> Integers(absl::string_view key) const;
  absl::StatusOr<std::optional<std::vector<float>>> Floats(absl::string_view key) const;

  // DataLoss "FILE: key 'KEY': WHAT".
  absl::Status Error(absl::string_view key, absl::string_view what) const;

 private:
  std::string file_;
  std::map<std::string, GgufValue, std::less<>> values_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_GGUF_METADATA_H_
