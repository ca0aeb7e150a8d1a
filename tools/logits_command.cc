// millrace logits: all logits at the last position.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <numeric>

#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/prompt.h"
#include "tools/runtime.h"

namespace millrace {
namespace {

struct LogitsFlags {
  RuntimeRequest runtime;
  PromptFlags prompt;
  bool json = false;
};

constexpr int kShown = 10;  // largest logits in the form for people

absl::StatusOr<int> RunLogits(const LogitsFlags& flags) {
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                            PromptTokens(flags.runtime.model, flags.prompt));
  MILLRACE_ASSIGN_OR_RETURN(RuntimeOrInfeasible opened, OpenRuntime(flags.runtime));
  if (opened.infeasible.has_value()) return ReportInfeasible(*opened.infeasible, flags.json);
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<float> logits, opened.runtime->logits(tokens));
  if (flags.json) {
    PrintJson({{"tokens", tokens}, {"logits", logits}});
    return kExitDone;
  }
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const int shown = std::min<int>(kShown, static_cast<int>(order.size()));
  std::partial_sort(order.begin(), order.begin() + shown, order.end(),
                    [&](int a, int b) { return logits[a] > logits[b]; });
  for (int i = 0; i < shown; ++i) std::printf("%8d  %10.5f\n", order[i], logits[order[i]]);
  std::fprintf(stderr, "the %d largest of %zu; --json prints all\n", shown, logits.size());
  return kExitDone;
}

}  // namespace

void AddLogitsCommand(CLI::App& app, Command& chosen) {
  auto flags = std::make_shared<LogitsFlags>();
  CLI::App* sub = app.add_subcommand("logits", "the logits at a prompt's last position");
  AddRuntimeFlags(sub, flags->runtime);
  AddPromptFlags(sub, flags->prompt);
  sub->add_flag("--json", flags->json, "print all of them as one JSON object");
  sub->callback([flags, &chosen] { chosen = [flags] { return RunLogits(*flags); }; });
}

}  // namespace millrace
