// Products and sums of numbers from files, with overflow as an answer.
#ifndef MILLRACE_WORKER_MODEL_CHECKED_MATH_H_
#define MILLRACE_WORKER_MODEL_CHECKED_MATH_H_

#include <cstdint>
#include <optional>

namespace millrace {

inline std::optional<int64_t> CheckedMultiply(int64_t a, int64_t b) {
  int64_t out = 0;
  if (__builtin_mul_overflow(a, b, &out)) return std::nullopt;
  return out;
}

inline std::optional<int64_t> CheckedAdd(int64_t a, int64_t b) {
  int64_t out = 0;
  if (__builtin_add_overflow(a, b, &out)) return std::nullopt;
  return out;
}

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_CHECKED_MATH_H_
