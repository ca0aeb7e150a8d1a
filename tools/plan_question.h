// What `millrace plan` is asked: a model or the shape of one, on this machine or on a described
// one.
#ifndef MILLRACE_TOOLS_PLAN_QUESTION_H_
#define MILLRACE_TOOLS_PLAN_QUESTION_H_

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/placement_problem.h"
#include "tools/runtime.h"

namespace millrace {

struct PlanQuestion {
  RuntimeRequest runtime;
  std::string shape, quant;                      // instead of runtime.model
  std::string hardware, hardware_file, workers;  // instead of this machine
};

// MODEL and what stands in its and the machine's place.
void AddQuestionFlags(CLI::App* app, PlanQuestion& question);

struct AskedProblem {
  PlacementProblem problem;
  RuntimeRequest runtime;          // as ProblemOn takes it, for the same question on other machines
  std::vector<std::string> notes;  // of a described machine: where its figures come from
};

// InvalidArgument names flags that exclude each other or need one another.
absl::Status CheckQuestion(const PlanQuestion& question);

// Reads, probes or describes, and chooses the pass size. The question was checked and is not for a
// planner. InvalidArgument names the flag that is wrong.
absl::StatusOr<AskedProblem> MakeProblem(const PlanQuestion& question);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_PLAN_QUESTION_H_
