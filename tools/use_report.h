// UseReport: over some passes, how busy each resource of an offloaded stage was, what it moved, and why
// the copy engine stood still.
#ifndef MILLRACE_TOOLS_USE_REPORT_H_
#define MILLRACE_TOOLS_USE_REPORT_H_

#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/synchronization/mutex.h"
#include "worker/engine.h"

namespace millrace {

// Thread-safe.
class UseReport {
 public:
  void Add(const PassTrace& pass);
  // What follows is counted from nothing.
  void Reset();

  // By stage: for gpu, copy and cpu {"busy": share of the time from the first pass's begin to the last
  // one's end, "bytes", "gb_per_second"}; for copy also "stalls": cause to seconds. Empty where no
  // weights are in host memory.
  nlohmann::ordered_json Json() const;
  // One line a stage: "copies 47.1 GB/s, 93% busy; CPU 88% busy, 98.2 GB/s; GPU 12% busy".
  std::string Text() const;

 private:
  struct Sum {
    absl::Duration busy;
    Bytes bytes;
  };
  struct Stage {
    std::map<Resource, Sum> sums;
    StreamStats first, last;  // before the first pass counted, after the last
    bool any_copies = false;
  };
  mutable absl::Mutex mutex_;
  std::map<int, Stage> stages_ ABSL_GUARDED_BY(mutex_);
  std::map<int, StreamStats> before_ ABSL_GUARDED_BY(mutex_);
  absl::Time begin_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Time end_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace millrace

#endif  // MILLRACE_TOOLS_USE_REPORT_H_
