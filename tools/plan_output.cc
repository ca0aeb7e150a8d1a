#include "tools/plan_output.h"

#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "planner/plan_svg.h"
#include "proto/convert.h"
#include "proto/plan_json.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"

namespace millrace {
namespace {

absl::Status WritePlan(const std::string& path, const v1::PlacementPlan& plan) {
  if (!absl::EndsWithIgnoreCase(path, ".svg")) {
    return WriteTextFile("-o", path, MessageToJson(plan));
  }
  MILLRACE_ASSIGN_OR_RETURN(const PlacementPlan value, FromProto(plan));
  return WriteTextFile("-o", path, RenderPlanSvg(value));
}

}  // namespace

void AddShowFlags(CLI::App* app, ShowFlags& flags) {
  app->add_flag(
      "--explain", flags.explain,
      "what every byte is for, simpler placements, and what more memory or bandwidth buys");
  app->add_flag("--json", flags.json, "print the plan as one JSON object");
  app->add_option("-o,--output", flags.output,
                  "write the plan to this file: as JSON, or as a picture where it ends in .svg");
}

void PrintNotes(const std::string& model_note, const std::vector<std::string>& notes, bool json) {
  std::FILE* out = json ? stderr : stdout;
  if (!model_note.empty()) std::fprintf(out, "%s\n\n", model_note.c_str());
  if (notes.empty()) return;
  std::fprintf(out, "planned for a described machine, nothing was measured here\n  %s\n\n",
               absl::StrJoin(notes, "\n  ").c_str());
}

void PrintAddedCards(const MachineChange& change, bool json) {
  for (const GpuProfile* gpu : change.more_gpus) {
    std::fprintf(json ? stderr : stdout, "added %s\n",
                 absl::StrCat(gpu->name, ": ", gpu->source).c_str());
  }
  if (!change.more_gpus.empty()) std::fprintf(json ? stderr : stdout, "\n");
}

absl::StatusOr<int> ShowPlan(const v1::PlacementPlan& plan, const ShowFlags& flags,
                             const std::function<absl::StatusOr<std::string>()>& text) {
  if (!flags.output.empty()) MILLRACE_RETURN_IF_ERROR(WritePlan(flags.output, plan));
  std::string out;
  if (flags.json) {
    out = MessageToJson(plan);
  } else {
    MILLRACE_ASSIGN_OR_RETURN(out, text());
  }
  std::fputs(out.c_str(), stdout);
  return kExitDone;
}

void PrintBothAsJson(const v1::PlacementPlan* as_is, const v1::PlacementPlan* changed) {
  const auto json = [](const v1::PlacementPlan* plan) {
    return plan != nullptr ? nlohmann::ordered_json::parse(MessageToJson(*plan))
                           : nlohmann::ordered_json(nullptr);
  };
  PrintJson({{"as_is", json(as_is)}, {"what_if", json(changed)}});
}

}  // namespace millrace
