// Strong identifiers. A WorkerId is never passed where a RequestId is wanted.
#ifndef MILLRACE_PROTO_IDS_H_
#define MILLRACE_PROTO_IDS_H_

#include <compare>
#include <cstdint>
#include <string>
#include <utility>

namespace millrace {

// A string with a type. `Tag` is only a name.
template <typename Tag>
class StringId {
 public:
  StringId() = default;
  explicit StringId(std::string value) : value_(std::move(value)) {}
  const std::string& value() const { return value_; }
  bool empty() const { return value_.empty(); }
  auto operator<=>(const StringId&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const StringId& id) {
    return H::combine(std::move(h), id.value_);
  }

 private:
  std::string value_;
};

using WorkerId = StringId<struct WorkerIdTag>;    // "worker-0": unique within a cluster
using DeviceId = StringId<struct DeviceIdTag>;    // "gpu0" or "cpu": unique within a worker
using RequestId = StringId<struct RequestIdTag>;  // one generation, unique within a cluster

using TokenId = int32_t;  // index into the vocabulary

// Version of a placement: strictly increasing per cluster. Workers refuse older ones.
struct Epoch {
  int64_t value = 0;
  auto operator<=>(const Epoch&) const = default;
};

}  // namespace millrace

#endif  // MILLRACE_PROTO_IDS_H_
