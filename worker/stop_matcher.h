// StopMatcher: watches a stream of text for stop strings, and lets text through only when it cannot
// be part of one any more.
#ifndef MILLRACE_WORKER_STOP_MATCHER_H_
#define MILLRACE_WORKER_STOP_MATCHER_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace millrace {

class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);

  // Adds text; returns what may be shown. Once a stop string is complete, `stopped()` is true, what
  // came before it has been returned, and the rest is dropped.
  std::string Push(absl::string_view text);
  // The end of the stream: what is still held back.
  std::string Finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STOP_MATCHER_H_
