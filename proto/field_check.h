// FieldCheck: collects the first bad field of a message while it is converted. Used by proto/*.cc
// and the services; a value is read through it so that no check is forgotten.
#ifndef MILLRACE_PROTO_FIELD_CHECK_H_
#define MILLRACE_PROTO_FIELD_CHECK_H_

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/bytes.h"

namespace millrace {

// Not thread-safe. `status()` is InvalidArgument naming the first field that was refused.
class FieldCheck {
 public:
  const absl::Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }

  template <typename... Parts>
  void Refuse(const std::string& field, const Parts&... why) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(field, ": ", why...));
  }

  // `value` if low <= value <= high, else `low` and the field is refused.
  int64_t Int(const std::string& field, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return value;
    Refuse(field, value, " is not in [", low, ", ", high, "]");
    return low;
  }
  int Int32(const std::string& field, int64_t value, int low,
            int high = std::numeric_limits<int>::max()) {
    return static_cast<int>(Int(field, value, low, high));
  }
  // Sums of sizes stay far from overflow: at most 2^53 bytes each.
  Bytes Size(const std::string& field, int64_t value) {
    return Bytes(Int(field, value, 0, int64_t{1} << 53));
  }
  double NonNegative(const std::string& field, double value) {
    if (std::isfinite(value) && value >= 0) return value;
    Refuse(field, value, " is not a finite number of at least 0");
    return 0;
  }
  std::string Name(const std::string& field, const std::string& value) {
    if (value.empty()) Refuse(field, "must not be empty");
    if (value.size() > 1024) Refuse(field, "is longer than 1024 bytes");
    return value;
  }

 private:
  absl::Status status_;
};

}  // namespace millrace

#endif  // MILLRACE_PROTO_FIELD_CHECK_H_
