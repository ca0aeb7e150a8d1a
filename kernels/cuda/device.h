// What CUDA devices there are, and choosing one for a scope.
#ifndef MILLRACE_KERNELS_CUDA_DEVICE_H_
#define MILLRACE_KERNELS_CUDA_DEVICE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/bytes.h"

namespace millrace::cuda {

struct DeviceInfo {
  int index = 0;
  std::string name;
  Bytes total_memory;
  Bytes free_memory;  // as the driver reports it after this process has its context there
  int sm = 0;         // compute capability, 90 for 9.0
  int multiprocessors = 0;
  std::string pci;  // "0000:1b:00.0"
};

struct DeviceList {
  std::vector<DeviceInfo> devices;
  std::string reason;  // why `devices` is empty or misses one; empty when nothing is missing
};

// Never fails: no driver, no device or a device in use by another process exclusively leaves a
// shorter list and a reason. Reading free memory opens a context on each device (about 0.5 GiB
// there).
DeviceList ListDevices();

// Makes `device` current on this thread until it dies, then the device that was current before.
class ScopedDevice {
 public:
  static absl::StatusOr<ScopedDevice> Create(int device);
  ScopedDevice(ScopedDevice&& other) noexcept;
  ScopedDevice& operator=(ScopedDevice&&) = delete;
  ~ScopedDevice();

 private:
  explicit ScopedDevice(int previous) : previous_(previous) {}
  int previous_;  // -1: nothing to restore
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_DEVICE_H_
