// TraceFile: the passes of a run as a Chrome trace (Perfetto opens it too), one lane per stage.
// Format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
#ifndef MILLRACE_TOOLS_TRACE_FILE_H_
#define MILLRACE_TOOLS_TRACE_FILE_H_

#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "proto/placement_plan.h"
#include "worker/engine.h"

namespace millrace {

// Thread-safe.
class TraceFile {
 public:
  void Add(const PassTrace& pass);
  // Complete events in microseconds from the first pass; a pass's stages run one after the other.
  std::string Json(const PlacementPlan& plan) const;

 private:
  mutable absl::Mutex mutex_;
  std::vector<PassTrace> passes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace

#endif  // MILLRACE_TOOLS_TRACE_FILE_H_
