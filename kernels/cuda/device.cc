#include "kernels/cuda/device.h"

#include <cuda_runtime_api.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/status.h"

namespace millrace::cuda {
namespace {

absl::StatusOr<DeviceInfo> Describe(int index) {
  MILLRACE_ASSIGN_OR_RETURN(const ScopedDevice scope, ScopedDevice::Create(index));
  cudaDeviceProp properties;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaGetDeviceProperties(&properties, index));
  size_t free_bytes = 0, total_bytes = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaMemGetInfo(&free_bytes, &total_bytes));
  char pci[32] = {};
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaDeviceGetPCIBusId(pci, sizeof(pci), index));
  DeviceInfo info;
  info.index = index;
  info.name = properties.name;
  info.total_memory = Bytes(static_cast<int64_t>(total_bytes));
  info.free_memory = Bytes(static_cast<int64_t>(free_bytes));
  info.sm = 10 * properties.major + properties.minor;
  info.multiprocessors = properties.multiProcessorCount;
  info.pci = pci;
  return info;
}

}  // namespace

DeviceList ListDevices() {
  DeviceList list;
  int count = 0;
  if (absl::Status s = MILLRACE_CUDA_STATUS(cudaGetDeviceCount(&count)); !s.ok()) {
    list.reason = std::string(s.message());
    return list;
  }
  if (count == 0) list.reason = "the CUDA driver lists no device";
  for (int i = 0; i < count; ++i) {
    absl::StatusOr<DeviceInfo> info = Describe(i);
    if (info.ok()) {
      list.devices.push_back(*std::move(info));
    } else {
      absl::StrAppend(&list.reason, list.reason.empty() ? "" : "; ", "gpu", i, ": ",
                      info.status().message());
    }
  }
  return list;
}

absl::StatusOr<ScopedDevice> ScopedDevice::Create(int device) {
  int previous = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaGetDevice(&previous));
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaSetDevice(device));
  return ScopedDevice(previous);
}

ScopedDevice::ScopedDevice(ScopedDevice&& other) noexcept
    : previous_(std::exchange(other.previous_, -1)) {}

ScopedDevice::~ScopedDevice() {
  if (previous_ >= 0) (void)cudaSetDevice(previous_);
}

}  // namespace millrace::cuda
