// The questions of `millrace plan`, put to a planner.
#ifndef MILLRACE_TOOLS_PLAN_REMOTE_H_
#define MILLRACE_TOOLS_PLAN_REMOTE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "millrace/v1/planner.pb.h"
#include "planner/what_if.h"
#include "tools/plan_output.h"
#include "tools/plan_question.h"

namespace millrace {

struct RemoteQuestion {
  v1::PlanRequest request;
  std::vector<std::string> notes;  // as AskedProblem's
  std::string model_note;
};

// A shape, a configuration or a GGUF file of which only metadata is here travels with the question;
// so does a file that is here when the machine is described. Else MODEL is the workers' to find.
// Without a described machine the registered workers are meant. InvalidArgument names the flag.
absl::StatusOr<RemoteQuestion> MakeRemoteQuestion(const PlanQuestion& question);

// Asks and prints; `what_if` is empty where nothing is changed. The exit code.
absl::StatusOr<int> RunRemotePlan(const PlanQuestion& question, const std::string& what_if,
                                  const ShowFlags& show);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_PLAN_REMOTE_H_
