// RmsNorm without a kernel of its own, for few rows at decode.
//
// RmsNorm(x)_i = x_i w_i / rms(x) needs the whole row before its first value. The product that makes a
// row knows only its own strips of it, so it writes halves x_i w_i p with a scale p chosen before
// (the row's inverse rms one norm earlier, times kNormHeadroom) and the squares of its strips, summed.
// The product that reads the row multiplies its results by 1 / (rms(x) p) in the end.
//
// The residual stream grows from layer to layer by much less than what f16 has room for: with
// kNormHeadroom, halves saturate where a row's rms grows more than a thousandfold in half a layer.
#ifndef MILLRACE_KERNELS_DEFERRED_NORM_CUDA_H_
#define MILLRACE_KERNELS_DEFERRED_NORM_CUDA_H_

#include <cstdint>

namespace millrace::cuda {

inline constexpr int kDeferredNormRows = 8;    // most rows
inline constexpr int kDeferredNormParts = 512;  // most partial sums of a row
inline constexpr float kNormHeadroom = 1.0f / 16;

// What is known of each row beside its halves. Device memory, on the stream's device.
struct DeferredNorm {
  float* sums = nullptr;      // [rows, kDeferredNormParts]: squares of x; the first `parts` count
  float* prescale = nullptr;  // [rows]: p
  int parts = 0;
  int64_t d = 0;  // values of a row
  float epsilon = 0;
};
inline constexpr int64_t kDeferredNormBytes =
    int64_t{4} * kDeferredNormRows * (kDeferredNormParts + 1);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_DEFERRED_NORM_CUDA_H_
