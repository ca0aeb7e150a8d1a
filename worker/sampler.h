// Sample: draws one token from logits. A pure function: equal arguments give equal tokens on any
// worker, in any batch, however often a pass is retried.
#ifndef MILLRACE_WORKER_SAMPLER_H_
#define MILLRACE_WORKER_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/candidates.h"
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

// What Sample does after top-k, for rows whose candidates a device has picked. `best`: the
// params.top_k best of the vocabulary (for temperature 0 the best one is enough), penalised, by
// (logit descending, token ascending), at least one; log_sum_exp: of all unmodified logits. The
// token is Sample's for 0 < top_k <= kMaxCandidates, its log_prob as exact as log_sum_exp.
Sampled SampleFromCandidates(absl::Span<const Candidate> best, double log_sum_exp,
                             const SamplingParams& params, uint64_t index);

// The distinct tokens that the repetition penalty applies to, ascending; none where it is off.
std::vector<TokenId> PenalisedTokens(const SamplingParams& params,
                                     absl::Span<const TokenId> recent);

// log(sum(exp(logits))), in double.
double LogSumExp(absl::Span<const float> logits);

// log(softmax(logits))[token], in double.
double LogProbability(absl::Span<const float> logits, TokenId token);

// InvalidArgument names the parameter that is out of range and the range.
absl::Status CheckSampling(const SamplingParams& params);

}  // namespace millrace

#endif  // MILLRACE_WORKER_SAMPLER_H_
