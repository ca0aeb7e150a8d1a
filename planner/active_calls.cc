#include "planner/active_calls.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {

ActiveCall::~ActiveCall() {
  absl::MutexLock lock(&calls_->mu_);
  calls_->calls_.erase(this);
}

absl::Status ActiveCall::ended() const {
  absl::MutexLock lock(&calls_->mu_);
  return ended_;
}

std::unique_ptr<ActiveCall> ActiveCalls::Begin(std::unique_ptr<grpc::ClientContext> context,
                                               RequestId request, std::vector<WorkerId> workers) {
  std::unique_ptr<ActiveCall> call(
      new ActiveCall(this, std::move(context), std::move(request), std::move(workers)));
  absl::MutexLock lock(&mu_);
  call->ended_ = stopped_;
  if (!stopped_.ok()) call->context_->TryCancel();
  calls_.insert(call.get());
  return call;
}

void ActiveCalls::Lose(const WorkerId& worker, const std::string& reason) {
  absl::MutexLock lock(&mu_);
  for (ActiveCall* call : calls_) {
    const auto& needs = call->workers_;
    if (std::find(needs.begin(), needs.end(), worker) == needs.end() || !call->ended_.ok()) {
      continue;
    }
    call->ended_ =
        absl::UnavailableError(absl::StrCat("worker '", worker.value(), "' is gone: ", reason));
    call->context_->TryCancel();
  }
}

void ActiveCalls::EndAll(const absl::Status& status, bool generations_only, bool for_good) {
  absl::MutexLock lock(&mu_);
  if (for_good) stopped_ = status;
  for (ActiveCall* call : calls_) {
    if (!call->ended_.ok() || (generations_only && call->request_.empty())) continue;
    call->ended_ = status;
    call->context_->TryCancel();
  }
}

void ActiveCalls::Cancel(const RequestId& request) {
  absl::MutexLock lock(&mu_);
  for (ActiveCall* call : calls_) {
    if (call->request_ != request || !call->ended_.ok()) continue;
    call->ended_ = absl::CancelledError("the generation was cancelled");
    call->context_->TryCancel();
  }
}

bool ActiveCalls::Has(const RequestId& request) const {
  absl::MutexLock lock(&mu_);
  return std::any_of(calls_.begin(), calls_.end(),
                     [&](ActiveCall* call) { return call->request_ == request; });
}

int ActiveCalls::generations() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(std::count_if(calls_.begin(), calls_.end(),
                                        [](ActiveCall* call) { return !call->request_.empty(); }));
}

}  // namespace millrace
