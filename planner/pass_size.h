// The largest pass where the user names none.
#ifndef MILLRACE_PLANNER_PASS_SIZE_H_
#define MILLRACE_PLANNER_PASS_SIZE_H_

#include <functional>

#include "absl/status/statusor.h"
#include "planner/placement_problem.h"

namespace millrace {

inline constexpr int kDefaultPassTokens = 512;
inline constexpr int kGpuPassTokens = 2048;  // prefill on a GPU gains by larger products
// With host homes every weight crosses the link once per pass: from a few thousand tokens on the
// copies hide behind the products. Down to 64, a GPU needs no room to dequantize weights.
inline constexpr int kOffloadPassTokens[] = {4096, 2048, 1024, 512, 256, 64};

// The problem at hand with passes of up to `tokens`: its activations are the runtime's to tell.
using ProblemAt = std::function<absl::StatusOr<PlacementProblem>(int tokens)>;

// First as if all weights were resident: kGpuPassTokens where every device is a GPU and the
// activations take at most a tenth of every budget, else kDefaultPassTokens. Where that plan keeps
// weights in host memory beside a GPU, or there is none, the sizes of kOffloadPassTokens are
// compared by the predicted time of the objective, if that has prompts, else by decode time x (time of a prompt as long as the context, at most 4096
// tokens) ^ 1/4: a larger pass takes room from weights, and one percent of decode buys four of
// prefill. Sizes at which a cache has to leave its GPU count only where it has to at all of them.
// Where nothing fits: the last size. Errors are those of `problem_at` and Solve.
absl::StatusOr<PlacementProblem> AtBestPassSize(const ClusterSpec& cluster,
                                                const ProblemAt& problem_at);

// True when the problem's activations take at most a tenth of every device's budget.
bool PassFitsWell(const PlacementProblem& problem);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PASS_SIZE_H_
