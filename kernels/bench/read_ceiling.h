// What a plain kernel reads from device memory per second: the ceiling benchmarks measure against.
#ifndef MILLRACE_KERNELS_BENCH_READ_CEILING_H_
#define MILLRACE_KERNELS_BENCH_READ_CEILING_H_

#include "absl/status/statusor.h"
#include "kernels/cuda/buffers.h"

namespace millrace {

// GB/s (1e9 bytes), best of ten reads of the whole buffer, which is far larger than the L2 cache.
absl::StatusOr<double> ReadCeiling(const cuda::DeviceBuffer& buffer, cuda::StreamView stream);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_BENCH_READ_CEILING_H_
