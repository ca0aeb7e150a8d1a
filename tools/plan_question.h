// What `millrace plan` is asked: a model or the shape of one, on this machine or on a described
// one.
#ifndef MILLRACE_TOOLS_PLAN_QUESTION_H_
#define MILLRACE_TOOLS_PLAN_QUESTION_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/placement_problem.h"
#include "tools/hardware_flag.h"
#include "tools/runtime.h"

namespace millrace {

struct PlanQuestion {
  RuntimeRequest runtime;
  std::string shape;                             // instead of runtime.model
  std::string quant;                             // of the shape, or of a config.json
  std::string hardware, hardware_file, workers;  // instead of this machine
};

// MODEL and what stands in its and the machine's place.
void AddQuestionFlags(CLI::App* app, PlanQuestion& question);

struct AskedModel {
  ModelSpec spec;
  std::string path;       // of its weights; empty: on no disk
  std::string reference;  // as the plan shows it
  std::string note;       // why it cannot be run; empty: it can
};

// Reads the shape, the configuration or the model's metadata.
absl::StatusOr<AskedModel> ReadModel(const PlanQuestion& question);

// The machine of --hardware or --hardware-file; nothing where neither is given.
absl::StatusOr<std::optional<DescribedMachine>> DescribedBy(const PlanQuestion& question);

struct AskedProblem {
  PlacementProblem problem;
  RuntimeRequest runtime;          // as ProblemOn takes it, for the same question on other machines
  std::vector<std::string> notes;  // of a described machine: where its figures come from
  std::string model_note;          // where the model cannot be run: why
};

// InvalidArgument names flags that exclude each other or need one another.
absl::Status CheckQuestion(const PlanQuestion& question);

// Reads, probes or describes, and chooses the pass size. The question was checked and is not for a
// planner. InvalidArgument names the flag that is wrong.
absl::StatusOr<AskedProblem> MakeProblem(const PlanQuestion& question);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_PLAN_QUESTION_H_
