// ProbeHost: what this machine can hold and how fast it is, measured in about a second, and half of
// that again per GPU; with measure_times up to 20 seconds more per GPU.
#ifndef MILLRACE_WORKER_PROBE_H_
#define MILLRACE_WORKER_PROBE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/cluster_spec.h"
#include "worker/device_options.h"
#include "worker/probe_cuda.h"

namespace millrace {

struct ProbeOptions {
  WorkerId worker;
  int threads = 0;                    // 0 = UsableThreads()
  std::optional<Bytes> host_memory;   // budget; nothing: what is available now
  std::vector<DeviceOption> devices;  // empty: AutoDevices
  GpuSource gpus = CudaGpus();
  // Where what a GPU takes for the pieces of a pass is kept (worker/probe_cache.h); empty: nowhere.
  std::string cache_folder;
  bool measure_times = false;  // now, and kept there; else what is there is used
};

// The address is left empty. The first CPU device's overhead is what this process has taken when
// the probe is done; whoever starts threads and servers later measures it again (ResidentBytes). The
// first logical device of a GPU carries what CUDA takes there. A GPU device without a budget gets
// its share of what is free, less kGpuHeadroom and the budgets given to others on the same hardware.
// InvalidArgument names the flag: a budget above the memory there is or below what the process
// itself takes, a GPU that is not there (the message lists what there is, or says why nothing: no
// driver, a build without CUDA).
absl::StatusOr<HostSpec> ProbeHost(const ProbeOptions& options);

// Sets what the process takes by itself, on the device that carries it; no CPU device, no change.
void SetProcessOverhead(HostSpec& host, Bytes overhead);

}  // namespace millrace

#endif  // MILLRACE_WORKER_PROBE_H_
