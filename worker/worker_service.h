// WorkerService: gRPC to Worker and back; translation only.
#ifndef MILLRACE_WORKER_WORKER_SERVICE_H_
#define MILLRACE_WORKER_WORKER_SERVICE_H_

#include <string>

#include "absl/synchronization/notification.h"
#include "millrace/v1/worker.grpc.pb.h"
#include "worker/worker.h"

namespace millrace {

// Synchronous handlers: a call holds one thread of the server's bounded set, a generation one more.
class WorkerService final : public v1::WorkerService::Service {
 public:
  // The server must run before the worker knows its address: calls that come in between wait for
  // this (main does it right after). Once; `worker` outlives the server.
  void Attach(Worker* worker) {
    worker_ = worker;
    attached_.Notify();
  }

  grpc::Status DescribeModel(grpc::ServerContext* context, const v1::DescribeModelRequest* request,
                             v1::DescribeModelResponse* response) override;
  grpc::Status Budgets(grpc::ServerContext* context, const v1::BudgetsRequest* request,
                       v1::BudgetsResponse* response) override;
  grpc::Status Load(grpc::ServerContext* context, const v1::LoadStagesRequest* request,
                    grpc::ServerWriter<v1::LoadStagesEvent>* writer) override;
  grpc::Status Unload(grpc::ServerContext* context, const v1::UnloadStagesRequest* request,
                      v1::UnloadStagesResponse* response) override;
  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateEvent>* writer) override;
  grpc::Status Score(grpc::ServerContext* context, const v1::ScoreRequest* request,
                     v1::ScoreResponse* response) override;
  grpc::Status Cancel(grpc::ServerContext* context, const v1::CancelRequest* request,
                      v1::CancelResponse* response) override;
  grpc::Status Status(grpc::ServerContext* context, const v1::WorkerStatusRequest* request,
                      v1::WorkerStatus* response) override;
  grpc::Status RunStage(grpc::ServerContext* context, StageServerStream* stream) override;

 private:
  absl::Status DoLoad(const v1::LoadStagesRequest& request,
                      grpc::ServerWriter<v1::LoadStagesEvent>* writer);
  absl::Status DoGenerate(grpc::ServerContext* context, const v1::GenerateRequest& request,
                          grpc::ServerWriter<v1::GenerateEvent>* writer);
  absl::Status DoScore(const v1::ScoreRequest& request, v1::ScoreResponse* response);
  absl::Status DoRunStage(grpc::ServerContext* context, StageServerStream* stream);

  Worker* worker();  // waits for Attach

  Worker* worker_ = nullptr;
  absl::Notification attached_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_WORKER_SERVICE_H_
