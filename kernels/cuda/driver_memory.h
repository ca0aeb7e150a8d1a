// Free memory of a device as the driver's management library counts it, without a CUDA context.
#ifndef MILLRACE_KERNELS_CUDA_DRIVER_MEMORY_H_
#define MILLRACE_KERNELS_CUDA_DRIVER_MEMORY_H_

#include <optional>
#include <string>

#include "proto/bytes.h"

namespace millrace::cuda {

// By PCI bus id ("0000:1b:00.0"). Nothing where libnvidia-ml.so.1 is missing or does not answer: it
// is opened at run time and closed again.
std::optional<Bytes> DriverFreeMemory(const std::string& pci);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_DRIVER_MEMORY_H_
