// The plan of a problem that has one.
#ifndef MILLRACE_TESTS_PLANNER_PLANNED_H_
#define MILLRACE_TESTS_PLANNER_PLANNED_H_

#include <gtest/gtest.h>

#include "planner/solver.h"

namespace millrace {

inline PlacementPlan Planned(const PlacementProblem& problem) {
  const auto result = Solve(problem);
  EXPECT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->plan.has_value()) << result->infeasible->summary;
  return result->plan.value_or(PlacementPlan());
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_PLANNER_PLANNED_H_
