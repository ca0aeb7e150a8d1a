// ActiveCalls: the calls that the planner has under way on workers, so that the loss of a worker, a
// cancel or a stop ends every call that depends on it, with the reason.
#ifndef MILLRACE_PLANNER_ACTIVE_CALLS_H_
#define MILLRACE_PLANNER_ACTIVE_CALLS_H_

#include <grpcpp/client_context.h>

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "proto/ids.h"

namespace millrace {

class ActiveCalls;

// One call. Owned by the thread that makes it; ends its registration when destroyed.
class ActiveCall {
 public:
  ~ActiveCall();
  ActiveCall(const ActiveCall&) = delete;
  ActiveCall& operator=(const ActiveCall&) = delete;

  grpc::ClientContext& context() { return *context_; }
  // OK while nothing has ended it from here; else why.
  absl::Status ended() const;

 private:
  friend class ActiveCalls;
  ActiveCall(ActiveCalls* calls, std::unique_ptr<grpc::ClientContext> context, RequestId request,
             std::vector<WorkerId> workers)
      : calls_(calls),
        context_(std::move(context)),
        request_(std::move(request)),
        workers_(std::move(workers)) {}

  ActiveCalls* const calls_;
  const std::unique_ptr<grpc::ClientContext> context_;
  const RequestId request_;  // empty: not a generation
  const std::vector<WorkerId> workers_;
  absl::Status ended_;  // guarded by calls_->mu_
};

// Thread-safe. Outlives its calls.
class ActiveCalls {
 public:
  // `workers`: whose loss ends the call.
  std::unique_ptr<ActiveCall> Begin(std::unique_ptr<grpc::ClientContext> context, RequestId request,
                                    std::vector<WorkerId> workers);

  // Ends every call that needs `worker` with Unavailable, the message names it.
  void Lose(const WorkerId& worker, const std::string& reason);
  // Ends all calls (generations only, if asked) with `status`; new ones too if `for_good`.
  void EndAll(const absl::Status& status, bool generations_only, bool for_good);
  // Ends that generation with Cancelled.
  void Cancel(const RequestId& request);
  bool Has(const RequestId& request) const;
  int generations() const;

 private:
  friend class ActiveCall;
  mutable absl::Mutex mu_;
  std::set<ActiveCall*> calls_ ABSL_GUARDED_BY(mu_);
  absl::Status stopped_ ABSL_GUARDED_BY(mu_);
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_ACTIVE_CALLS_H_
