// millrace plan: where everything would go and how fast it would be.
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "planner/plan_messages.h"
#include "planner/plan_report.h"
#include "proto/convert.h"
#include "proto/plan_json.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/local_runtime.h"
#include "tools/planner_client.h"

namespace millrace {
namespace {

struct PlanFlags {
  RuntimeRequest runtime;
  std::string workers, output;
  bool explain = false, json = false;
};

absl::StatusOr<SolveResult> PlanOnCluster(const RuntimeRequest& request) {
  v1::PlanRequest plan;
  plan.set_model(request.model);
  MILLRACE_ASSIGN_OR_RETURN(*plan.mutable_options(), ToPlanOptions(request.budget));
  plan.mutable_options()->set_expected_prompt_tokens(request.expected_prompt_tokens);
  MILLRACE_ASSIGN_OR_RETURN(std::unique_ptr<PlannerClient> client,
                            PlannerClient::Connect(request.planner));
  MILLRACE_ASSIGN_OR_RETURN(const v1::PlanResponse response, client->Plan(plan));
  SolveResult result;
  if (response.has_infeasible()) {
    result.infeasible = FromProto(response.infeasible());
  } else {
    MILLRACE_ASSIGN_OR_RETURN(result.plan, FromProto(response.plan()));
  }
  return result;
}

absl::StatusOr<SolveResult> PlanHere(const PlanFlags& flags, PlacementProblem& problem) {
  MILLRACE_RETURN_IF_ERROR(ParseBudget(flags.runtime.budget));
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model, Model::Open(flags.runtime.model));
  RuntimeRequest request = flags.runtime;
  // Imagined workers are like this machine's CPU unless devices are named.
  if (!flags.workers.empty() && request.budget.devices.empty()) request.budget.devices = "cpu";
  MILLRACE_ASSIGN_OR_RETURN(problem, LocalProblem(*model, request));
  if (!flags.workers.empty()) {
    const HostSpec here = problem.cluster.hosts.front();
    MILLRACE_ASSIGN_OR_RETURN(problem.cluster, ParseImaginedWorkers(flags.workers, here));
  }
  return Solve(problem);
}

absl::StatusOr<int> RunPlan(const PlanFlags& flags) {
  if (!flags.workers.empty() && !flags.runtime.planner.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--workers: '", flags.workers, "' and --planner exclude each other"));
  }
  const bool here = flags.runtime.planner.empty();
  PlacementProblem problem;  // of a plan made here
  MILLRACE_ASSIGN_OR_RETURN(const SolveResult result,
                            here ? PlanHere(flags, problem) : PlanOnCluster(flags.runtime));
  if (result.infeasible.has_value()) return ReportInfeasible(*result.infeasible, flags.json);
  const std::string json = PlanToJson(*result.plan);
  if (!flags.output.empty()) {
    MILLRACE_RETURN_IF_ERROR(WriteTextFile("-o", flags.output, json));
  }
  const std::string text = flags.json      ? json
                           : flags.explain ? RenderExplain(*result.plan, here ? &problem : nullptr)
                                           : RenderPlanTable(*result.plan);
  std::fputs(text.c_str(), stdout);
  return kExitDone;
}

// What was given to `plan` has no meaning for a subcommand of it.
void RefuseFlagsBefore(const CLI::App& plan, const CLI::App& sub) {
  for (const CLI::Option* option : plan.get_options()) {
    if (option->count() == 0) continue;
    throw CLI::ValidationError(option->get_name(),
                               absl::StrCat("has no meaning with `plan ", sub.get_name(), "`"));
  }
}

}  // namespace

void AddPlanCommand(CLI::App& app, Command& chosen) {
  auto flags = std::make_shared<PlanFlags>();
  CLI::App* sub = app.add_subcommand("plan", "where everything would go, and how fast it would be");
  sub->add_option("MODEL", flags->runtime.model, "GGUF file or Hugging Face folder");
  sub->add_option("--planner", flags->runtime.planner, "host:port of a millrace-planner");
  AddBudgetFlags(sub, flags->runtime.budget);
  sub->add_option("--expected-prompt", flags->runtime.expected_prompt_tokens,
                  "prompt length for the predicted time to first token")
      ->check(CLI::Range(1, 1 << 26));
  sub->add_option("--workers", flags->workers,
                  "plan over imagined workers like this host: w0=12MiB,w1=12MiB");
  sub->add_flag("--explain", flags->explain, "every block, and what every byte is for");
  sub->add_flag("--json", flags->json, "print the plan as one JSON object");
  sub->add_option("-o,--output", flags->output, "write the plan's JSON to this file");
  sub->footer("A model in a file named diff is given as ./diff.");
  AddPlanDiffCommand(*sub, chosen);
  sub->callback([sub, flags, &chosen] {
    if (sub->get_subcommands().empty()) {
      chosen = [flags] { return RunPlan(*flags); };
    } else {
      RefuseFlagsBefore(*sub, *sub->get_subcommands().front());
    }
  });
}

}  // namespace millrace
