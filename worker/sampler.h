// Sample: draws one token from logits. A pure function: equal arguments give equal tokens on any
// worker, in any batch, however often a pass is retried.
#ifndef MILLRACE_WORKER_SAMPLER_H_
#define MILLRACE_WORKER_SAMPLER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "proto/ids.h"
#include "worker/pass.h"

namespace millrace {

struct Sampled {
  TokenId token = 0;
  float log_prob = 0;  // natural, of the token under the unmodified logits
};

// logits: [vocab] f32, finite. Order: repetition penalty, then temperature 0 = the largest logit
// (the lowest id among equals); otherwise top-k, top-p, min-p on the probabilities, temperature, and
// a draw with a uniform number that is a hash of (seed, index).
Sampled Sample(absl::Span<const float> logits, const SamplingParams& params,
               absl::Span<const TokenId> recent, uint64_t index);

// log(softmax(logits))[token], in double.
double LogProbability(absl::Span<const float> logits, TokenId token);

// InvalidArgument names the parameter that is out of range and the range.
absl::Status CheckSampling(const SamplingParams& params);

}  // namespace millrace

#endif  // MILLRACE_WORKER_SAMPLER_H_
