// Session: one sequence on its way through the engine: what was asked, what is cached, what came out.
#ifndef MILLRACE_WORKER_SESSION_H_
#define MILLRACE_WORKER_SESSION_H_

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "worker/engine.h"
#include "worker/stop_matcher.h"

namespace millrace {

// Fields up to `cancelled` are set before the session is handed to the scheduler; the rest belong to
// the engine's thread until `done` is notified, then to whoever waits for it.
struct Session {
  enum class Kind : uint8_t { kGenerate, kLogits, kLogProbs };

  Session(Kind k, const Tokenizer* tokenizer, const std::vector<std::string>& stop)
      : kind(k), decoder(tokenizer, true), stops(stop) {}

  const Kind kind;
  RequestId id;
  GenerateRequest request;                            // kGenerate
  std::function<bool(const GenerateEvent&)> on_event; // kGenerate, may be empty
  std::vector<TokenId> tokens;    // the sequence: prompt, then what was generated
  int first_scored = 0;           // kLogProbs
  absl::Time submitted;
  std::atomic<bool> cancelled{false};

  int slot = -1;                  // -1: waiting
  int cached = 0;                 // tokens whose keys and values are in the slot
  absl::Time started, first_token, last_token;
  StreamDecoder decoder;
  StopMatcher stops;

  // Results.
  absl::Status status;
  FinishReason finish = FinishReason::kMaxTokens;
  std::vector<TokenId> generated;
  std::string text;
  std::vector<float> values;      // logits, or log-probabilities
  absl::Notification done;

  int pending() const { return static_cast<int>(tokens.size()) - cached; }
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_SESSION_H_
