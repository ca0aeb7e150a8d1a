// millrace plan watch: a planner's answer, again whenever its cluster changes.
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_join.h"
#include "proto/plan_json.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/plan_remote.h"
#include "tools/planner_client.h"

namespace millrace {
namespace {

struct WatchFlags {
  PlanQuestion question;
  int events = 0;  // 0: until interrupted
  bool json = false;
};

void PrintEvent(const v1::WatchPlanEvent& event, bool json) {
  if (json) {
    std::printf("%s\n", MessageToJson(event, /*indent=*/false).c_str());
  } else {
    std::printf("-- %lld: %s\n", static_cast<long long>(event.sequence()),
                event.since().empty() ? "as it is" : absl::StrJoin(event.since(), "; ").c_str());
    std::printf("   workers: %s%s\n",
                event.workers().empty() ? "none" : absl::StrJoin(event.workers(), ", ").c_str(),
                event.loaded() ? "; this plan is loaded" : "");
    std::printf("%s\n", event.has_none() ? event.none().c_str() : event.planned().text().c_str());
  }
  std::fflush(stdout);
}

// What is loaded, unless a model is named.
bool AsksForLoaded(const PlanQuestion& q) { return q.runtime.model.empty() && q.shape.empty(); }

absl::StatusOr<int> RunPlanWatch(const WatchFlags& flags) {
  const PlanQuestion& question = flags.question;
  MILLRACE_RETURN_IF_ERROR(CheckQuestion(question));
  v1::WatchPlanRequest request;
  if (!AsksForLoaded(question)) {
    MILLRACE_ASSIGN_OR_RETURN(RemoteQuestion asked, MakeRemoteQuestion(question));
    *request.mutable_question() = std::move(asked.request);
  }
  MILLRACE_ASSIGN_OR_RETURN(std::unique_ptr<PlannerClient> client,
                            PlannerClient::Connect(question.runtime.planner));
  MILLRACE_RETURN_IF_ERROR(client->WatchPlan(request, [&flags](const v1::WatchPlanEvent& event) {
    PrintEvent(event, flags.json);
    return flags.events == 0 || event.sequence() < flags.events;
  }));
  return kExitDone;
}

}  // namespace

void AddPlanWatchCommand(CLI::App& plan, Command& chosen) {
  auto flags = std::make_shared<WatchFlags>();
  CLI::App* sub = plan.add_subcommand(
      "watch",
      "a planner's plan for MODEL, or the one that is loaded, whenever its cluster changes");
  AddQuestionFlags(sub, flags->question);
  RuntimeRequest& runtime = flags->question.runtime;
  sub->add_option("--planner", runtime.planner, "host:port of a millrace-planner")->required();
  AddBudgetFlags(sub, runtime.budget);
  sub->add_option("--events", flags->events, "end after so many [when interrupted]")
      ->check(CLI::Range(1, 1 << 30));
  sub->add_flag("--json", flags->json, "print one JSON object per line");
  sub->callback([flags, &chosen] { chosen = [flags] { return RunPlanWatch(*flags); }; });
}

}  // namespace millrace
