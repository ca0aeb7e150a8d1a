#include "worker/link/stage_server.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/status_macros.h"
#include "worker/link/pass_messages.h"

namespace millrace {
namespace {

constexpr absl::Duration kTakeOverTimeout = absl::Seconds(3);

absl::Status StreamEnded() { return absl::CancelledError("the stage before closed the stream"); }

}  // namespace

StageServer::StageServer(std::unique_ptr<StageRunner> runner, Epoch epoch, int64_t d_model,
                         int64_t max_elements)
    : runner_(std::move(runner)), epoch_(epoch), d_model_(d_model), max_elements_(max_elements) {}

absl::Status StageServer::TakeOver(grpc::ServerContext* context) {
  absl::MutexLock lock(&mu_);
  if (current_ != nullptr) {
    current_->TryCancel();
    runner_->Cancel();
  }
  if (!mu_.AwaitWithTimeout(absl::Condition(
                                +[](StageServer* self) {
                                  self->mu_.AssertReaderHeld();
                                  return !self->serving_;
                                },
                                this),
                            kTakeOverTimeout)) {
    return absl::UnavailableError(
        absl::StrCat("stage ", stage(), " is still busy with a pass of an older stream"));
  }
  if (stopped_) {
    return absl::FailedPreconditionError(
        absl::StrCat("stage ", stage(), " of epoch ", epoch_.value, " is being unloaded"));
  }
  serving_ = true;
  current_ = context;
  return absl::OkStatus();
}

absl::Status StageServer::Serve(grpc::ServerContext* context, StageServerStream* stream) {
  MILLRACE_RETURN_IF_ERROR(TakeOver(context));
  v1::StageResponse ready;
  ready.mutable_ready();
  absl::Status status = stream->Write(ready) ? ServePasses(stream) : StreamEnded();
  absl::MutexLock lock(&mu_);
  serving_ = false;
  current_ = nullptr;
  return status;
}

absl::Status StageServer::ServePasses(StageServerStream* stream) {
  v1::StageRequest request;
  while (stream->Read(&request)) {
    if (!request.has_pass()) {
      return absl::InvalidArgumentError("StageRequest.message: expected `pass`");
    }
    bool in_step = true;  // the stream stands at a message boundary that both sides know
    absl::StatusOr<PassResult> result = RunPass(request.pass(), stream, in_step);
    if (!in_step) return result.status();
    passes_.fetch_add(1, std::memory_order_relaxed);
    v1::StageResponse response;
    if (!result.ok()) {
      v1::PassFailed& failed = *response.mutable_failed();
      failed.set_id(request.pass().id());
      failed.set_code(static_cast<int>(result.status().code()));
      failed.set_message(std::string(result.status().message()));
      if (!stream->Write(response)) return StreamEnded();
      continue;
    }
    result->id = request.pass().id();
    MILLRACE_RETURN_IF_ERROR(ForEachPart(*result, [&](const v1::PassResultPart& part) {
      *response.mutable_result() = part;
      return stream->Write(response) ? absl::OkStatus() : StreamEnded();
    }));
  }
  return absl::OkStatus();  // the other side is done with this stage
}

absl::StatusOr<PassResult> StageServer::RunPass(const v1::PassHeader& header,
                                                StageServerStream* stream, bool& in_step) {
  const absl::Time deadline = absl::Now() + absl::Milliseconds(header.timeout_ms());
  in_step = false;
  MILLRACE_ASSIGN_OR_RETURN(Pass pass, FromProto(header));
  if (pass.epoch != epoch_) {
    return absl::FailedPreconditionError(absl::StrCat("PassHeader.epoch: ", pass.epoch.value,
                                                      " where epoch ", epoch_.value, " is loaded"));
  }
  if (header.hidden_cols() != d_model_) {
    return absl::InvalidArgumentError(absl::StrCat("PassHeader.hidden_cols: ", header.hidden_cols(),
                                                   " where the model has ", d_model_));
  }
  HiddenAssembler hidden;
  MILLRACE_RETURN_IF_ERROR(hidden.Start(header.hidden_rows(), header.hidden_cols(), max_elements_));
  v1::StageRequest request;
  while (!hidden.complete()) {
    if (!stream->Read(&request)) return StreamEnded();
    if (!request.has_chunk()) {
      return absl::InvalidArgumentError("StageRequest.message: expected `chunk`");
    }
    MILLRACE_RETURN_IF_ERROR(hidden.Add(request.chunk()));
  }
  in_step = true;
  return runner_->Run(pass, hidden.view(), deadline);
}

void StageServer::Stop() {
  absl::MutexLock lock(&mu_);
  stopped_ = true;
  if (current_ != nullptr) current_->TryCancel();
  runner_->Cancel();
}

}  // namespace millrace
