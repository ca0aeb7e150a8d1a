// What a stage's resources did in a pass: for traces, and for telling what a run was bound by.
#ifndef MILLRACE_WORKER_RESOURCE_USE_H_
#define MILLRACE_WORKER_RESOURCE_USE_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/bytes.h"
#include "worker/stream/stream_stats.h"

namespace millrace {

enum class Resource : uint8_t {
  kGpu,   // the device had work of the pass, or waited for weights of it (the host's view)
  kCopy,  // host memory to the device
  kCpu,   // blocks computed by the CPU beside a GPU
};

struct BusySpan {
  int stage = 0;
  Resource resource = Resource::kGpu;
  absl::Time begin, end;
  std::string what;  // "blk.3.ffn"
  Bytes bytes;       // copied, or read by the CPU; 0 where not counted
};

// Copies of a stage since it was made.
struct StageCopies {
  int stage = 0;
  StreamStats stats;
};

// Of stages in this process; links do not carry it.
struct PassUse {
  std::vector<BusySpan> spans;
  std::vector<StageCopies> copies;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_RESOURCE_USE_H_
