// QueryTurns: a bound on questions that are planned for at a time, and on those that wait.
#ifndef MILLRACE_PLANNER_QUERY_TURNS_H_
#define MILLRACE_PLANNER_QUERY_TURNS_H_

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace millrace {

// Thread-safe. Outlives its turns.
class QueryTurns {
 public:
  QueryTurns(int at_once, int waiting) : at_once_(at_once), may_wait_(waiting) {}

  // A place among those that are answered, held until it dies.
  class Turn {
   public:
    explicit Turn(QueryTurns* turns) : turns_(turns) {}
    ~Turn();
    Turn(Turn&& other) noexcept : turns_(other.turns_) { other.turns_ = nullptr; }
    Turn& operator=(Turn&&) = delete;

   private:
    QueryTurns* turns_;
  };

  // ResourceExhausted: as many wait as may. DeadlineExceeded: none was free until then.
  absl::StatusOr<Turn> Take(absl::Time deadline);

 private:
  const int at_once_, may_wait_;
  absl::Mutex mu_;
  int taken_ ABSL_GUARDED_BY(mu_) = 0;
  int waiting_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_QUERY_TURNS_H_
