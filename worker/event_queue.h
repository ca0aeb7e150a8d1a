// EventQueue: the bounded queue between the engine and one client's stream, so that a slow client
// never holds up a pass.
#ifndef MILLRACE_WORKER_EVENT_QUEUE_H_
#define MILLRACE_WORKER_EVENT_QUEUE_H_

#include <deque>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace millrace {

// Thread-safe; made for one producer and one consumer.
template <typename T>
class EventQueue {
 public:
  explicit EventQueue(size_t capacity) : capacity_(capacity) {}

  // Never blocks. False when the queue is full (then overflowed() stays true) or closed.
  bool Push(T item) {
    absl::MutexLock lock(&mu_);
    if (closed_) return false;
    if (items_.size() >= capacity_) {
      overflowed_ = true;
      return false;
    }
    items_.push_back(std::move(item));
    return true;
  }

  // The next item, or nothing after `timeout` or when the queue is closed and empty.
  std::optional<T> Pop(absl::Duration timeout) {
    absl::MutexLock lock(&mu_);
    const auto ready = [this]()
                           ABSL_SHARED_LOCKS_REQUIRED(mu_) { return closed_ || !items_.empty(); };
    mu_.AwaitWithTimeout(absl::Condition(&ready), timeout);
    if (items_.empty()) return std::nullopt;
    T item = std::move(items_.front());
    items_.pop_front();
    return item;
  }

  // No Push succeeds any more; what is queued can still be popped.
  void Close() {
    absl::MutexLock lock(&mu_);
    closed_ = true;
  }

  bool drained() const {
    absl::MutexLock lock(&mu_);
    return closed_ && items_.empty();
  }
  bool overflowed() const {
    absl::MutexLock lock(&mu_);
    return overflowed_;
  }

 private:
  const size_t capacity_;
  mutable absl::Mutex mu_;
  std::deque<T> items_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  bool overflowed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_EVENT_QUEUE_H_
