#include "worker/link/grpc_link.h"

#include <grpcpp/completion_queue.h>

#include <algorithm>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "millrace/v1/worker.grpc.pb.h"
#include "proto/grpc_status.h"
#include "proto/grpc_transport.h"
#include "proto/status_macros.h"
#include "worker/link/pass_messages.h"

namespace millrace {
namespace {

constexpr absl::Duration kOpenTimeout = absl::Seconds(4);

// One RunStage stream, driven one operation at a time: the completion queue gives every wait a
// deadline, which the synchronous stream API does not.
class StageStream {
 public:
  explicit StageStream(v1::WorkerService::Stub* stub) {
    rpc_ = stub->PrepareAsyncRunStage(&context_, &queue_);
  }
  ~StageStream() {
    context_.TryCancel();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {  // cancelled operations complete at once
    }
  }

  grpc::ClientContext& context() { return context_; }
  bool timed_out() const { return timed_out_; }

  bool Open(absl::Time deadline) {
    rpc_->StartCall(nullptr);
    return Wait(deadline);
  }
  bool Write(const v1::StageRequest& request, absl::Time deadline) {
    rpc_->Write(request, nullptr);
    return Wait(deadline);
  }
  bool Read(v1::StageResponse* response, absl::Time deadline) {
    rpc_->Read(response, nullptr);
    return Wait(deadline);
  }
  // After any of the above was false: why.
  absl::Status Finish() {
    if (timed_out_) return absl::DeadlineExceededError("no answer in time");
    grpc::Status status;
    rpc_->Finish(&status, nullptr);
    if (!Wait(absl::Now() + absl::Seconds(1))) return absl::UnavailableError("the stream is stuck");
    if (status.ok()) return absl::UnavailableError("it closed the stream");
    return FromGrpcStatus(status);
  }

 private:
  // False: the operation failed, or the deadline passed (then the stream is cancelled).
  bool Wait(absl::Time deadline) {
    void* tag = nullptr;
    bool ok = false;
    const absl::Time bounded = std::min(deadline, absl::Now() + absl::Hours(1));
    if (queue_.AsyncNext(&tag, &ok, absl::ToChronoTime(bounded)) !=
        grpc::CompletionQueue::GOT_EVENT) {
      timed_out_ = true;
      context_.TryCancel();
      return false;
    }
    return ok;
  }

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::ClientAsyncReaderWriter<v1::StageRequest, v1::StageResponse>> rpc_;
  bool timed_out_ = false;
};

// Threading: Forward by the stage's owner; Cancel by any thread, which touches only what mu_
// guards.
class GrpcLink : public StageLink {
 public:
  explicit GrpcLink(const GrpcLinkOptions& options)
      : options_(options),
        peer_(absl::StrCat("worker '", options.to.value(), "' (", options.address, ", stage ",
                           options.stage, ")")),
        channel_(MakeChannel(options.address)),
        stub_(v1::WorkerService::NewStub(channel_)) {}

  absl::StatusOr<PassResult> Forward(const Pass& pass, const HiddenStates& hidden,
                                     absl::Time deadline) override {
    MILLRACE_CHECK(hidden.device == nullptr);
    {
      absl::MutexLock lock(&mu_);
      cancelled_ = false;
    }
    MILLRACE_RETURN_IF_ERROR(EnsureOpen(deadline));
    MILLRACE_RETURN_IF_ERROR(Send(pass, hidden.rows, deadline));
    return Receive(pass, deadline);
  }

  void Cancel() override {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
    if (stream_ != nullptr) stream_->context().TryCancel();
  }

 private:
  absl::Status EnsureOpen(absl::Time deadline) {
    if (stream_ != nullptr) return absl::OkStatus();
    {
      absl::MutexLock lock(&mu_);
      if (cancelled_) return absl::CancelledError("the pass was cancelled");
      stream_ = std::make_unique<StageStream>(stub_.get());
    }
    const absl::Time open_by = std::min(deadline, absl::Now() + kOpenTimeout);
    v1::StageRequest request;
    request.mutable_open()->set_epoch(options_.epoch.value);
    request.mutable_open()->set_stage(options_.stage);
    request.mutable_open()->set_from(options_.from.value());
    v1::StageResponse response;
    if (!stream_->Open(open_by) || !stream_->Write(request, open_by) ||
        !stream_->Read(&response, open_by)) {
      return Broken();
    }
    if (response.has_ready()) return absl::OkStatus();
    return Dropped(absl::InternalError("it did not answer `open` with `ready`"));
  }

  absl::Status Send(const Pass& pass, FloatView hidden, absl::Time deadline) {
    v1::StageRequest request;
    *request.mutable_pass() = ToProto(pass, hidden, deadline - absl::Now());
    if (!stream_->Write(request, deadline)) return Broken();
    return ForEachChunk(hidden, [&](absl::string_view chunk) {
      request.set_chunk(chunk.data(), chunk.size());
      return stream_->Write(request, deadline) ? absl::OkStatus() : Broken();
    });
  }

  absl::StatusOr<PassResult> Receive(const Pass& pass, absl::Time deadline) {
    ResultAssembler result(pass.outputs.size());
    while (true) {
      v1::StageResponse response;
      if (!stream_->Read(&response, deadline)) return Broken();
      if (response.has_failed() && response.failed().id() == pass.id) {
        return StatusFromWire(response.failed().code(), response.failed().message());
      }
      if (!response.has_result() || response.result().id() != pass.id) {
        return Dropped(absl::InternalError("it answered another pass than it was asked"));
      }
      absl::StatusOr<bool> last = result.Add(response.result());
      if (!last.ok()) return Dropped(last.status());
      if (*last) return result.Take();
    }
  }

  // The stream failed: says why, in this link's contract, and drops it so that the next pass opens
  // a new one.
  absl::Status Broken() { return Dropped(stream_->Finish()); }

  absl::Status Dropped(const absl::Status& why) {
    absl::MutexLock lock(&mu_);
    const bool timed_out = stream_->timed_out();
    stream_.reset();
    if (cancelled_) return absl::CancelledError("the pass was cancelled");
    if (timed_out) return absl::UnavailableError(absl::StrCat(peer_, " did not answer in time"));
    const std::string message = absl::StrCat(peer_, ": ", why.message());
    switch (why.code()) {
      case absl::StatusCode::kFailedPrecondition:
      case absl::StatusCode::kInvalidArgument:
      case absl::StatusCode::kInternal:
        return absl::Status(why.code(), message);
      default:
        return absl::UnavailableError(absl::StrCat(peer_, " is gone: ", why.message()));
    }
  }

  const GrpcLinkOptions options_;
  const std::string peer_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
  // Replaced by the owner under mu_; the owner alone reads it without.
  std::unique_ptr<StageStream> stream_;
  absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

std::unique_ptr<StageLink> MakeGrpcLink(const GrpcLinkOptions& options) {
  return std::make_unique<GrpcLink>(options);
}

}  // namespace millrace
