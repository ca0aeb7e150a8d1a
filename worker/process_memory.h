// What this process and this machine have in memory: /proc and the cgroup limits.
#ifndef MILLRACE_WORKER_PROCESS_MEMORY_H_
#define MILLRACE_WORKER_PROCESS_MEMORY_H_

#include "proto/bytes.h"

namespace millrace {

// Resident memory of this process, file pages included. Zero where /proc is missing.
Bytes ResidentBytes();

struct HostMemory {
  Bytes total;      // the machine's, or the cgroup's limit where that is lower
  Bytes available;  // without swapping, within the cgroup's limit
};
HostMemory MeasureHostMemory();

}  // namespace millrace

#endif  // MILLRACE_WORKER_PROCESS_MEMORY_H_
