#include "planner/query_turns.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace millrace {

QueryTurns::Turn::~Turn() {
  if (turns_ == nullptr) return;
  absl::MutexLock lock(&turns_->mu_);
  --turns_->taken_;
}

absl::StatusOr<QueryTurns::Turn> QueryTurns::Take(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const auto free = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return taken_ < at_once_; };
  if (!free()) {
    if (waiting_ >= may_wait_) {
      return absl::ResourceExhaustedError(absl::StrCat("the planner answers ", at_once_,
                                                       " questions and ", waiting_,
                                                       " more wait; ask again later"));
    }
    ++waiting_;
    const bool came = mu_.AwaitWithDeadline(absl::Condition(&free), deadline);
    --waiting_;
    if (!came) {
      return absl::DeadlineExceededError(
          absl::StrCat("the planner was busy with ", at_once_,
                       " other questions until the deadline; allow more time or ask again later"));
    }
  }
  ++taken_;
  return Turn(this);
}

}  // namespace millrace
