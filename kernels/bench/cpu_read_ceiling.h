// The DRAM read ceiling that the CPU products are measured against.
#ifndef MILLRACE_KERNELS_BENCH_CPU_READ_CEILING_H_
#define MILLRACE_KERNELS_BENCH_CPU_READ_CEILING_H_

#include "absl/types/span.h"
#include "kernels/thread_pool.h"

namespace millrace {

// GB/s (1e9 bytes) at which all threads of `pool` together read `buffer`, each its own contiguous
// share with software prefetch 4 KiB ahead; the best of some rounds. `buffer` must have been
// written and be far larger than the last-level cache.
double CpuReadCeiling(absl::Span<const std::byte> buffer, ThreadPool& pool);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_BENCH_CPU_READ_CEILING_H_
