#include "tools/plan_precision.h"

#include <cstdio>
#include <utility>

#include "planner/precision_search.h"
#include "proto/status_macros.h"
#include "tools/plan_problem.h"
#include "tools/sensitivity_file.h"

namespace millrace {
namespace {

absl::StatusOr<PrecisionQuestion> QuestionOf(const ModelSpec& file, const PrecisionWishes& wishes,
                                             const RuntimeRequest& request) {
  PrecisionQuestion question;
  question.file = file;
  question.floors = wishes.floors;
  MILLRACE_ASSIGN_OR_RETURN(const PlanWishes plan, ParseWishes(request.budget));
  question.kv_type = plan.kv_type;
  question.may_lower_kv = request.budget.kv_type.empty();
  question.kv_cells = int64_t{ContextOf(file, request)} * request.budget.slots;
  MILLRACE_ASSIGN_OR_RETURN(question.sensitivities,
                            wishes.sensitivity.empty()
                                ? SensitivitiesOf(request.model, file)
                                : ReadSensitivities(wishes.sensitivity, file));
  return question;
}

}  // namespace

absl::StatusOr<PlacementProblem> ProblemAtPrecision(const ClusterSpec& cluster,
                                                    const ModelSpec& file,
                                                    const RuntimeRequest& request) {
  MILLRACE_ASSIGN_OR_RETURN(const PrecisionWishes wishes, ParsePrecision(request.budget.precision));
  if (!wishes.automatic) return ProblemOn(cluster, file, request);
  MILLRACE_ASSIGN_OR_RETURN(const PrecisionQuestion question, QuestionOf(file, wishes, request));
  const ProblemOf problem_of = [&](const ModelSpec& held, DType kv_type) {
    RuntimeRequest as_held = request;
    as_held.budget.kv_type = std::string(DTypeName(kv_type));
    return ProblemOn(cluster, held, as_held);
  };
  const std::optional<Bytes> limit = wishes.Limit(file.weight_bytes());
  absl::StatusOr<PrecisionAnswer> answer =
      limit ? PrecisionWithin(question, *limit, problem_of) : SearchPrecision(question, problem_of);
  if (!answer.ok()) {
    return limit ? Annotate(answer.status(), "--weight-memory") : answer.status();
  }
  std::fprintf(stderr, "precision: %s; by %s\n", answer->reason.c_str(),
               question.sensitivities.origin.c_str());
  return std::move(answer->problem);
}

}  // namespace millrace
