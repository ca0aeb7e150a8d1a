// Candidate: a token that may be drawn. Written by the sampling kernels, read by the sampler.
#ifndef MILLRACE_KERNELS_CANDIDATES_H_
#define MILLRACE_KERNELS_CANDIDATES_H_

#include <cstdint>

namespace millrace {

struct Candidate {
  int32_t token = 0;
  float logit = 0;       // after the repetition penalty
  float unmodified = 0;  // before
};

// The most candidates a device picks for one row.
inline constexpr int kMaxCandidates = 128;

}  // namespace millrace

#endif  // MILLRACE_KERNELS_CANDIDATES_H_
