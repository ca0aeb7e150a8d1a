// The least lowering of precision under which a placement gets better: bisection over the planner's
// own search.
#ifndef MILLRACE_PLANNER_PRECISION_SEARCH_H_
#define MILLRACE_PLANNER_PRECISION_SEARCH_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "planner/placement_problem.h"
#include "planner/precision_choice.h"

namespace millrace {

// The placement problem of the model as it is held, pass size and activations included.
using ProblemOf =
    std::function<absl::StatusOr<PlacementProblem>(const ModelSpec& held, DType kv_type)>;

struct PrecisionAnswer {
  PlacementProblem problem;
  PrecisionChoice choice;
  std::string reason;  // a sentence for people: why these types
};

// How well a problem's weights and caches can be placed. Better ones are larger.
enum class Fit { kNot, kWithDisk, kBesideGpu, kResident };
absl::StatusOr<Fit> FitOf(const PlacementProblem& problem);

// The least loss in `limit` bytes of weights, however they can then be placed; caches stay as they
// are. InvalidArgument where the lowest types take more.
absl::StatusOr<PrecisionAnswer> PrecisionWithin(PrecisionQuestion question, Bytes limit,
                                                const ProblemOf& problem_of);

// The first of these that there is:
//   the file's precision, where all of it is resident on its devices;
//   the least loss with which all is resident, where some types make that possible;
//   the least loss with which weights fit device and host memory, where the file's do not;
//   the file's precision (it streams, or is read from disk), where lower ones change nothing of
//   that; where nothing fits, the lowest, whose Infeasibility says what is missing.
// Types are never lowered for speed alone beyond that. The budget found is within 1/256 of the
// range between highest and lowest of the largest that does. Pure but for `problem_of`, whose
// errors it gives, as those of Solve and ChoosePrecision.
absl::StatusOr<PrecisionAnswer> SearchPrecision(const PrecisionQuestion& question,
                                                const ProblemOf& problem_of);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PRECISION_SEARCH_H_
