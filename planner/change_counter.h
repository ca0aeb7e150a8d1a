// ChangeCounter: lets threads wait for the next change of something.
#ifndef MILLRACE_PLANNER_CHANGE_COUNTER_H_
#define MILLRACE_PLANNER_CHANGE_COUNTER_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace millrace {

// Thread-safe. A waiter that is slow sees many changes as one.
class ChangeCounter {
 public:
  void Bump() {
    absl::MutexLock lock(&mu_);
    ++count_;
  }

  int64_t count() const {
    absl::MutexLock lock(&mu_);
    return count_;
  }

  // False when nothing has changed since `seen` until then.
  bool AwaitAfter(int64_t seen, absl::Time deadline) const {
    absl::MutexLock lock(&mu_);
    const auto changed = [this, seen]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return count_ != seen; };
    return mu_.AwaitWithDeadline(absl::Condition(&changed), deadline);
  }

 private:
  mutable absl::Mutex mu_;
  int64_t count_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_CHANGE_COUNTER_H_
