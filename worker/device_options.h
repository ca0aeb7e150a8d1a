// The --devices flag: which devices a worker offers, and how much of each.
#ifndef MILLRACE_WORKER_DEVICE_OPTIONS_H_
#define MILLRACE_WORKER_DEVICE_OPTIONS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/bytes.h"
#include "proto/cluster_spec.h"

namespace millrace {

struct DeviceOption {
  DeviceKind kind = DeviceKind::kCpu;
  DeviceId id;                  // "cpu", "cpu#1" for the second one, "gpu0"
  std::optional<Bytes> budget;  // nothing: the host's budget, or what is free on a GPU
};

// "cpu", "cpu:64MiB,cpu:32MiB", "gpu0:20GiB,cpu". InvalidArgument quotes the part that is wrong.
absl::StatusOr<std::vector<DeviceOption>> ParseDevices(absl::string_view text);

}  // namespace millrace

#endif  // MILLRACE_WORKER_DEVICE_OPTIONS_H_
