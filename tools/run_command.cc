// millrace run: generates text.
#include <atomic>
#include <cstdio>
#include <memory>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "planner/plan_report.h"
#include "proto/plan_json.h"
#include "proto/request_id.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/prompt.h"
#include "tools/runtime.h"
#include "tools/stop_watch.h"
#include "tools/trace_file.h"
#include "tools/use_report.h"

namespace millrace {
namespace {

struct RunFlags {
  RuntimeRequest runtime;
  PromptFlags prompt;
  SamplingParams sampling;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::string trace;
  int max_tokens = 128;
  bool ignore_eos = false, context_shift = false, show_plan = false, json = false;
};

GenerateRequest MakeRequest(const RunFlags& flags, std::vector<TokenId> tokens) {
  GenerateRequest request;
  request.id = NewRequestId();
  request.tokens = std::move(tokens);
  request.max_tokens = flags.max_tokens;
  request.sampling = flags.sampling;
  request.sampling.seed = flags.seed.value_or(std::random_device()());
  request.stop = flags.stop;
  request.ignore_end_of_generation = flags.ignore_eos;
  request.overflow = flags.context_shift ? ContextOverflow::kShift : ContextOverflow::kStop;
  return request;
}

double TokensPerSecond(const GenerateSummary& summary) {
  const double seconds = absl::ToDoubleSeconds(summary.time_per_token);
  return seconds > 0 ? 1.0 / seconds : 0;
}

void PrintTable(const GenerateSummary& summary, const Prediction& predicted) {
  std::fprintf(stderr, "\n%-18s %12s %12s\n", "", "predicted", "measured");
  std::fprintf(stderr, "%-18s %12s %12s   (predicted for a prompt of %d, this one: %zu)\n",
               "first token after", RenderMilliseconds(predicted.ttft).c_str(),
               RenderMilliseconds(summary.ttft).c_str(), predicted.prompt_tokens,
               summary.prompt_tokens.size());
  std::fprintf(stderr, "%-18s %12s %12s\n", "time per token",
               RenderMilliseconds(predicted.time_per_token).c_str(),
               RenderMilliseconds(summary.time_per_token).c_str());
  std::fprintf(stderr, "%-18s %12.1f %12.1f\n", "tokens/s", predicted.decode_tokens_per_second,
               TokensPerSecond(summary));
}

nlohmann::ordered_json ToJson(const GenerateSummary& summary, const Prediction& predicted,
                              uint64_t seed) {
  nlohmann::ordered_json out;
  out["prompt_tokens"] = summary.prompt_tokens;
  out["tokens"] = summary.tokens;
  out["text"] = summary.text;
  const absl::string_view finish = FinishReasonName(summary.finish);
  out["finish"] = std::string(finish.data(), finish.size());
  out["seed"] = seed;
  out["timings"] = {{"queued_ms", absl::ToDoubleMilliseconds(summary.queued)},
                    {"ttft_ms", absl::ToDoubleMilliseconds(summary.ttft)},
                    {"tpot_ms", absl::ToDoubleMilliseconds(summary.time_per_token)},
                    {"tokens_per_second", TokensPerSecond(summary)}};
  out["predicted"] = {{"ttft_ms", absl::ToDoubleMilliseconds(predicted.ttft)},
                      {"prompt_tokens", predicted.prompt_tokens},
                      {"tpot_ms", absl::ToDoubleMilliseconds(predicted.time_per_token)},
                      {"tokens_per_second", predicted.decode_tokens_per_second}};
  return out;
}

// Generates with text streaming to stdout (unless --json). An interrupt ends it in good order.
absl::StatusOr<GenerateSummary> Stream(const Runtime& runtime, const GenerateRequest& request,
                                       bool json, InterruptWatch& watch) {
  std::atomic<bool> interrupted{false};
  GenerateSummary made;  // what to show if a cancelled generation has no summary
  made.id = request.id;
  made.prompt_tokens = request.tokens;
  made.finish = FinishReason::kCancelled;
  watch.Start([&] {
    interrupted.store(true);
    runtime.cancel(request.id);
  });
  absl::StatusOr<GenerateSummary> summary =
      runtime.generate(request, [&](const GenerateEvent& event) {
        made.tokens.push_back(event.token);
        made.text += event.text;
        if (!json) {
          std::fwrite(event.text.data(), 1, event.text.size(), stdout);
          std::fflush(stdout);
        }
        return !interrupted.load();
      });
  if (!summary.ok() && interrupted.load() && absl::IsCancelled(summary.status())) return made;
  return summary;
}

absl::StatusOr<int> RunRun(const RunFlags& given) {
  RunFlags flags = given;
  InterruptWatch watch;
  TraceFile trace;
  UseReport use;
  const bool tracing = !flags.trace.empty();
  flags.runtime.on_pass = [&trace, &use, tracing](const PassTrace& pass) {
    use.Add(pass);
    if (tracing) trace.Add(pass);
  };
  if (tracing) {
    if (!flags.runtime.planner.empty()) {
      return absl::InvalidArgumentError(
          "--trace records this process only: leave --planner out");
    }
  }
  MILLRACE_ASSIGN_OR_RETURN(std::vector<TokenId> tokens,
                            PromptTokens(flags.runtime.model, flags.prompt));
  const GenerateRequest request = MakeRequest(flags, std::move(tokens));
  MILLRACE_ASSIGN_OR_RETURN(RuntimeOrInfeasible opened, OpenRuntime(flags.runtime));
  if (opened.infeasible.has_value()) return ReportInfeasible(*opened.infeasible, flags.json);
  const Runtime& runtime = *opened.runtime;
  if (flags.show_plan) std::fputs(RenderPlanTable(runtime.plan).c_str(), stderr);
  if (!flags.json && !flags.prompt.text.empty()) {
    std::fwrite(flags.prompt.text.data(), 1, flags.prompt.text.size(), stdout);
    std::fflush(stdout);
  }
  absl::StatusOr<GenerateSummary> summary = Stream(runtime, request, flags.json, watch);
  if (!flags.json) std::fputs("\n", stdout);
  std::fflush(stdout);
  if (!flags.trace.empty()) {
    MILLRACE_RETURN_IF_ERROR(
        WriteTextFile("--trace", flags.trace, trace.Json(runtime.plan)));
  }
  if (!summary.ok()) return summary.status();
  if (flags.json) {
    nlohmann::ordered_json out =
        ToJson(*summary, runtime.plan.predicted, request.sampling.seed);
    if (nlohmann::ordered_json resources = use.Json(); !resources.empty()) {
      out["resources"] = std::move(resources);
    }
    PrintJson(out);
    return kExitDone;
  }
  const absl::string_view finish = FinishReasonName(summary->finish);
  PrintTable(*summary, runtime.plan.predicted);
  std::fputs(use.Text().c_str(), stderr);
  std::fprintf(stderr, "%zu tokens, ended by %s, seed %llu\n", summary->tokens.size(),
               std::string(finish.data(), finish.size()).c_str(),
               static_cast<unsigned long long>(request.sampling.seed));
  return kExitDone;
}

void AddSamplingFlags(CLI::App* sub, RunFlags& flags) {
  SamplingParams& sampling = flags.sampling;
  sub->add_option("--temp", sampling.temperature, "0 = always the likeliest token")
      ->capture_default_str();
  sub->add_option("--top-k", sampling.top_k, "0 = off")->capture_default_str();
  sub->add_option("--top-p", sampling.top_p, "1 = off")->capture_default_str();
  sub->add_option("--min-p", sampling.min_p, "0 = off")->capture_default_str();
  sub->add_option("--repeat-penalty", sampling.repetition_penalty, "1 = off")
      ->capture_default_str();
  sub->add_option("--repeat-last-n", sampling.repetition_window, "tokens the penalty looks at")
      ->capture_default_str();
  sub->add_option("--seed", flags.seed, "of the random draws (default: random, reported)");
  sub->add_option("--stop", flags.stop, "end before this text (repeatable)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

}  // namespace

void AddRunCommand(CLI::App& app, Command& chosen) {
  auto flags = std::make_shared<RunFlags>();
  CLI::App* sub = app.add_subcommand("run", "generate text");
  AddRuntimeFlags(sub, flags->runtime);
  AddPromptFlags(sub, flags->prompt);
  AddSamplingFlags(sub, *flags);
  sub->add_option("-n,--max-tokens", flags->max_tokens,
                  "tokens to make; -1: until the model ends or the context is full")
      ->check(CLI::Range(-1, 1 << 26))
      ->capture_default_str();
  sub->add_flag("--ignore-eos", flags->ignore_eos, "go on after the model's end token");
  sub->add_flag("--context-shift", flags->context_shift,
                "when the context is full forget the oldest half and go on");
  sub->add_option("--trace", flags->trace,
                  "write a Chrome/Perfetto trace of the passes, one lane per stage");
  sub->add_flag("--show-plan", flags->show_plan, "print the plan's table first (stderr)");
  sub->add_flag("--json", flags->json, "print one JSON object instead of text");
  sub->callback([flags, &chosen] { chosen = [flags] { return RunRun(*flags); }; });
}

}  // namespace millrace
