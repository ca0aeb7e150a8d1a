// Measured or declared capacity and speed of the machines a plan may use. Plain values.
#ifndef MILLRACE_PROTO_CLUSTER_SPEC_H_
#define MILLRACE_PROTO_CLUSTER_SPEC_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/bytes.h"
#include "proto/device_times.h"
#include "proto/ids.h"

namespace millrace {

enum class DeviceKind : uint8_t { kCpu, kGpu };

// One compute device of a worker. A CPU device's memory is the host's: what it uses counts against
// its own budget and against the host's. The same hardware may appear as several logical devices
// ("cpu", "cpu#1"), each with its own budget.
struct DeviceSpec {
  DeviceId id;  // "gpu0", "cpu", "cpu#1"
  DeviceKind kind = DeviceKind::kCpu;
  std::string name;  // "NVIDIA H200", "AMD EPYC, 2 cores, avx512"
  Bytes memory_total;
  Bytes budget;                // may be used, overhead included
  Bytes overhead;              // context, libraries, process image: taken before the first weight
  Bandwidth memory_bandwidth;  // HBM for a GPU, DRAM for a CPU: weights read per second at decode
  Bandwidth h2d_bandwidth;     // host to device; unused for a CPU
  double prefill_flops = 0;    // sustained multiply-adds x 2 per second in large matrix products
  // A GPU that multiplies large passes with quantised weights as they are: it needs no room for
  // dequantised ones. Plans leave them that room all the same unless all GPUs do: activations are
  // counted once for all.
  bool direct_products = false;
  DeviceTimes times{};  // of a GPU
};

// A measured point: products of `tokens` rows of x with Q4_K weights on all threads read this many
// bytes of weights per second, the links to all GPUs idle or busy with copies from memory.
struct CpuRate {
  int tokens = 1;
  Bandwidth weights;
  Bandwidth beside_copies{};  // zero: not measured
};

// One worker process on one host.
struct HostSpec {
  WorkerId worker;
  std::string address;  // "10.0.0.2:7601"; empty for the process itself
  Bytes memory_total;
  Bytes budget;              // host memory that may be used by this worker, all purposes
  Bandwidth dram_bandwidth;  // read by all threads, the link to any GPU idle
  // Sustained multiply-adds x 2 per second of the threads together in products of a batch with
  // weights; 0: not measured.
  double cpu_flops = 0;
  // By growing tokens; empty: not measured, dram_bandwidth and cpu_flops stand in.
  std::vector<CpuRate> cpu_rates;
  // Reads of the model's files past the page cache, several at a time. Zero: not measured, and no
  // weights are left on disk.
  Bandwidth disk_bandwidth{};
  int threads = 1;
  std::vector<DeviceSpec> devices;
};

// Cost of handing activations from one stage to the next.
struct LinkSpec {
  absl::Duration latency = absl::Microseconds(100);  // one way, per message
  Bandwidth bandwidth = Bandwidth::GBPerSecond(1);
};

struct ClusterSpec {
  std::vector<HostSpec> hosts;
  LinkSpec remote;                                                     // between workers
  LinkSpec local{absl::Microseconds(10), Bandwidth::GBPerSecond(10)};  // inside one worker
};

}  // namespace millrace

#endif  // MILLRACE_PROTO_CLUSTER_SPEC_H_
