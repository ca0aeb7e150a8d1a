// StageServer: the receiving side of a stage link: owns the stage's runner and serves RunStage.
#ifndef MILLRACE_WORKER_LINK_STAGE_SERVER_H_
#define MILLRACE_WORKER_LINK_STAGE_SERVER_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/sync_stream.h>

#include <atomic>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "millrace/v1/worker.grpc.pb.h"
#include "worker/stage_runner.h"

namespace millrace {

using StageServerStream = grpc::ServerReaderWriter<v1::StageResponse, v1::StageRequest>;

// Threading: Serve is called by gRPC's handler threads; a newer stream ends the older one, and the
// runner is used by one of them at a time.
class StageServer {
 public:
  // `max_elements`: of the hidden states of one pass, max_pass_tokens x d_model.
  StageServer(std::unique_ptr<StageRunner> runner, Epoch epoch, int64_t d_model,
              int64_t max_elements);

  // Serves passes until the stream ends; the `open` message has been read by the caller.
  absl::Status Serve(grpc::ServerContext* context, StageServerStream* stream);

  // Any thread: ends the stream under way and refuses new ones, e.g. before an unload.
  void Stop();

  int stage() const { return runner_->stage(); }
  Bytes resident_bytes() const { return runner_->resident_bytes(); }
  int64_t passes() const { return passes_.load(std::memory_order_relaxed); }

 private:
  absl::Status TakeOver(grpc::ServerContext* context);
  absl::Status ServePasses(StageServerStream* stream);
  absl::StatusOr<PassResult> RunPass(const v1::PassHeader& header, StageServerStream* stream,
                                     bool& in_step);

  const std::unique_ptr<StageRunner> runner_;  // used by the holder of serving_
  const Epoch epoch_;
  const int64_t d_model_;
  const int64_t max_elements_;
  std::atomic<int64_t> passes_{0};
  absl::Mutex mu_;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  bool serving_ ABSL_GUARDED_BY(mu_) = false;
  grpc::ServerContext* current_ ABSL_GUARDED_BY(mu_) = nullptr;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_LINK_STAGE_SERVER_H_
