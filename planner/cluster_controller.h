// ClusterController: what the cluster shall serve and what it serves: plans over the live workers,
// loads plans on them epoch by epoch, and loads again when a worker of the plan was lost.
#ifndef MILLRACE_PLANNER_CLUSTER_CONTROLLER_H_
#define MILLRACE_PLANNER_CLUSTER_CONTROLLER_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "millrace/v1/planner.grpc.pb.h"
#include "millrace/v1/worker.grpc.pb.h"
#include "planner/active_calls.h"
#include "planner/asked_plan.h"
#include "planner/change_counter.h"
#include "planner/membership.h"
#include "planner/solver.h"

namespace millrace {

// What was planned, and over what.
struct ClusterPlan {
  SolveResult result;
  ClusterSpec cluster;
};

// A plan in service. Immutable.
struct ServingPlan {
  PlacementPlan plan;  // epoch and addresses set
  std::vector<WorkerId> workers;
  std::shared_ptr<v1::WorkerService::Stub> leader;  // of the first stage's worker
  WorkerId leader_name;
};

// Thread-safe. One Load, Unload or reload runs at a time, the others wait for it (bounded by their
// deadline). Lock order: mu_ before the locks of Membership and ActiveCalls.
class ClusterController {
 public:
  struct LoadOutcome {
    std::shared_ptr<const ServingPlan> serving;  // one of the two is set
    std::optional<Infeasibility> infeasible;
  };
  // Called while a load runs, by the thread that loads: `planned` once, then progress.
  using OnLoadEvent = std::function<void(const v1::LoadEvent&)>;

  explicit ClusterController(absl::Duration lease);

  Membership& membership() { return membership_; }
  ActiveCalls& calls() { return calls_; }
  // Of members, their budgets and what is loaded.
  const ChangeCounter& changes() const { return changes_; }

  // The question, with the live workers at hand. Workers are asked until `deadline`. Errors are those
  // of MakeAskedPlan.
  absl::StatusOr<AskedPlan> Ask(const v1::PlanRequest& request, absl::Time deadline);

  // What is loaded; null where nothing is. Whether it is healthy is not looked at.
  std::shared_ptr<const ServingPlan> Serving() const;

  // Unavailable: no worker. Else from the model (NotFound, DataLoss ...) or the solver.
  absl::StatusOr<ClusterPlan> Plan(const std::string& model, const v1::PlanOptions& options);

  absl::StatusOr<LoadOutcome> Load(const v1::LoadRequest& request, absl::Time deadline,
                                   const OnLoadEvent& on_event);
  absl::Status Unload(absl::Time deadline);

  // The plan that serves now, loaded again first if it lost a worker. FailedPrecondition: nothing
  // was loaded. Unavailable: a worker is missing, and what is left cannot hold the model.
  absl::StatusOr<std::shared_ptr<const ServingPlan>> EnsureServing(absl::Time deadline);

  // True while every worker of the plan is live and holds its epoch.
  bool IsHealthy(const ServingPlan& serving) const;

  // Epochs start above what any registered worker has seen.
  void NoteEpoch(Epoch seen);

  v1::ClusterStatus Status() const;

 private:
  class Change;  // holds changing_

  absl::Status BeginChange(absl::Time deadline);
  void EndChange();
  absl::StatusOr<LoadOutcome> Replace(const v1::LoadRequest& request, const OnLoadEvent& on_event);
  absl::StatusOr<v1::DescribeModelResponse> Describe(const std::vector<Member>& live,
                                                     const v1::DescribeModelRequest& request,
                                                     absl::Time deadline);
  void SetServing(std::shared_ptr<const ServingPlan> serving);
  absl::StatusOr<SolveResult> PlanFor(const v1::LoadRequest& request);
  absl::StatusOr<std::shared_ptr<const ServingPlan>> Address(PlacementPlan plan);
  absl::StatusOr<LoadOutcome> ReplaceOnce(const v1::LoadRequest& request,
                                          const OnLoadEvent& on_event);
  // Unloads the live workers and reads their budgets again. True where any has changed.
  bool RefreshBudgets();
  absl::Status LoadStages(const ServingPlan& serving, int max_queue, const OnLoadEvent& on_event);
  absl::Status LoadWorker(const ServingPlan& serving, const WorkerId& worker, int max_queue,
                          const OnLoadEvent& on_event);
  void UnloadWorker(const Member& member);
  std::string WhyUnhealthy(const ServingPlan& serving) const;

  ActiveCalls calls_;
  ChangeCounter changes_;
  Membership membership_;
  mutable absl::Mutex mu_;
  bool changing_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<v1::LoadRequest> wanted_ ABSL_GUARDED_BY(mu_);  // outlives the loss of a worker
  std::shared_ptr<const ServingPlan> serving_ ABSL_GUARDED_BY(mu_);
  Epoch last_epoch_ ABSL_GUARDED_BY(mu_);
};

// What a client does next when nothing is loaded; part of messages.
inline constexpr char kNothingLoaded[] =
    "no model is loaded in this cluster: load one first, e.g. `millrace run MODEL --planner ADDR` "
    "(PlannerService.Load)";

}  // namespace millrace

#endif  // MILLRACE_PLANNER_CLUSTER_CONTROLLER_H_
