#include "kernels/cuda/driver_memory.h"

#include <dlfcn.h>

namespace millrace::cuda {
namespace {

// The few declarations of NVML that are needed; its header is not part of every toolkit.
// https://docs.nvidia.com/deploy/nvml-api/: 0 is success, handles are opaque.
using NvmlDevice = void*;
struct NvmlMemory {
  unsigned long long total, free, used;  // bytes
};

class Library {
 public:
  Library() : handle_(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {}
  ~Library() {
    if (handle_ != nullptr) dlclose(handle_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  template <typename Function>
  Function* Find(const char* name) const {
    return handle_ == nullptr ? nullptr : reinterpret_cast<Function*>(dlsym(handle_, name));
  }

 private:
  void* const handle_;
};

}  // namespace

std::optional<Bytes> DriverFreeMemory(const std::string& pci) {
  const Library library;
  const auto init = library.Find<int()>("nvmlInit_v2");
  const auto shutdown = library.Find<int()>("nvmlShutdown");
  const auto find = library.Find<int(const char*, NvmlDevice*)>("nvmlDeviceGetHandleByPciBusId_v2");
  const auto read = library.Find<int(NvmlDevice, NvmlMemory*)>("nvmlDeviceGetMemoryInfo");
  if (init == nullptr || shutdown == nullptr || find == nullptr || read == nullptr) {
    return std::nullopt;
  }
  if (init() != 0) return std::nullopt;
  NvmlDevice device = nullptr;
  NvmlMemory memory = {};
  const bool ok = find(pci.c_str(), &device) == 0 && read(device, &memory) == 0;
  shutdown();
  if (!ok) return std::nullopt;
  return Bytes(static_cast<int64_t>(memory.free));
}

}  // namespace millrace::cuda
