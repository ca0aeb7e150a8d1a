// PlannerService: gRPC to ClusterController and back; relays generations from the leading worker.
#ifndef MILLRACE_PLANNER_PLANNER_SERVICE_H_
#define MILLRACE_PLANNER_PLANNER_SERVICE_H_

#include <set>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "millrace/v1/planner.grpc.pb.h"
#include "planner/cluster_controller.h"
#include "planner/plan_queries.h"

namespace millrace {

struct PlannerOptions {
  std::string version;
  absl::Duration lease = absl::Seconds(3);
  absl::Duration heartbeat = absl::Milliseconds(200);
  absl::Duration longest_call = absl::Hours(1);  // for calls whose client set no deadline
};

// Synchronous handlers: each call under way, worker sessions included, holds one thread of the
// server's bounded set. One thread more watches leases.
class PlannerService final : public v1::PlannerService::Service {
 public:
  explicit PlannerService(const PlannerOptions& options);
  ~PlannerService() override;

  // Ends every session and generation with Unavailable; new ones too.
  void Stop();

  grpc::Status Plan(grpc::ServerContext* context, const v1::PlanRequest* request,
                    v1::PlanResponse* response) override;
  grpc::Status ExplainPlan(grpc::ServerContext* context, const v1::PlanRequest* request,
                           v1::PlanResponse* response) override;
  grpc::Status WhatIf(grpc::ServerContext* context, const v1::WhatIfRequest* request,
                      v1::WhatIfResponse* response) override;
  grpc::Status DiffPlans(grpc::ServerContext* context, const v1::DiffPlansRequest* request,
                         v1::DiffPlansResponse* response) override;
  grpc::Status WatchPlan(grpc::ServerContext* context, const v1::WatchPlanRequest* request,
                         grpc::ServerWriter<v1::WatchPlanEvent>* writer) override;
  grpc::Status Load(grpc::ServerContext* context, const v1::LoadRequest* request,
                    grpc::ServerWriter<v1::LoadEvent>* writer) override;
  grpc::Status Unload(grpc::ServerContext* context, const v1::UnloadRequest* request,
                      v1::UnloadResponse* response) override;
  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateEvent>* writer) override;
  grpc::Status Score(grpc::ServerContext* context, const v1::ScoreRequest* request,
                     v1::ScoreResponse* response) override;
  grpc::Status Cancel(grpc::ServerContext* context, const v1::CancelRequest* request,
                      v1::CancelResponse* response) override;
  grpc::Status Status(grpc::ServerContext* context, const v1::ClusterStatusRequest* request,
                      v1::ClusterStatus* response) override;
  grpc::Status Session(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::SessionResponse, v1::SessionRequest>* stream) override;

 private:
  using SessionStream = grpc::ServerReaderWriter<v1::SessionResponse, v1::SessionRequest>;

  absl::Status DoLoad(grpc::ServerContext* context, const v1::LoadRequest& request,
                      grpc::ServerWriter<v1::LoadEvent>* writer);
  absl::Status DoGenerate(grpc::ServerContext* context, v1::GenerateRequest request,
                          grpc::ServerWriter<v1::GenerateEvent>* writer);
  absl::Status DoScore(grpc::ServerContext* context, const v1::ScoreRequest& request,
                       v1::ScoreResponse* response);
  absl::Status DoCancel(const v1::CancelRequest& request);
  absl::Status DoSession(grpc::ServerContext* context, SessionStream* stream);
  absl::Status ServeSession(SessionStream* stream, const WorkerId& worker, uint64_t session);
  absl::Time Deadline(const grpc::ServerContext& context) const;
  QueryCall CallOf(grpc::ServerContext* context, absl::Time deadline);
  // A call on the leading worker that ends with the client's call, or when a worker is lost.
  std::unique_ptr<ActiveCall> CallLeader(const grpc::ServerContext& context,
                                         const ServingPlan& serving, const RequestId& request);
  void WatchLeases();

  const PlannerOptions options_;
  ClusterController controller_;
  PlanQueries queries_{&controller_};
  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::set<grpc::ServerContext*> sessions_ ABSL_GUARDED_BY(mu_);
  std::thread lease_watch_;
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PLANNER_SERVICE_H_
