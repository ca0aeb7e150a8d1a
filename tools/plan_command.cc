// millrace plan: where everything would go and how fast it would be.
#include <cstdio>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "planner/plan_messages.h"
#include "planner/plan_report.h"
#include "planner/plan_svg.h"
#include "proto/convert.h"
#include "proto/plan_json.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/local_runtime.h"
#include "tools/plan_file.h"
#include "tools/planner_client.h"

namespace millrace {
namespace {

// What becomes of a plan.
struct ShowFlags {
  std::string output;
  bool explain = false, json = false;
};

void AddShowFlags(CLI::App* app, ShowFlags& flags) {
  app->add_flag("--explain", flags.explain, "every block, and what every byte is for");
  app->add_flag("--json", flags.json, "print the plan as one JSON object");
  app->add_option("-o,--output", flags.output,
                  "write the plan to this file: as JSON, or as a picture where it ends in .svg");
}

// `problem` may be null.
absl::StatusOr<int> ShowPlan(const PlacementPlan& plan, const PlacementProblem* problem,
                             const ShowFlags& flags) {
  const std::string json = PlanToJson(plan);
  if (!flags.output.empty()) {
    const bool picture = absl::EndsWithIgnoreCase(flags.output, ".svg");
    MILLRACE_RETURN_IF_ERROR(
        WriteTextFile("-o", flags.output, picture ? RenderPlanSvg(plan) : json));
  }
  const std::string text = flags.json      ? json
                           : flags.explain ? RenderExplain(plan, problem)
                                           : RenderPlanTable(plan);
  std::fputs(text.c_str(), stdout);
  return kExitDone;
}

struct PlanFlags {
  RuntimeRequest runtime;
  std::string workers;
  ShowFlags show;
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
  if (result.infeasible.has_value()) return ReportInfeasible(*result.infeasible, flags.show.json);
  return ShowPlan(*result.plan, here ? &problem : nullptr, flags.show);
}

absl::StatusOr<int> RunPlanShow(const std::string& path, const ShowFlags& flags) {
  MILLRACE_ASSIGN_OR_RETURN(const PlacementPlan plan, ReadPlanFile("PLAN", path));
  return ShowPlan(plan, nullptr, flags);
}

// What was given to `plan` has no meaning for a subcommand of it.
void RefuseFlagsBefore(const CLI::App& plan, const CLI::App& sub) {
  for (const CLI::Option* option : plan.get_options()) {
    if (option->count() == 0) continue;
    throw CLI::ValidationError(option->get_name(),
                               absl::StrCat("has no meaning with `plan ", sub.get_name(), "`"));
  }
}

void AddPlanShowCommand(CLI::App& plan, Command& chosen) {
  auto path = std::make_shared<std::string>();
  auto flags = std::make_shared<ShowFlags>();
  CLI::App* sub = plan.add_subcommand("show", "a plan file, without its model");
  sub->add_option("PLAN", *path, "a plan's JSON")->required();
  AddShowFlags(sub, *flags);
  sub->callback([path, flags, &chosen] {
    chosen = [path, flags] { return RunPlanShow(*path, *flags); };
  });
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
  AddShowFlags(sub, flags->show);
  sub->footer("A model in a file named diff or show is given as ./diff, ./show.");
  AddPlanShowCommand(*sub, chosen);
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
