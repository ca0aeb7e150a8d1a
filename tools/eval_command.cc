// millrace eval: perplexity of a text.
#include <cmath>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/progress_bar.h"
#include "tools/prompt.h"
#include "tools/runtime.h"

namespace millrace {
namespace {

constexpr int kDefaultContext = 512;

struct EvalFlags {
  RuntimeRequest runtime;
  std::string text_path;
  bool json = false;
};

struct Score {
  double negative_log_likelihood = 0;  // sum, natural
  int64_t scored = 0;
  int windows = 0;
  double perplexity() const { return std::exp(negative_log_likelihood / scored); }
};

// Consecutive full windows of `window` tokens, the first of each replaced by BOS where the
// vocabulary adds one. The logits at positions window/2 .. window-2 are scored, each against the
// token after it: every prediction has at least window/2 + 1 tokens before it.
absl::StatusOr<Score> ScoreWindows(const Runtime& runtime, const Tokenizer& tokenizer,
                                   const std::vector<TokenId>& tokens, int window) {
  Score score;
  ProgressBar bar("eval", ProgressBar::Unit::kCount);
  const int windows = static_cast<int>(tokens.size()) / window;
  for (int w = 0; w < windows; ++w) {
    const auto begin = tokens.begin() + static_cast<int64_t>(w) * window;
    std::vector<TokenId> part(begin, begin + window);
    if (tokenizer.adds_bos()) part[0] = tokenizer.bos();
    MILLRACE_ASSIGN_OR_RETURN(const std::vector<float> log_probs,
                              runtime.log_probs(part, window / 2 + 1));
    for (float log_prob : log_probs) score.negative_log_likelihood -= log_prob;
    score.scored += static_cast<int64_t>(log_probs.size());
    ++score.windows;
    bar.Update(w + 1, windows, absl::StrFormat("perplexity %.3f", score.perplexity()));
  }
  return score;
}

absl::StatusOr<int> RunEval(EvalFlags flags) {
  RuntimeRequest& request = flags.runtime;
  if (request.budget.context == 0) request.budget.context = kDefaultContext;
  const int window = request.budget.context;
  if (window < 4) {
    return absl::InvalidArgumentError(absl::StrCat("--ctx: ", window, " is below 4"));
  }
  request.expected_prompt_tokens = window;
  MILLRACE_ASSIGN_OR_RETURN(const std::string text, ReadTextFile("--text", flags.text_path));
  MILLRACE_ASSIGN_OR_RETURN(const std::unique_ptr<const Tokenizer> tokenizer,
                            OpenTokenizer(request.model));
  EncodeOptions options;
  options.parse_special = false;
  const std::vector<TokenId> tokens = tokenizer->Encode(text, options);
  if (static_cast<int>(tokens.size()) < window) {
    return absl::InvalidArgumentError(
        absl::StrCat("--text: '", flags.text_path, "' has ", tokens.size(),
                     " tokens, less than one window of ", window, "; give a smaller --ctx"));
  }
  MILLRACE_ASSIGN_OR_RETURN(RuntimeOrInfeasible opened, OpenRuntime(request));
  if (opened.infeasible.has_value()) return ReportInfeasible(*opened.infeasible, flags.json);
  MILLRACE_ASSIGN_OR_RETURN(const Score score,
                            ScoreWindows(*opened.runtime, *tokenizer, tokens, window));
  if (flags.json) {
    PrintJson({{"perplexity", score.perplexity()},
               {"tokens", tokens.size()},
               {"windows", score.windows},
               {"scored", score.scored},
               {"context", window}});
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
  sub->add_flag("--json", flags->json, "print one JSON object");
  sub->callback([flags, &chosen] { chosen = [flags] { return RunEval(*flags); }; });
}

}  // namespace millrace
