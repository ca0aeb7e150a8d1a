// A script of generations that runs the same on every stage: which rows stand in which pass depends
// on the script alone, never on time, so that two runs of it can be compared number by number.
#ifndef MILLRACE_TESTS_WORKER_THREE_WAY_SCRIPT_H_
#define MILLRACE_TESTS_WORKER_THREE_WAY_SCRIPT_H_

#include <random>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/stage_runner.h"

namespace millrace {

struct Script {
  int slots = 1;
  int context = 128;
  int max_pass_tokens = 16;
  struct Generation {
    std::vector<TokenId> prompt;
    int tokens = 1;  // generated, greedily
  };
  std::vector<Generation> generations;  // more than slots: the rest wait for a free one
};

// What a generation's sampled rows came to, in order.
struct SampledRow {
  TokenId token = -1;
  std::vector<float> logits;
};
using Transcript = std::vector<std::vector<SampledRow>>;  // by generation

// Up to 5 generations; prompts shorter and longer than a pass.
Script RandomScript(std::mt19937_64& rng, int64_t vocab);

// Runs the script. Each pass holds a row of every generation that has read its prompt, then
// prompts' rows, as many as fit. `follow`, where not null, gives the tokens that are read on in
// place of those sampled: runs stay comparable when one token differs.
// A pass that ends with DataLoss is run again, up to `retries` times in all.
absl::StatusOr<Transcript> RunScript(StageRunner& first, const Script& script,
                                     const Transcript* follow = nullptr, int retries = 0);

// Equal bit for bit: an empty string, or what differs first.
std::string Difference(const Transcript& a, const Transcript& b);
// Logits no further apart than `tolerance`, tokens equal where `a` prefers its own by more than
// that.
std::string Difference(const Transcript& a, const Transcript& b, float tolerance);

}  // namespace millrace

#endif  // MILLRACE_TESTS_WORKER_THREE_WAY_SCRIPT_H_
