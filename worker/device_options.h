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
  int index = 0;                // of the hardware: 1 for "gpu1" and "gpu1#1"; 0 for a CPU
  DeviceId id;                  // "cpu", "gpu0"; "cpu#1", "gpu0#1" for the second of the same
  std::optional<Bytes> budget;  // nothing: the host's budget, or what is free on a GPU
};

// "cpu", "cpu:64MiB,cpu:32MiB", "gpu0:20GiB,gpu0:20GiB,cpu". Hardware that is named again is one
// more logical device with a budget of its own. "auto" gives an empty list: AutoDevices, once it is
// known what there is. InvalidArgument quotes the part that is wrong.
absl::StatusOr<std::vector<DeviceOption>> ParseDevices(absl::string_view text);

// All `gpus` GPUs if there are any, else the CPU.
std::vector<DeviceOption> AutoDevices(int gpus);

}  // namespace millrace

#endif  // MILLRACE_WORKER_DEVICE_OPTIONS_H_
