// millrace plan diff: what differs between two plan files.
#include <cstdio>
#include <memory>
#include <utility>

#include "planner/plan_diff.h"
#include "planner/query_messages.h"
#include "proto/convert.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/plan_file.h"
#include "tools/planner_client.h"

namespace millrace {
namespace {

using Json = nlohmann::ordered_json;

struct DiffFlags {
  std::string before, after, planner;
  bool json = false;
};

// What differs, and in words.
struct Difference {
  PlanDiff diff;
  std::string text;
};

Json FieldsJson(const std::vector<FieldChange>& changes) {
  Json out = Json::array();
  for (const FieldChange& c : changes) {
    out.push_back({{"field", c.field}, {"before", c.before}, {"after", c.after}});
  }
  return out;
}

Json MemoryJson(const std::vector<BytesChange>& changes) {
  Json out = Json::array();
  for (const BytesChange& c : changes) {
    out.push_back({{"worker", c.worker.value()},
                   {"memory", c.memory},
                   {"what", c.what},
                   {"before", c.before.count()},
                   {"after", c.after.count()},
                   {"difference", (c.after - c.before).count()}});
  }
  return out;
}

Json BlocksJson(const std::vector<BlockChange>& changes) {
  Json out = Json::array();
  for (const BlockChange& c : changes) {
    out.push_back({{"blocks", c.blocks},
                   {"before", c.before},
                   {"after", c.after},
                   {"weights_before", c.before_weights.count()},
                   {"weights_after", c.after_weights.count()}});
  }
  return out;
}

Json PredictionsJson(const std::vector<PredictionChange>& changes) {
  Json out = Json::array();
  for (const PredictionChange& c : changes) {
    out.push_back({{"name", c.name},
                   {"before", c.before},
                   {"after", c.after},
                   {"difference", c.difference()},
                   {"percent", c.percent()}});
  }
  return out;
}

Json DiffJson(const PlanDiff& diff) {
  Json out;
  out["same"] = diff.same();
  out["same_model"] = !diff.other_model;
  out["settings"] = FieldsJson(diff.settings);
  out["stages"] = FieldsJson(diff.stages);
  out["memory"] = MemoryJson(diff.memory);
  out["moved"] = BlocksJson(diff.moved);
  out["routes"] = BlocksJson(diff.routes);
  out["kv_caches"] = BlocksJson(diff.kv_caches);
  out["held"] = BlocksJson(diff.held);
  out["predictions"] = PredictionsJson(diff.predictions);
  return out;
}

absl::StatusOr<Difference> Compare(const PlacementPlan& before, const PlacementPlan& after,
                                   const std::string& planner) {
  if (planner.empty()) {
    PlanDiff diff = ComparePlans(before, after);
    std::string text = RenderPlanDiff(diff);
    return Difference{std::move(diff), std::move(text)};
  }
  v1::DiffPlansRequest request;
  *request.mutable_before() = ToProto(before);
  *request.mutable_after() = ToProto(after);
  MILLRACE_ASSIGN_OR_RETURN(std::unique_ptr<PlannerClient> client, PlannerClient::Connect(planner));
  MILLRACE_ASSIGN_OR_RETURN(const v1::DiffPlansResponse response, client->DiffPlans(request));
  return Difference{FromProto(response), response.text()};
}

absl::StatusOr<int> RunPlanDiff(const DiffFlags& flags) {
  MILLRACE_ASSIGN_OR_RETURN(const PlacementPlan before, ReadPlanFile("BEFORE", flags.before));
  MILLRACE_ASSIGN_OR_RETURN(const PlacementPlan after, ReadPlanFile("AFTER", flags.after));
  MILLRACE_ASSIGN_OR_RETURN(const Difference difference, Compare(before, after, flags.planner));
  if (flags.json) {
    PrintJson(DiffJson(difference.diff));
  } else {
    std::fputs(difference.text.c_str(), stdout);
  }
  return kExitDone;
}

}  // namespace

void AddPlanDiffCommand(CLI::App& plan, Command& chosen) {
  auto flags = std::make_shared<DiffFlags>();
  CLI::App* sub = plan.add_subcommand("diff", "what differs between two plan files");
  sub->add_option("BEFORE", flags->before, "a plan's JSON")->required();
  sub->add_option("AFTER", flags->after, "another's")->required();
  sub->add_option("--planner", flags->planner, "let the millrace-planner at host:port compare");
  sub->add_flag("--json", flags->json, "print one JSON object");
  sub->callback([flags, &chosen] { chosen = [flags] { return RunPlanDiff(*flags); }; });
}

}  // namespace millrace
