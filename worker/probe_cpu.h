// MeasureCpu: how fast the host's memory is read and how fast its threads multiply, over one buffer
// far larger than the last-level cache: weights that are read once per pass never come from there.
#ifndef MILLRACE_WORKER_PROBE_CPU_H_
#define MILLRACE_WORKER_PROBE_CPU_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "proto/bytes.h"
#include "proto/cluster_spec.h"

namespace millrace {

// Of HostSpec.
struct CpuSpeeds {
  Bandwidth dram_bandwidth;
  double cpu_flops = 0;            // the better of F16 products and of the table's last point
  std::vector<CpuRate> cpu_rates;  // at 1, 4, 8, 32, 128 and 256 tokens, never rising
};

// Copies from `from` to the GPUs go on until what is returned dies; null where there are none.
using UploadBeside = std::function<std::shared_ptr<void>(absl::Span<const std::byte> from)>;

// Within `buffer` bytes. About half a second, as long again with `upload`, and the time to touch the
// buffer. Where it holds less than 16 MiB of weights beside activations for 256 tokens there is no
// table.
CpuSpeeds MeasureCpu(int threads, Bytes buffer, const UploadBeside& upload = nullptr);

// Read by `threads` threads: the median of several passes over a buffer of `buffer` bytes, at least
// 0.1 s.
Bandwidth MeasureReadBandwidth(int threads, Bytes buffer);

// The last-level caches of all processors together; Bytes(0) where the system does not tell.
Bytes LastLevelCacheBytes();

// Eight last-level caches, so that at most an eighth of a pass is served from them, within 96 MiB
// and 4 GiB (64 MiB of cache where it is unknown), and at most half of `room`; at least 8 MiB.
Bytes ProbeBufferFor(Bytes cache, Bytes room);
// For this machine, of what `budget` leaves to this process and is available.
Bytes ProbeBuffer(Bytes budget);

// "AMD EPYC 9554, 2 threads, avx512"
std::string CpuDescription(int threads);

}  // namespace millrace

#endif  // MILLRACE_WORKER_PROBE_CPU_H_
