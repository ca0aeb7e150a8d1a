// The part of sampling that looks at a whole vocabulary, on a CUDA device: log-sum-exp, repetition
// penalty, and the greedy token or the k best. The draw among them is the host's
// (worker/sampler.h).
#ifndef MILLRACE_KERNELS_SAMPLE_CUDA_H_
#define MILLRACE_KERNELS_SAMPLE_CUDA_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/candidates.h"
#include "kernels/cuda/stream.h"

namespace millrace::cuda {

enum class SampleMode : int32_t { kNone = 0, kGreedy = 1, kTopK = 2 };

// What is wanted of one row. Lies in device memory: may differ at each replay of a graph.
struct SampleRequest {
  SampleMode mode = SampleMode::kNone;
  int32_t k = 0;      // kTopK: 1 to kMaxCandidates (brought into the range)
  float penalty = 1;  // of the tokens recent[recent_begin .. + recent_count), 1 = off
  int32_t recent_begin = 0;
  int32_t recent_count = 0;
  int32_t target = -1;  // token whose logit is wanted; -1: none
};

struct SampleResult {
  double log_sum_exp;  // of the unmodified logits
  float target_logit;  // unmodified; 0 where the target is outside [0, vocab)
  int32_t count;       // valid entries of `best`: 0 for kNone, 1 for kGreedy, min(k, vocab)
  // By (logit descending, token ascending). Entries from `count` on are not written. A logit of
  // zero may have lost its sign.
  Candidate best[kMaxCandidates];
};

// Bytes of scratch for SampleRows of up to `rows` rows.
int64_t SampleWorkspaceBytes(int64_t rows, int64_t vocab);

// logits: [rows, vocab] f32, dense, no NaN, not modified; requests, results: [rows]; recent: token
// ids that the requests point into (repeats and ids outside the vocabulary do no harm); workspace:
// 16-byte aligned. All on the stream's device, which is current; logits, requests and recent may be
// written by earlier work on the stream. The penalty divides positive logits and multiplies others.
// Equal input gives equal bits. At most 65535 rows, vocab at least 1 (CHECKed). Asynchronous: the
// status is the launch's; capturable.
absl::Status SampleRows(const float* logits, int64_t rows, int64_t vocab,
                        const SampleRequest* requests, const int32_t* recent, void* workspace,
                        SampleResult* results, StreamView stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_SAMPLE_CUDA_H_
