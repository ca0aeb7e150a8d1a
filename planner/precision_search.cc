#include "planner/precision_search.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "planner/solver.h"
#include "proto/status_macros.h"
#include "proto/stored_types.h"

namespace millrace {
namespace {

constexpr int kSteps = 256;  // between the lowest and the highest precision

// One precision and how it can be placed.
struct Tried {
  PrecisionAnswer answer;
  Fit fit = Fit::kNot;
};

absl::StatusOr<Tried> Try(const PrecisionQuestion& question, Bytes budget,
                          const ProblemOf& problem_of) {
  Tried tried;
  MILLRACE_ASSIGN_OR_RETURN(tried.answer.choice, ChoosePrecision(question, budget));
  const PrecisionChoice& choice = tried.answer.choice;
  MILLRACE_ASSIGN_OR_RETURN(const ModelSpec held, HeldModel(question.file, choice.types));
  MILLRACE_ASSIGN_OR_RETURN(tried.answer.problem, problem_of(held, choice.kv_type));
  if (!choice.types.empty()) {  // what is converted is on no disk
    for (HostSpec& host : tried.answer.problem.cluster.hosts) host.disk_bandwidth = Bandwidth();
  }
  MILLRACE_ASSIGN_OR_RETURN(tried.fit, FitOf(tried.answer.problem));
  return tried;
}

PrecisionAnswer Because(Tried tried, std::string reason) {
  tried.answer.reason = std::move(reason);
  return std::move(tried.answer);
}

absl::string_view FitText(Fit fit) {
  switch (fit) {
    case Fit::kResident:
      return "all of it fits its devices";
    case Fit::kBesideGpu:
      return "it fits with weights in host memory";
    case Fit::kWithDisk:
      return "it fits with weights on disk";
    case Fit::kNot:
      return "it does not fit";
  }
  return "";
}

// The highest precision that is placed as well as `lowest`.
absl::StatusOr<Tried> Bisect(const PrecisionQuestion& question, const PrecisionRange& range,
                             Tried lowest, const ProblemOf& problem_of) {
  Tried best = std::move(lowest);
  const Fit wanted = best.fit;
  const auto at = [&](int step) {
    return range.least + Bytes((range.most - range.least).count() / kSteps * step);
  };
  int fits = 0, not_any_more = kSteps;
  while (not_any_more - fits > 1) {
    const int middle = (fits + not_any_more) / 2;
    MILLRACE_ASSIGN_OR_RETURN(Tried tried, Try(question, at(middle), problem_of));
    if (tried.fit >= wanted) {
      best = std::move(tried);
      fits = middle;
    } else {
      not_any_more = middle;
    }
  }
  return best;
}

}  // namespace

absl::StatusOr<Fit> FitOf(const PlacementProblem& problem) {
  MILLRACE_ASSIGN_OR_RETURN(const std::optional<PlacementPlan> plan, FindPlan(problem));
  if (!plan) return Fit::kNot;
  Fit fit = Fit::kResident;
  for (const BlockPlacement& b : plan->blocks) {
    const bool gpu = plan->stages[static_cast<size_t>(b.stage)].device_kind == DeviceKind::kGpu;
    if (b.home == Home::kDisk) return Fit::kWithDisk;
    if (gpu && (b.home != Home::kDevice || b.kv_home != Home::kDevice)) fit = Fit::kBesideGpu;
  }
  return fit;
}

absl::StatusOr<PrecisionAnswer> PrecisionWithin(PrecisionQuestion question, Bytes limit,
                                                const ProblemOf& problem_of) {
  question.may_lower_kv = false;
  question.kv_cells = 0;
  MILLRACE_ASSIGN_OR_RETURN(const PrecisionRange range, PrecisionRangeOf(question));
  if (limit < range.least) {
    return absl::InvalidArgumentError(
        absl::StrCat("weights are to take ", FormatBytes(limit), ", but in the lowest types that ",
                     "are allowed they take ", FormatBytes(range.least)));
  }
  MILLRACE_ASSIGN_OR_RETURN(Tried tried, Try(question, limit, problem_of));
  return Because(std::move(tried),
                 absl::StrCat("weights are to take at most ", FormatBytes(limit)));
}

absl::StatusOr<PrecisionAnswer> SearchPrecision(const PrecisionQuestion& question,
                                                const ProblemOf& problem_of) {
  MILLRACE_ASSIGN_OR_RETURN(const PrecisionRange range, PrecisionRangeOf(question));
  MILLRACE_ASSIGN_OR_RETURN(Tried as_is, Try(question, range.most, problem_of));
  if (as_is.fit == Fit::kResident || range.least >= range.most) {
    return Because(std::move(as_is), absl::StrCat("as in the file ", FitText(as_is.fit)));
  }
  MILLRACE_ASSIGN_OR_RETURN(Tried lowest, Try(question, range.least, problem_of));
  if (lowest.fit == Fit::kNot && as_is.fit == Fit::kNot) {
    return Because(std::move(lowest), "even at the lowest types it does not fit");
  }
  if (lowest.fit <= as_is.fit) {
    return Because(std::move(as_is), absl::StrCat("as in the file ", FitText(as_is.fit),
                                                  ", and lower types do not change that"));
  }
  const Fit before = as_is.fit;
  MILLRACE_ASSIGN_OR_RETURN(Tried best, Bisect(question, range, std::move(lowest), problem_of));
  std::string reason = absl::StrCat(FitText(best.fit), ", and as in the file ",
                                    before == Fit::kNot ? "it would not" : FitText(before));
  return Because(std::move(best), std::move(reason));
}

}  // namespace millrace
