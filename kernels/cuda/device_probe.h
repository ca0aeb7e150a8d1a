// Capacity and speed of one CUDA device, measured in well under a second.
#ifndef MILLRACE_KERNELS_CUDA_DEVICE_PROBE_H_
#define MILLRACE_KERNELS_CUDA_DEVICE_PROBE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/bytes.h"

namespace millrace::cuda {

struct DeviceProbe {
  std::string name;
  int sm = 0;  // compute capability, 90 for 9.0
  int multiprocessors = 0;
  int driver = 0;       // the CUDA version that the driver brings, 13000 for 13.0
  double clock_hz = 0;  // the highest the multiprocessors run at
  Bytes total_memory;
  Bytes free_memory;  // after the probe: the context is there, the probe's buffers are not
  Bytes context;      // what this process's context takes, upper bound; see ContextBytes
  Bandwidth read;     // plain 16-byte loads over 1 GiB, or a quarter of what may be used
  Bandwidth upload;   // from pinned host memory
};

// Names in the driver's order, without opening a context; on failure an empty list and why.
struct DeviceNames {
  std::vector<std::string> names;
  std::string reason;
};
DeviceNames ListDeviceNames();

// Leaves this process with a context on that device and on no other, and the caller's current
// device as it was. Of `budget`, which the process may use there, and of what is free the buffers
// take at most a quarter, one at a time: beside them the context must fit. A buffer of 256 MiB, of
// a budget of 1 GiB, is still several times a second-level cache (50 MiB on an H200), whose hits
// make the rate some percent too high. Internal, ResourceExhausted: CUDA failed, the call named.
absl::StatusOr<DeviceProbe> ProbeDevice(int index, Bytes budget);

// Free on that device now, with this process's context on it: one is made where there is none. The
// caller's current device stays as it is. Errors as ProbeDevice's.
absl::StatusOr<Bytes> FreeMemory(int index);

// What ProbeDevice's buffers may take; at least 1 MiB: a budget that small has no room for a
// context.
Bytes BufferRoom(Bytes budget, Bytes free);

// What the context takes. `before` and `after`: what the driver's management library counted as
// free before and after the context was made, Bytes(-1) where it is not there. Their difference is
// the context if no other process allocated in between; it is believed when it is at least 64 MiB
// (a context that this process had before makes no difference). Otherwise total - free, which
// counts other processes too, but no more than what a context has been seen to take.
Bytes ContextBytes(Bytes before, Bytes after, Bytes total, Bytes free);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_DEVICE_PROBE_H_
