// What becomes of a plan on the command line: shared by plans made here and by a planner.
#ifndef MILLRACE_TOOLS_PLAN_OUTPUT_H_
#define MILLRACE_TOOLS_PLAN_OUTPUT_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "millrace/v1/plan.pb.h"
#include "planner/what_if.h"

namespace millrace {

struct ShowFlags {
  std::string output;
  bool explain = false, json = false;
};

void AddShowFlags(CLI::App* app, ShowFlags& flags);

// That the model cannot be run (empty: it can), and where the figures of a machine come from that
// was not measured; beside JSON on stderr.
void PrintNotes(const std::string& model_note, const std::vector<std::string>& notes, bool json);
void PrintAddedCards(const MachineChange& change, bool json);

// Writes the plan where `flags` say, and prints it: as JSON, else `text`, which is only made then.
absl::StatusOr<int> ShowPlan(const v1::PlacementPlan& plan, const ShowFlags& flags,
                             const std::function<absl::StatusOr<std::string>()>& text);

// {"as_is": PLAN, "what_if": PLAN}, null for one that does not fit.
void PrintBothAsJson(const v1::PlacementPlan* as_is, const v1::PlacementPlan* changed);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_PLAN_OUTPUT_H_
