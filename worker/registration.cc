#include "worker/registration.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "proto/convert.h"
#include "proto/grpc_status.h"
#include "proto/grpc_transport.h"
#include "proto/protocol_version.h"

namespace millrace {
namespace {

constexpr absl::Duration kRetry = absl::Milliseconds(500);
constexpr absl::Duration kLeaveTimeout = absl::Seconds(1);

}  // namespace

Registration::Registration(Worker* worker, std::string planner, std::function<void(bool)> on_change)
    : worker_(worker),
      planner_(std::move(planner)),
      on_change_(std::move(on_change)),
      thread_([this] { Loop(); }) {}

Registration::~Registration() { Stop(); }

void Registration::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    // The loop sees it at its next heartbeat and says goodbye; if the planner does not answer, the
    // session is cut.
    if (!mu_.AwaitWithTimeout(absl::Condition(&ended_), kLeaveTimeout) && context_ != nullptr) {
      context_->TryCancel();
    }
  }
  if (thread_.joinable()) thread_.join();
}

bool Registration::stopping() const {
  absl::MutexLock lock(&mu_);
  return stopping_;
}

bool Registration::SleepUnlessStopped(absl::Duration duration) {
  absl::MutexLock lock(&mu_);
  return !mu_.AwaitWithTimeout(absl::Condition(&stopping_), duration);
}

void Registration::Loop() {
  std::string last_error;
  do {
    bool registered = false;
    const absl::Status status = HoldSession(registered);
    on_change_(false);
    if (registered) last_error.clear();
    if (!stopping() && last_error != status.message()) {  // said once, not twice a second
      last_error = std::string(status.message());
      spdlog::warn("not registered with planner {}: {}; trying again", planner_, last_error);
    }
  } while (SleepUnlessStopped(kRetry));
  absl::MutexLock lock(&mu_);
  ended_ = true;
}

// Has no deadline of its own: it lives as long as the membership. Keepalive and the planner's
// answers to heartbeats bound every wait in it.
absl::Status Registration::HoldSession(bool& registered) {
  const auto stub = v1::PlannerService::NewStub(MakeChannel(planner_));
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mu_);
    if (stopping_) return absl::OkStatus();
    context_ = &context;
  }
  const auto stream = stub->Session(&context);
  const auto finish = [&]() {
    const absl::Status status = FromGrpcStatus(stream->Finish());
    absl::MutexLock lock(&mu_);
    context_ = nullptr;
    return status.ok() ? absl::UnavailableError("the planner ended the session") : status;
  };
  v1::SessionRequest request;
  v1::RegisterWorker& hello = *request.mutable_register_();
  hello.set_protocol_version(kProtocolVersion);
  *hello.mutable_host() = ToProto(worker_->options().host);
  hello.set_highest_epoch(worker_->highest_epoch().value);
  hello.set_loaded_epoch(worker_->loaded_epoch().value);
  v1::SessionResponse response;
  if (!stream->Write(request) || !stream->Read(&response) || !response.has_registered()) {
    return finish();
  }
  const absl::Duration interval = absl::Milliseconds(response.registered().heartbeat_ms());
  spdlog::info("registered with planner {} as '{}', lease {} ms", planner_,
               worker_->options().host.worker.value(), response.registered().lease_ms());
  registered = true;
  on_change_(true);
  do {
    *request.mutable_heartbeat()->mutable_status() = worker_->Status();
    if (!stream->Write(request) || !stream->Read(&response)) return finish();
  } while (SleepUnlessStopped(interval));
  request.mutable_leave();
  stream->Write(request);
  stream->WritesDone();
  return finish();
}

}  // namespace millrace
