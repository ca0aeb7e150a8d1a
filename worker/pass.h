// Pass: one trip of a batch of tokens through the stages, and what comes back. Plain values: they
// cross stage links as protobuf (worker/link) and are passed by reference inside a process.
#ifndef MILLRACE_WORKER_PASS_H_
#define MILLRACE_WORKER_PASS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/ids.h"
#include "worker/resource_use.h"

namespace millrace {

struct SamplingParams {
  float temperature = 0.8f;         // 0 = greedy
  int top_k = 40;                   // 0 = off
  float top_p = 0.95f;              // 1 = off
  float min_p = 0.05f;              // 0 = off
  float repetition_penalty = 1.0f;  // 1 = off
  int repetition_window = 64;       // last tokens the penalty looks at, 0 = off
  uint64_t seed = 0;
};

// Consecutive tokens of one sequence in a pass; rows follow the order of Pass::tokens.
struct PassSegment {
  int slot = 0;
  int first_position = 0;
  int tokens = 0;
};

// What the last stage shall return for one row of the pass.
struct OutputRequest {
  enum class Kind : uint8_t { kSample, kLogits, kLogProb };
  Kind kind = Kind::kSample;
  int row = 0;
  SamplingParams sampling;      // kSample
  uint64_t sample_index = 0;    // kSample: the draw is a pure function of (seed, sample_index)
  std::vector<TokenId> recent;  // kSample: history the repetition penalty looks at
  TokenId target = 0;           // kLogProb: the token whose log-probability is wanted
};

struct Pass {
  uint64_t id = 0;  // increasing per engine
  Epoch epoch;
  std::vector<TokenId> tokens;  // [n]
  std::vector<PassSegment> segments;
  std::vector<OutputRequest> outputs;
};

struct RowOutput {
  TokenId token = -1;         // kSample
  float log_prob = 0;         // kSample: of the token, before penalties and truncation; kLogProb
  std::vector<float> logits;  // kLogits: [vocab]
};

struct PassResult {
  uint64_t id = 0;
  std::vector<RowOutput> outputs;             // parallel to Pass::outputs
  std::vector<absl::Duration> stage_compute;  // by stage from the one asked onward
  PassUse use;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_PASS_H_
