// millrace eval: perplexity of a text.
#include <cmath>
#include <cstdio>
#include <memory>

#include "absl/strings/str_format.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/progress_bar.h"
#include "tools/runtime.h"
#include "tools/text_windows.h"

namespace millrace {
namespace {

constexpr int kDefaultContext = 512;

struct EvalFlags {
  RuntimeRequest runtime;
  std::string text_path, log_probs_path;
  bool json = false;
};

struct Score {
  std::vector<float> log_probs;  // of the scored tokens, in order
  double negative_log_likelihood = 0;  // sum, natural
  int64_t scored = 0;
  int windows = 0;
  double perplexity() const { return std::exp(negative_log_likelihood / scored); }
};

// Of all blocks, where they are homed.
Bytes WeightBytes(const PlacementPlan& plan) {
  Bytes sum;
  for (const BlockPlacement& block : plan.blocks) sum += block.weights;
  return sum;
}

absl::StatusOr<Score> ScoreWindows(const Runtime& runtime,
                                   const std::vector<std::vector<TokenId>>& windows, int length) {
  Score score;
  ProgressBar bar("eval", ProgressBar::Unit::kCount);
  for (const std::vector<TokenId>& window : windows) {
    MILLRACE_ASSIGN_OR_RETURN(const std::vector<float> log_probs,
                              runtime.log_probs(window, FirstScored(length)));
    for (float log_prob : log_probs) score.negative_log_likelihood -= log_prob;
    score.log_probs.insert(score.log_probs.end(), log_probs.begin(), log_probs.end());
    score.scored += static_cast<int64_t>(log_probs.size());
    ++score.windows;
    bar.Update(score.windows, static_cast<int64_t>(windows.size()),
               absl::StrFormat("perplexity %.3f", score.perplexity()));
  }
  return score;
}

absl::StatusOr<int> RunEval(EvalFlags flags) {
  RuntimeRequest& request = flags.runtime;
  if (request.budget.context == 0) request.budget.context = kDefaultContext;
  const int window = request.budget.context;
  request.expected_prompt_tokens = window;
  MILLRACE_ASSIGN_OR_RETURN(const TextWindows text,
                            ReadTextWindows(request.model, flags.text_path, window));
  MILLRACE_ASSIGN_OR_RETURN(RuntimeOrInfeasible opened, OpenRuntime(request));
  if (opened.infeasible.has_value()) return ReportInfeasible(*opened.infeasible, flags.json);
  MILLRACE_ASSIGN_OR_RETURN(const Score score,
                            ScoreWindows(*opened.runtime, text.windows, window));
  if (!flags.log_probs_path.empty()) {
    std::string lines;
    for (float log_prob : score.log_probs) absl::StrAppendFormat(&lines, "%.9g\n", log_prob);
    MILLRACE_RETURN_IF_ERROR(WriteTextFile("--log-probs", flags.log_probs_path, lines));
  }
  if (flags.json) {
    PrintJson({{"perplexity", score.perplexity()},
               {"tokens", text.text_tokens},
               {"windows", score.windows},
               {"scored", score.scored},
               {"context", window},
               {"weight_bytes", WeightBytes(opened.runtime->plan).count()}});
  } else {
    std::printf("perplexity %.4f over %d windows of %d tokens (%lld scored)\n", score.perplexity(),
                score.windows, window, static_cast<long long>(score.scored));
  }
  return kExitDone;
}

}  // namespace

void AddEvalCommand(CLI::App& app, Command& chosen) {
  auto flags = std::make_shared<EvalFlags>();
  CLI::App* sub = app.add_subcommand("eval", "perplexity of a text");
  AddRuntimeFlags(sub, flags->runtime);
  sub->add_option("--text", flags->text_path, "the text file")->required();
  sub->add_option("--log-probs", flags->log_probs_path,
                  "write the natural log-probability of every scored token, a line each");
  sub->add_flag("--json", flags->json, "print one JSON object");
  sub->callback([flags, &chosen] { chosen = [flags] { return RunEval(*flags); }; });
}

}  // namespace millrace
