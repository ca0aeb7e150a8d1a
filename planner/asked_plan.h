// What a PlanRequest asks, as the values that answer it.
#ifndef MILLRACE_PLANNER_ASKED_PLAN_H_
#define MILLRACE_PLANNER_ASKED_PLAN_H_

#include <functional>

#include "absl/status/statusor.h"
#include "millrace/v1/planner.pb.h"
#include "millrace/v1/worker.pb.h"
#include "planner/plan_query.h"

namespace millrace {

struct AskedPlan {
  PlanQuery query;
  ClusterSpec cluster;
};

// Asks a worker; the request is whole but for the deadline.
using DescribeModel =
    std::function<absl::StatusOr<v1::DescribeModelResponse>(const v1::DescribeModelRequest&)>;

// `registered`: the live workers' hosts, `describe` one of them; it is called by the query too,
// once per pass size. A request with `spec` and `cluster` both needs neither. InvalidArgument names
// the field; Unavailable: a worker is needed and none is registered; else `describe`'s.
absl::StatusOr<AskedPlan> MakeAskedPlan(const v1::PlanRequest& request,
                                        const ClusterSpec& registered,
                                        const DescribeModel& describe);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_ASKED_PLAN_H_
