// millrace plan: where everything would go and how fast it would be.
#include <cstdio>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "planner/plan_report.h"
#include "planner/what_if.h"
#include "proto/convert.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/gap_report.h"
#include "tools/hardware_flag.h"
#include "tools/plan_file.h"
#include "tools/plan_output.h"
#include "tools/plan_problem.h"
#include "tools/plan_question.h"
#include "tools/plan_remote.h"
#include "tools/what_if_flag.h"

namespace millrace {
namespace {

struct PlanFlags {
  PlanQuestion question;
  std::string what_if;
  int gap_seconds = 0;  // 0: not asked for
  ShowFlags show;
};

absl::StatusOr<std::string> TextOf(const PlacementPlan& plan, const AskedProblem* asked,
                                   bool explain) {
  if (!explain) return RenderPlanTable(plan);
  if (asked == nullptr) return RenderExplain(plan, nullptr);
  MILLRACE_ASSIGN_OR_RETURN(const PlanQuery query, QueryFor(asked->problem.model, asked->runtime));
  return ExplainPlan(query, asked->problem, plan);
}

// `asked`: null for a plan that was read.
absl::StatusOr<int> Show(const PlacementPlan& plan, const AskedProblem* asked,
                         const ShowFlags& flags) {
  return ShowPlan(ToProto(plan), flags, [&] { return TextOf(plan, asked, flags.explain); });
}

absl::StatusOr<int> Report(const PlanFlags& flags, const SolveResult& result,
                           const AskedProblem& asked) {
  PrintNotes(asked.model_note, asked.notes, flags.show.json);
  if (result.infeasible.has_value()) return ReportInfeasible(*result.infeasible, flags.show.json);
  MILLRACE_ASSIGN_OR_RETURN(const int code, Show(*result.plan, &asked, flags.show));
  if (flags.gap_seconds == 0) return code;
  const absl::StatusOr<std::string> gap =
      RenderGap(asked.problem, *result.plan, absl::Seconds(flags.gap_seconds));
  if (!gap.ok()) return Annotate(gap.status(), "--gap");
  std::fputs(gap->c_str(), flags.show.json ? stderr : stdout);
  return code;
}

absl::StatusOr<int> RunPlanShow(const std::string& path, const ShowFlags& flags) {
  MILLRACE_ASSIGN_OR_RETURN(const PlacementPlan plan, ReadPlanFile("PLAN", path));
  return Show(plan, nullptr, flags);
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
  sub->callback(
      [path, flags, &chosen] { chosen = [path, flags] { return RunPlanShow(*path, *flags); }; });
}

absl::StatusOr<int> ReportWhatIf(const PlanFlags& flags, const MachineChange& change,
                                 const SolveResult& as_is, const AskedProblem& asked) {
  MILLRACE_ASSIGN_OR_RETURN(const PlanQuery query, QueryFor(asked.problem.model, asked.runtime));
  MILLRACE_ASSIGN_OR_RETURN(const ChangedAnswer answer,
                            SolveChanged(query, asked.problem.cluster, change, "--what-if"));
  const SolveResult& changed = answer.result;
  PrintNotes(asked.model_note, asked.notes, flags.show.json);
  PrintAddedCards(change, flags.show.json);
  if (!as_is.plan && !changed.plan) return ReportInfeasible(*changed.infeasible, flags.show.json);
  if (flags.show.json) {
    std::optional<v1::PlacementPlan> now, then;
    if (as_is.plan) now = ToProto(*as_is.plan);
    if (changed.plan) then = ToProto(*changed.plan);
    PrintBothAsJson(now ? &*now : nullptr, then ? &*then : nullptr);
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
       {std::pair(!flags.show.output.empty(), "-o"), std::pair(flags.show.explain, "--explain"),
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
    return RunRemotePlan(question, flags.what_if, flags.show);
  }
  std::optional<MachineChange> change;
  if (!flags.what_if.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(change, ParseWhatIf(flags.what_if));
  }
  MILLRACE_ASSIGN_OR_RETURN(const AskedProblem asked, MakeProblem(question));
  MILLRACE_ASSIGN_OR_RETURN(const SolveResult result, Solve(asked.problem));
  return change ? ReportWhatIf(flags, *change, result, asked) : Report(flags, result, asked);
}

}  // namespace

void AddPlanCommand(CLI::App& app, Command& chosen) {
  auto flags = std::make_shared<PlanFlags>();
  CLI::App* sub = app.add_subcommand("plan", "where everything would go, and how fast it would be");
  AddQuestionFlags(sub, flags->question);
  RuntimeRequest& runtime = flags->question.runtime;
  sub->add_option("--planner", runtime.planner,
                  "ask the millrace-planner at host:port: about its workers, or about --hardware");
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
  sub->footer("A model in a file named diff, show, verify or watch is given as ./diff, ./show, ./verify, ./watch.");
  AddPlanShowCommand(*sub, chosen);
  AddPlanDiffCommand(*sub, chosen);
  AddPlanVerifyCommand(*sub, chosen);
  AddPlanWatchCommand(*sub, chosen);
  sub->callback([sub, flags, &chosen] {
    if (sub->get_subcommands().empty()) {
      chosen = [flags] { return RunPlan(*flags); };
    } else {
      RefuseFlagsBefore(*sub, *sub->get_subcommands().front());
    }
  });
}

}  // namespace millrace
