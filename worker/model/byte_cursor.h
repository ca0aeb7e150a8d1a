// ByteCursor: reads little-endian values one after another from bytes that cannot be trusted.
#ifndef MILLRACE_WORKER_MODEL_BYTE_CURSOR_H_
#define MILLRACE_WORKER_MODEL_BYTE_CURSOR_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace millrace {

// Every read is checked against what is left before it happens. Little-endian hosts only (checked
// at compile time where it matters: kernels read the same bytes in place).
class ByteCursor {
 public:
  explicit ByteCursor(absl::Span<const std::byte> bytes) : bytes_(bytes) {}

  uint64_t position() const { return position_; }
  uint64_t left() const { return bytes_.size() - position_; }

  // `field` names what is read, for the message.
  template <typename T>
  absl::StatusOr<T> Read(absl::string_view field) {
    if (left() < sizeof(T)) return Truncated(field, sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  absl::StatusOr<absl::Span<const std::byte>> Take(uint64_t count, absl::string_view field) {
    if (left() < count) return Truncated(field, count);
    absl::Span<const std::byte> taken = bytes_.subspan(position_, count);
    position_ += count;
    return taken;
  }

  // uint64 length, then that many bytes.
  absl::StatusOr<absl::string_view> ReadString(absl::string_view field) {
    absl::StatusOr<uint64_t> length = Read<uint64_t>(field);
    if (!length.ok()) return length.status();
    absl::StatusOr<absl::Span<const std::byte>> bytes = Take(*length, field);
    if (!bytes.ok()) return bytes.status();
    return absl::string_view(reinterpret_cast<const char*>(bytes->data()), bytes->size());
  }

 private:
  absl::Status Truncated(absl::string_view field, uint64_t need) const {
    return absl::DataLossError(absl::StrCat(field, ": needs ", need, " bytes at offset ", position_,
                                            ", but ", left(),
                                            " are left: the file is cut short or damaged"));
  }

  absl::Span<const std::byte> bytes_;
  uint64_t position_ = 0;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_BYTE_CURSOR_H_
