// What a host's memory and CPU give beside a GPU: rates of reading, and the time of products with
// host-homed weights by the rows of a pass.
#ifndef MILLRACE_PLANNER_HOST_RATES_H_
#define MILLRACE_PLANNER_HOST_RATES_H_

#include <vector>

#include "planner/pass_simulator.h"
#include "proto/cluster_spec.h"

namespace millrace {

// Seconds per byte of Q4_K weights in a pass of `tokens` >= 1 rows. Linear in the rows between two
// points of the table; below the first point as there; beyond the last the line through the last
// two goes on, and never falls. `rates` has a point; rates below 1 MB/s count as that.
double CpuSecondsPerByte(const std::vector<CpuRate>& rates, int tokens);

// What the links to GPUs do while the CPU multiplies.
enum class LinkLoad { kIdle, kCopies };

// One product of `tokens` rows with a matrix of `elements` values in `bytes` on all threads of the
// CPU. Seconds. Beside copies one row's time is still that of an idle link: what it shares with them
// is memory, and sharing that is for the caller to count.
//
// With HostSpec::cpu_rates, of Q4_K, the time of one row goes by the matrix's bytes (it is bound by
// memory), and what more rows add goes by its values: for Q4_K both together are the table's time,
// for a wider type the same arithmetic is spread over more bytes.
//
// Without the table: for one row nothing, for more 2 x elements x tokens / CpuFlops; reading is
// then for the caller to count.
double CpuProductSeconds(const HostSpec& host, double bytes, double elements, int tokens,
                         LinkLoad link);

// Copies to `device` beside the host's CPU. Host memory gives at least what one row's products were
// measured to read.
HostRates RatesBeside(const HostSpec& host, const DeviceSpec& device);

// As many bytes from memory as take the link as long as `bytes` from disk do.
double FluidDiskBytes(const HostSpec& host, const HostRates& rates, double bytes);

// Sustained flops of one CPU thread where no one has measured: half of what 256-bit f32 units do.
inline constexpr double kDefaultFlopsPerThread = 50e9;

// Measured for the host, or for its CPU device, or kDefaultFlopsPerThread for each thread.
double CpuFlops(const HostSpec& host);

// True when products take equally long on both.
bool SameCpu(const HostSpec& a, const HostSpec& b);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_HOST_RATES_H_
