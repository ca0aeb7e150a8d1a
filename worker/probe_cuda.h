// GPUs as the probe sees them. Builds without CUDA have none and say so.
#ifndef MILLRACE_WORKER_PROBE_CUDA_H_
#define MILLRACE_WORKER_PROBE_CUDA_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/bytes.h"
#include "proto/device_times.h"

namespace millrace {

// Kept free beside the context for what CUDA takes later: kernels and modules are loaded when first
// used, cuBLAS brings its own where it is used. Part of a GPU's overhead, so that the ledger is an
// upper bound.
inline constexpr Bytes kCudaLibraryReserve = 600_MiB;
// Without cuBLAS: of 128 MiB, 108 to 119 were left in all runs of docs/plan-accuracy.md.
inline constexpr Bytes kCudaKernelReserve = 40_MiB;
// Left to others when a GPU's budget is not given.
inline constexpr Bytes kGpuHeadroom = 256_MiB;

struct GpuList {
  std::vector<std::string> names;  // by hardware index
  std::string reason;              // why there are none
};

struct GpuReport {
  std::string name;  // "NVIDIA H200"
  Bytes total;
  Bytes free;      // before this process took its context: what a budget may count on
  Bytes overhead;  // context and what CUDA takes later, upper bound
  Bandwidth memory_bandwidth;
  Bandwidth h2d_bandwidth;
  double prefill_flops = 0;
  bool direct_products = false;  // as in DeviceSpec
  std::string key;  // hardware and driver: what DeviceTimes are kept by; empty: never kept
  DeviceTimes times;  // filled in by ProbeHost
};

// Where the probe learns about GPUs: the CUDA runtime, or a test.
struct GpuSource {
  std::function<GpuList()> list;  // opens no context
  // Buffers for measuring take at most a quarter of `budget`: what the process may use of that GPU,
  // context included.
  std::function<absl::StatusOr<GpuReport>(int index, Bytes budget)> probe;
  // Copies from `from`, page-aligned, to that GPU without pause until what is returned dies. May be
  // empty.
  std::function<absl::StatusOr<std::shared_ptr<void>>(int index, absl::Span<const std::byte> from)>
      upload;
  // Sustained flops of large matrix products on that GPU, measured; replaces the report's estimate.
  // May be empty.
  std::function<absl::StatusOr<double>(int index)> measure_prefill_flops;
  // The pieces of a pass, within `room` of that GPU's memory beside the context. May be empty.
  std::function<absl::StatusOr<DeviceTimes>(int index, Bytes room)> measure_times;
};

// This machine's, through CUDA. Without CUDA in the build: an empty list with that reason, and
// Unimplemented from `probe`.
GpuSource CudaGpus();

// Free on that GPU now; gives this process a context there if it has none. Unimplemented: a build
// without CUDA.
absl::StatusOr<Bytes> FreeGpuMemory(int index);

// ESTIMATE, until the matrix engine measures: 70% of what the tensor cores of that compute
// capability can do with dense f16 and f32 accumulation. `sm`: 90 for 9.0.
double EstimatedPrefillFlops(int sm, int multiprocessors, double clock_hz);

}  // namespace millrace

#endif  // MILLRACE_WORKER_PROBE_CUDA_H_
