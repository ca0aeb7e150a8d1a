// DType's names alone, in C++17: CUDA sources cannot include proto/dtype.h.
#ifndef MILLRACE_PROTO_DTYPE_ID_H_
#define MILLRACE_PROTO_DTYPE_ID_H_

#include <cstdint>

namespace millrace {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kQ3_K,
  kQ2_K,
};

}  // namespace millrace

#endif  // MILLRACE_PROTO_DTYPE_ID_H_
