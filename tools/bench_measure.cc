#include "tools/bench_measure.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

std::vector<TokenId> SomeTokens(int n, int64_t vocab, int salt) {
  std::vector<TokenId> tokens(n);
  for (int i = 0; i < n; ++i) {
    tokens[i] = static_cast<TokenId>((int64_t{i} * 7919 + salt * 104729 + 11) % vocab);
  }
  return tokens;
}

}  // namespace

absl::StatusOr<double> TimePrefill(const Runtime& runtime, const ModelSpec& model, int tokens,
                                   int salt) {
  const std::vector<TokenId> prompt = SomeTokens(tokens, model.vocab, salt);
  const absl::Time start = absl::Now();
  MILLRACE_RETURN_IF_ERROR(runtime.logits(prompt));
  return tokens / absl::ToDoubleSeconds(absl::Now() - start);
}

absl::StatusOr<double> TimeDecode(const Runtime& runtime, const ModelSpec& model, int generate,
                                  int depth, int spare, int batch, UseReport& use) {
  std::atomic<int> started{0};
  std::vector<std::vector<absl::Time>> times(batch);
  std::vector<absl::Status> statuses(batch);
  std::vector<std::thread> threads;
  for (int b = 0; b < batch; ++b) {
    threads.emplace_back([&, b] {
      GenerateRequest request;
      request.tokens = SomeTokens(std::max(1, depth), model.vocab, b);
      request.max_tokens = generate + spare;
      request.sampling.temperature = 0;
      request.ignore_end_of_generation = true;
      statuses[b] = runtime
                        .generate(request,
                                  [&, b](const GenerateEvent&) {
                                    times[b].push_back(absl::Now());
                                    const bool first = times[b].size() == 1;
                                    if (first && ++started == batch) use.Reset();
                                    return true;
                                  })
                        .status();
    });
  }
  for (std::thread& thread : threads) thread.join();
  absl::Time begin = absl::InfinitePast(), end = absl::InfiniteFuture();
  for (int b = 0; b < batch; ++b) {
    MILLRACE_RETURN_IF_ERROR(statuses[b]);
    begin = std::max(begin, times[b].front());
    end = std::min(end, times[b].back());
  }
  int64_t made = 0;
  for (const std::vector<absl::Time>& sequence : times) {
    made += std::count_if(sequence.begin(), sequence.end(),
                          [&](absl::Time t) { return t > begin && t <= end; });
  }
  const double seconds = absl::ToDoubleSeconds(end - begin);
  if (made == 0 || seconds <= 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "--gen: ", generate, " tokens are too few for ", batch, " sequences to run side by side"));
  }
  return static_cast<double>(made) / seconds;
}

int SpareTokens(const PlacementPlan& plan, int depth, int generate, int batch) {
  const int64_t prompts = int64_t{std::max(1, depth)} * batch;
  const int64_t passes = prompts / std::max(1, plan.max_pass_tokens) + batch;
  const int64_t room = plan.context - std::max(1, depth) - generate;
  return static_cast<int>(std::clamp<int64_t>(passes, 0, std::max<int64_t>(0, room)));
}

}  // namespace millrace
