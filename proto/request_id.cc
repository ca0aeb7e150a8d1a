#include "proto/request_id.h"

#include <cstdint>
#include <random>

#include "absl/strings/str_format.h"

namespace millrace {

RequestId NewRequestId() {
  std::random_device random;
  const uint64_t bits = (uint64_t{random()} << 32) | random();
  return RequestId(absl::StrFormat("req-%016x", bits));
}

}  // namespace millrace
