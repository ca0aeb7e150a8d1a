#include "tools/gap_report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "planner/milp_model.h"
#include "planner/solver.h"
#include "planner/stage_search.h"
#include "proto/status_macros.h"
#include "tools/cbc.h"

namespace millrace {
namespace {

// What the search counts for the problem, and whether `plan` has its stages.
struct Searched {
  double seconds = std::numeric_limits<double>::infinity();
  double bound = std::numeric_limits<double>::infinity();  // the search's own
  bool is_the_plan = false;
};

absl::StatusOr<Searched> SearchAgain(const PlacementProblem& problem, const PlacementPlan& plan) {
  MILLRACE_ASSIGN_OR_RETURN(const ResolvedPins pins, ResolvePins(problem));
  const MemoryBudget memory(problem);
  const CostModel cost(problem, memory);
  const StageTable table(problem, memory, cost, pins);
  MILLRACE_ASSIGN_OR_RETURN(const StageSearchResult result, SearchStages(problem.cluster, table));
  Searched searched;
  if (result.stages.empty()) return searched;
  searched.seconds = result.seconds;
  searched.bound = result.bound;
  searched.is_the_plan =
      std::equal(result.stages.begin(), result.stages.end(), plan.stages.begin(), plan.stages.end(),
                 [&](const StageChoice& choice, const Stage& stage) {
                   return choice.first == stage.first_block && choice.end == stage.end_block &&
                          table.Host(choice.device).worker == stage.worker &&
                          table.Device(choice.device).id == stage.device;
                 });
  return searched;
}

std::string Verdict(double seconds, double bound) {
  const double percent = 100 * std::max(0.0, seconds / bound - 1);
  return absl::StrFormat("this plan is within %.1f%% of the proven bound\n",
                         std::max(0.0, std::ceil(percent * 10 - 1e-4) / 10));
}

}  // namespace

absl::StatusOr<std::string> RenderGap(const PlacementProblem& problem, const PlacementPlan& plan,
                                      absl::Duration limit) {
  if (problem.objective != Objective{}) {
    return absl::UnimplementedError(
        absl::StrCat("bounds are proven for one sequence decoding, not for --objective ",
                     ObjectiveText(problem.objective)));
  }
  // With CPUs as devices, and lent to the GPUs: the plan is the better of two.
  std::vector<PlacementProblem> both = {problem, WithCpusLent(problem)};
  if (both.back().cluster.hosts.empty()) both.pop_back();
  double mine = std::numeric_limits<double>::infinity(), own_bound = mine, bound = mine;
  bool recognised = false;
  for (const PlacementProblem& p : both) {
    MILLRACE_ASSIGN_OR_RETURN(const Searched searched, SearchAgain(p, plan));
    if (!recognised) mine = std::min(mine, searched.seconds);
    if (searched.is_the_plan) mine = searched.seconds;
    recognised |= searched.is_the_plan;
    own_bound = std::min(own_bound, searched.bound);
    MILLRACE_ASSIGN_OR_RETURN(const std::string lp, PlacementMilp(p, MilpScope::kBound));
    MILLRACE_ASSIGN_OR_RETURN(const CbcAnswer answer,
                              RunCbc(lp, limit / static_cast<double>(both.size())));
    if (!answer.infeasible) bound = std::min(bound, answer.bound / 1e6);
  }
  std::string text = absl::StrFormat(
      "\nblocks counted as a fluid: %.4g ms a token; no placement takes less than %.4g ms by the "
      "search\n",
      1e3 * mine, 1e3 * own_bound);
  if (!std::isfinite(bound) || bound <= 0) {
    return absl::StrCat(text, "cbc proved no bound of its own in ", absl::FormatDuration(limit),
                        "; by the search's ", Verdict(mine, own_bound));
  }
  absl::StrAppendFormat(
      &text, "nor less than %.4g ms by cbc, which knows nothing of the search: ", 1e3 * bound);
  return absl::StrCat(text, Verdict(mine, bound));
}

}  // namespace millrace
