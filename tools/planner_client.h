// PlannerClient: the clients' side of PlannerService.
#ifndef MILLRACE_TOOLS_PLANNER_CLIENT_H_
#define MILLRACE_TOOLS_PLANNER_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "millrace/v1/planner.grpc.pb.h"
#include "tools/runtime.h"

namespace millrace {

// Thread-safe. Every call but WatchPlan has a deadline, and keepalive notices a planner that is gone.
class PlannerClient {
 public:
  // Unavailable within 5 s, naming the address, when no planner answers there.
  static absl::StatusOr<std::unique_ptr<PlannerClient>> Connect(const std::string& address);

  absl::StatusOr<v1::PlanResponse> Plan(const v1::PlanRequest& request);
  absl::StatusOr<v1::PlanResponse> ExplainPlan(const v1::PlanRequest& request);
  absl::StatusOr<v1::WhatIfResponse> WhatIf(const v1::WhatIfRequest& request);
  absl::StatusOr<v1::DiffPlansResponse> DiffPlans(const v1::DiffPlansRequest& request);
  // Until `on_event` is false, or the planner ends it. Has no deadline: keepalive notices a planner
  // that is gone.
  absl::Status WatchPlan(const v1::WatchPlanRequest& request,
                         const std::function<bool(const v1::WatchPlanEvent&)>& on_event);
  absl::StatusOr<v1::ClusterStatus> Status();

  // The loaded plan, or why nothing fits. `on_progress` gets the sums over all stages.
  struct LoadResult {
    std::optional<PlacementPlan> plan;
    std::optional<Infeasibility> infeasible;
  };
  absl::StatusOr<LoadResult> Load(const v1::LoadRequest& request,
                                  const std::function<void(Bytes done, Bytes total)>& on_progress);

  absl::StatusOr<GenerateSummary> Generate(
      const GenerateRequest& request, const std::function<bool(const GenerateEvent&)>& on_event);
  absl::StatusOr<std::vector<float>> Score(const v1::ScoreRequest& request);
  void Cancel(const RequestId& id);

 private:
  PlannerClient(std::string address, std::unique_ptr<v1::PlannerService::Stub> stub);
  absl::Status Explain(const grpc::Status& status) const;

  const std::string address_;
  const std::unique_ptr<v1::PlannerService::Stub> stub_;
};

// Loads the model through the planner and serves from there.
absl::StatusOr<RuntimeOrInfeasible> OpenClusterRuntime(const RuntimeRequest& request);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_PLANNER_CLIENT_H_
