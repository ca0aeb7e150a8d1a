// PlanQueries: what PlannerService answers about plans without loading anything.
#ifndef MILLRACE_PLANNER_PLAN_QUERIES_H_
#define MILLRACE_PLANNER_PLAN_QUERIES_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "millrace/v1/planner.pb.h"
#include "planner/asked_plan.h"
#include "planner/cluster_controller.h"
#include "planner/query_turns.h"

namespace millrace {

// Who asks: nothing is searched for after `deadline` or once `cancelled` says so. A search under
// way is not interrupted: both are looked at between searches.
struct QueryCall {
  absl::Time deadline;
  std::function<bool()> cancelled;
};

// Thread-safe. `controller` outlives it. Errors are those of planner.proto.
class PlanQueries {
 public:
  static constexpr int kAtOnce = 4;  // searches; each takes a core
  static constexpr int kWaiting = 64;
  static constexpr int kMostWatches = 64;

  explicit PlanQueries(ClusterController* controller) : controller_(controller) {}

  absl::Status Plan(const QueryCall& call, const v1::PlanRequest& request, bool explain,
                    v1::PlanResponse* response);
  absl::Status WhatIf(const QueryCall& call, const v1::WhatIfRequest& request,
                      v1::WhatIfResponse* response);
  absl::Status Diff(const QueryCall& call, const v1::DiffPlansRequest& request,
                    v1::DiffPlansResponse* response);

  // Until the call is cancelled (Cancelled) or `write` is false (OK: nobody reads). An event is
  // made when the one before it was taken, of how things are by then.
  absl::Status Watch(const QueryCall& call, const v1::WatchPlanRequest& request,
                     const std::function<bool(const v1::WatchPlanEvent&)>& write);

 private:
  absl::StatusOr<AskedPlan> Ask(const QueryCall& call, const v1::PlanRequest& request);
  absl::Status Answer(const QueryCall& call, const v1::WatchPlanRequest& request,
                      v1::WatchPlanEvent& event);

  ClusterController* const controller_;
  QueryTurns turns_{kAtOnce, kWaiting};
  QueryTurns watches_{kMostWatches, 0};
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PLAN_QUERIES_H_
