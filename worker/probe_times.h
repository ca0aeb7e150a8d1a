// MeasureDeviceTimes: what a device takes for the pieces of a pass.
#ifndef MILLRACE_WORKER_PROBE_TIMES_H_
#define MILLRACE_WORKER_PROBE_TIMES_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "proto/device_times.h"
#include "proto/ids.h"
#include "worker/backend/backend.h"

namespace millrace {

struct TimingOptions {
  DeviceId device = DeviceId("gpu0");
  Bytes room;  // that may be taken on the device, context not counted
  // Shapes too large for the room are left out; less than 3 GiB is ResourceExhausted.
  std::function<absl::StatusOr<std::unique_ptr<Backend>>(const ModelSpec&, const BackendOptions&)>
      make;
};

// Feed-forward halves of small, 8B and 70B models in the types that models come in, from 1 to 2048
// rows; attention of 1 to 32 sequences and of a prompt; passes. Weights are random. In seconds: up to
// 20 on the reference machine. Errors are the backend's.
absl::StatusOr<DeviceTimes> MeasureDeviceTimes(const TimingOptions& options);

}  // namespace millrace

#endif  // MILLRACE_WORKER_PROBE_TIMES_H_
