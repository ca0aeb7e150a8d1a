// Engine: the leader of a generation. Owns tokenizer, sessions and batch scheduler, and drives
// passes through the first stage. The same class serves `millrace run` in one process and the
// worker of the first stage in a cluster.
#ifndef MILLRACE_WORKER_ENGINE_H_
#define MILLRACE_WORKER_ENGINE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/ids.h"
#include "worker/model/model.h"
#include "worker/model/tokenizer.h"
#include "worker/pass.h"
#include "worker/stage_runner.h"

namespace millrace {

// What to do when prompt + generated tokens reach the context.
enum class ContextOverflow : uint8_t {
  kStop,   // finish with FinishReason::kContextFull (a prompt that does not fit is refused)
  kShift,  // forget the oldest half after the first token (BOS), re-read the rest, go on
};

struct GenerateRequest {
  RequestId id;                 // empty: the engine makes one
  std::string prompt;           // used when `tokens` is empty
  std::vector<TokenId> tokens;  // already tokenised, BOS included if wanted
  bool parse_special = true;
  int max_tokens = 128;  // -1: until end of generation or context
  SamplingParams sampling;
  std::vector<std::string> stop;  // generation ends before the first of these in the text
  bool ignore_end_of_generation = false;
  ContextOverflow overflow = ContextOverflow::kStop;
};

enum class FinishReason : uint8_t {
  kEndOfGeneration,
  kMaxTokens,
  kStopString,
  kContextFull,
  kCancelled
};
absl::string_view FinishReasonName(FinishReason reason);

// One generated token. `text` may be empty (half a character, or held back for a stop string).
struct GenerateEvent {
  int64_t offset = 0;  // 0-based index among the generated tokens
  TokenId token = 0;
  float log_prob = 0;
  std::string text;
};

struct GenerateSummary {
  RequestId id;
  FinishReason finish = FinishReason::kMaxTokens;
  std::vector<TokenId> prompt_tokens;
  std::vector<TokenId> tokens;
  std::string text;
  absl::Duration queued;          // waiting for a slot
  absl::Duration ttft;            // from submission to the first token
  absl::Duration time_per_token;  // mean over the tokens after the first; zero for fewer than two
};

// One finished pass, for traces.
struct PassTrace {
  uint64_t id = 0;
  absl::Time begin, end;
  int tokens = 0;      // rows of the pass
  int sequences = 0;   // that have rows in it
  std::vector<absl::Duration> stage_compute;  // by stage, in order; they run one after the other
  PassUse use;
};

struct EngineOptions {
  int slots = 1;
  int context = 0;  // tokens per slot
  int max_pass_tokens = 512;
  int max_queue = 64;  // requests waiting for a slot; one more is ResourceExhausted
  absl::Duration pass_timeout = absl::Seconds(120);
  Epoch epoch;
  std::function<void(const PassTrace&)> on_pass;  // from the engine's thread; may be empty
};

struct EngineStats {
  int running = 0, queued = 0, slots = 0;
  int64_t prompt_tokens = 0, generated_tokens = 0, passes = 0;  // since start
  double decode_tokens_per_second = 0;                          // over the last seconds
};

// Thread-safe: any number of threads call Generate and Score at once; one internal thread runs the
// passes. Stop (or the destructor) fails what is under way with Cancelled and joins it.
class Engine {
 public:
  // `first` is the first stage, with the link to the next one inside it.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(std::shared_ptr<const Model> model,
                                                        std::unique_ptr<StageRunner> first,
                                                        const EngineOptions& options);
  ~Engine();

  // Blocks until done. `on_event` is called in order from the engine's thread, must not block long
  // (a bounded queue between it and a slow client is the caller's business) and may return false to
  // cancel. InvalidArgument: the prompt is empty or does not fit, sampling out of range.
  // ResourceExhausted: queue full. Unavailable: a stage is gone (named). A generation ended by
  // Cancel or by on_event is Ok with FinishReason::kCancelled and what there was; Cancelled: Stop.
  absl::StatusOr<GenerateSummary> Generate(
      const GenerateRequest& request, const std::function<bool(const GenerateEvent&)>& on_event);

  // Logits at the last position of `tokens`: [vocab].
  absl::StatusOr<std::vector<float>> Logits(const std::vector<TokenId>& tokens);

  // Log-probabilities (natural) of tokens[i] given tokens[0..i) for i in [first, size): what
  // perplexity is made of.
  absl::StatusOr<std::vector<float>> LogProbs(const std::vector<TokenId>& tokens, int first);

  // NotFound when no such generation runs or waits.
  absl::Status Cancel(const RequestId& id);
  EngineStats stats() const;
  const Tokenizer& tokenizer() const;
  const Model& model() const;
  void Stop();

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_ENGINE_H_
