// The instruction-set specific pieces of norm, SwiGLU and attention, as plain function pointers.
#ifndef MILLRACE_KERNELS_OPS_KERNELS_H_
#define MILLRACE_KERNELS_OPS_KERNELS_H_

#include <stdint.h>

#include "proto/dtype.h"

namespace millrace {

// Query rows x heads of one kv head's group that one AttendArgs covers at most.
inline constexpr int kMaxAttendQueries = 32;
// Cache positions converted to f32 at a time.
inline constexpr int kAttendBlock = 64;

// One kv head of one sequence: `rows` query rows from position `first_position` on, `group` heads.
struct AttendArgs {
  const float* q = nullptr;    // head 0 of the group, row 0; rows q_stride apart, heads head_dim
  int64_t q_stride = 0;
  float* out = nullptr;        // likewise
  int64_t out_stride = 0;
  const uint8_t* k = nullptr;  // [context, head_dim] dtype
  const uint8_t* v = nullptr;
  DType dtype = DType::kF16;
  int64_t row_bytes = 0;       // of one position
  int head_dim = 0;
  int rows = 0;
  int group = 0;
  int first_position = 0;
  int first_key = 0;           // only keys [first_key, end_key) of those that are visible
  int end_key = INT32_MAX;
  float scale = 0;
  // Not null: instead of out, [rows * group, head_dim + 2]: values not divided by the sum, the
  // maximum score (-1e30 when no key was visible), the sum of e^(score - maximum).
  float* partial = nullptr;
  float* scratch = nullptr;    // AttendScratchFloats(head_dim), 64-byte aligned
};

inline int64_t AttendScratchFloats(int head_dim) {
  const int64_t padded = (head_dim + 15) / 16 * 16;
  return padded * (2 * kMaxAttendQueries + 2 * kAttendBlock) +
         kMaxAttendQueries * (kAttendBlock + 2) + 64;
}

struct OpsKernels {
  void (*rms_norm_row)(const float* x, const float* weight, int64_t d, float epsilon, float* out);
  void (*swiglu_row)(float* gate, const float* up, int64_t d);
  void (*attend)(const AttendArgs& args);
};

const OpsKernels& ScalarOpsKernels();
const OpsKernels& Avx2OpsKernels();    // x86-64 only
const OpsKernels& Avx512OpsKernels();  // x86-64 only

}  // namespace millrace

#endif  // MILLRACE_KERNELS_OPS_KERNELS_H_
