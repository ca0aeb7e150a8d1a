// millrace plan: where everything would go and how fast it would be.
#include <cstdio>
#include <memory>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "planner/plan_messages.h"
#include "planner/plan_report.h"
#include "planner/plan_svg.h"
#include "planner/what_if.h"
#include "proto/convert.h"
#include "proto/plan_json.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/gap_report.h"
#include "tools/hardware_flag.h"
#include "tools/plan_file.h"
#include "tools/plan_problem.h"
#include "tools/plan_question.h"
#include "tools/planner_client.h"
#include "tools/what_if_flag.h"

namespace millrace {
namespace {

// What becomes of a plan.
struct ShowFlags {
  std::string output;
  bool explain = false, json = false;
};

void AddShowFlags(CLI::App* app, ShowFlags& flags) {
  app->add_flag(
      "--explain", flags.explain,
      "what every byte is for, simpler placements, and what more memory or bandwidth buys");
  app->add_flag("--json", flags.json, "print the plan as one JSON object");
  app->add_option("-o,--output", flags.output,
                  "write the plan to this file: as JSON, or as a picture where it ends in .svg");
}

struct PlanFlags {
  PlanQuestion question;
  std::string what_if;
  int gap_seconds = 0;  // 0: not asked for
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

// Where the figures of a machine come from that was not measured; beside JSON on stderr.
void PrintNotes(const std::vector<std::string>& notes, bool json) {
  if (notes.empty()) return;
  std::fprintf(json ? stderr : stdout,
               "planned for a described machine, nothing was measured here\n  %s\n\n",
               absl::StrJoin(notes, "\n  ").c_str());
}

void PrintAddedCards(const MachineChange& change, bool json) {
  for (const GpuProfile* gpu : change.more_gpus) {
    std::fprintf(json ? stderr : stdout, "added %s\n",
                 absl::StrCat(gpu->name, ": ", gpu->source).c_str());
  }
  if (!change.more_gpus.empty()) std::fprintf(json ? stderr : stdout, "\n");
}

// The same question on another cluster.
PlanOn PlanOnOf(const AskedProblem& asked) {
  return [&asked](const ClusterSpec& cluster) -> absl::StatusOr<std::optional<PlacementPlan>> {
    MILLRACE_ASSIGN_OR_RETURN(const PlacementProblem problem,
                              ProblemOn(cluster, asked.problem.model, asked.runtime));
    return FindPlan(problem);
  };
}

absl::StatusOr<std::string> Explain(const PlacementPlan& plan, const AskedProblem* asked) {
  if (asked == nullptr) return RenderExplain(plan, nullptr);
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<Gain> gains,
                            GainsOfMore(asked->problem.cluster, plan, PlanOnOf(*asked)));
  return RenderExplain(plan, &asked->problem) + RenderGains(gains, plan.predicted);
}

// `asked`: null for a plan that a planner made, or that was read.
absl::StatusOr<int> ShowPlan(const PlacementPlan& plan, const AskedProblem* asked,
                             const ShowFlags& flags) {
  const std::string json = PlanToJson(plan);
  if (!flags.output.empty()) {
    const bool picture = absl::EndsWithIgnoreCase(flags.output, ".svg");
    MILLRACE_RETURN_IF_ERROR(
        WriteTextFile("-o", flags.output, picture ? RenderPlanSvg(plan) : json));
  }
  std::string text = flags.json ? json : RenderPlanTable(plan);
  if (flags.explain && !flags.json) {
    MILLRACE_ASSIGN_OR_RETURN(text, Explain(plan, asked));
  }
  std::fputs(text.c_str(), stdout);
  return kExitDone;
}

absl::StatusOr<int> Report(const PlanFlags& flags, const SolveResult& result,
                           const AskedProblem* asked) {
  if (asked != nullptr) PrintNotes(asked->notes, flags.show.json);
  if (result.infeasible.has_value()) return ReportInfeasible(*result.infeasible, flags.show.json);
  MILLRACE_ASSIGN_OR_RETURN(const int code, ShowPlan(*result.plan, asked, flags.show));
  if (flags.gap_seconds == 0) return code;
  const absl::StatusOr<std::string> gap =
      RenderGap(asked->problem, *result.plan, absl::Seconds(flags.gap_seconds));
  if (!gap.ok()) return Annotate(gap.status(), "--gap");
  std::fputs(gap->c_str(), flags.show.json ? stderr : stdout);
  return code;
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

// {"as_is": PLAN, "what_if": PLAN}, null for one that does not fit.
void PrintBothAsJson(const SolveResult& as_is, const SolveResult& changed) {
  const auto json = [](const SolveResult& result) {
    return result.plan ? nlohmann::ordered_json::parse(PlanToJson(*result.plan))
                       : nlohmann::ordered_json(nullptr);
  };
  PrintJson({{"as_is", json(as_is)}, {"what_if", json(changed)}});
}

absl::StatusOr<int> ReportWhatIf(const PlanFlags& flags, const MachineChange& change,
                                 const SolveResult& as_is, const AskedProblem& asked) {
  absl::StatusOr<ClusterSpec> cluster = Changed(asked.problem.cluster, change);
  if (!cluster.ok()) return Annotate(cluster.status(), "--what-if");
  MILLRACE_ASSIGN_OR_RETURN(const PlacementProblem problem,
                            ProblemOn(*cluster, asked.problem.model, asked.runtime));
  MILLRACE_ASSIGN_OR_RETURN(const SolveResult changed, Solve(problem));
  PrintNotes(asked.notes, flags.show.json);
  PrintAddedCards(change, flags.show.json);
  if (!as_is.plan && !changed.plan) return ReportInfeasible(*changed.infeasible, flags.show.json);
  if (flags.show.json) {
    PrintBothAsJson(as_is, changed);
  } else {
    std::fputs(RenderSideBySide(as_is, changed).c_str(), stdout);
  }
  return kExitDone;
}

absl::Status CheckFlags(const PlanFlags& flags) {
  MILLRACE_RETURN_IF_ERROR(CheckQuestion(flags.question));
  if (flags.gap_seconds > 0 && !flags.question.runtime.planner.empty()) {
    return absl::InvalidArgumentError("--gap and --planner exclude each other");
  }
  if (flags.what_if.empty()) return absl::OkStatus();
  for (const auto& [given, name] :
       {std::pair(!flags.question.runtime.planner.empty(), "--planner"),
        std::pair(!flags.show.output.empty(), "-o"), std::pair(flags.show.explain, "--explain"),
        std::pair(flags.gap_seconds > 0, "--gap")}) {
    if (given) {
      return absl::InvalidArgumentError(
          absl::StrCat("--what-if and ", name, " exclude each other"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int> RunPlan(const PlanFlags& flags) {
  const PlanQuestion& question = flags.question;
  if (question.hardware == "list") {
    std::fputs(RenderHardwareProfiles().c_str(), stdout);
    return kExitDone;
  }
  MILLRACE_RETURN_IF_ERROR(CheckFlags(flags));
  if (!question.runtime.planner.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(const SolveResult result, PlanOnCluster(question.runtime));
    return Report(flags, result, nullptr);
  }
  std::optional<MachineChange> change;
  if (!flags.what_if.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(change, ParseWhatIf(flags.what_if));
  }
  MILLRACE_ASSIGN_OR_RETURN(const AskedProblem asked, MakeProblem(question));
  MILLRACE_ASSIGN_OR_RETURN(const SolveResult result, Solve(asked.problem));
  return change ? ReportWhatIf(flags, *change, result, asked) : Report(flags, result, &asked);
}

}  // namespace

void AddPlanCommand(CLI::App& app, Command& chosen) {
  auto flags = std::make_shared<PlanFlags>();
  CLI::App* sub = app.add_subcommand("plan", "where everything would go, and how fast it would be");
  AddQuestionFlags(sub, flags->question);
  RuntimeRequest& runtime = flags->question.runtime;
  sub->add_option("--planner", runtime.planner, "host:port of a millrace-planner");
  AddBudgetFlags(sub, runtime.budget);
  sub->add_option("--expected-prompt", runtime.expected_prompt_tokens,
                  "prompt length for the predicted time to first token")
      ->check(CLI::Range(1, 1 << 26));
  sub->add_option("--what-if", flags->what_if,
                  "the plan beside that of a changed machine: gpu0=24GiB,host=64GiB,pcie=4x8,"
                  "dram=80GB/s,disk=3GB/s,add=rtx-3090");
  sub->add_flag("--gap{30}", flags->gap_seconds,
                "how far the plan is from a bound that the solver cbc proves in 30 s, or in --gap=N s")
      ->check(CLI::Range(1, 86400));
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
