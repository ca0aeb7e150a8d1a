// What was measured once on a kind of GPU with one driver, kept in a folder of the user's.
#ifndef MILLRACE_WORKER_PROBE_CACHE_H_
#define MILLRACE_WORKER_PROBE_CACHE_H_

#include <string>

#include "absl/status/status.h"
#include "proto/device_times.h"

namespace millrace {

// ~/.cache/millrace of the user that runs this process; empty where there is no home.
std::string DefaultCacheFolder();

// The file for GPUs of `key` (GpuReport::key), of this version's kernels.
std::string DeviceTimesFile(const std::string& folder, const std::string& key);

// Not measured() where there is no such file, or none that can be read: measuring again mends it.
DeviceTimes ReadDeviceTimes(const std::string& folder, const std::string& key);

// Makes the folder. The file is there whole or not at all. Nothing for an empty folder or key. Internal
// names the file.
absl::Status WriteDeviceTimes(const std::string& folder, const std::string& key,
                              const DeviceTimes& times);

}  // namespace millrace

#endif  // MILLRACE_WORKER_PROBE_CACHE_H_
