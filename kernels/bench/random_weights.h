// Random operands of products, for benchmarks and tests.
#ifndef MILLRACE_KERNELS_BENCH_RANDOM_WEIGHTS_H_
#define MILLRACE_KERNELS_BENCH_RANDOM_WEIGHTS_H_

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/fp16.h"
#include "proto/dtype.h"

namespace millrace {

inline std::vector<float> RandomFloats(size_t n, std::mt19937_64& rng, float sigma = 1.0f) {
  std::normal_distribution<float> normal(0.0f, sigma);
  std::vector<float> v(n);
  for (float& f : v) f = normal(rng);
  return v;
}

// Offsets of the f16 fields of one block; everything else may be any byte.
inline std::vector<int> HalfFields(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0: case DType::kQ4_0: case DType::kQ5_0: return {0};
    case DType::kQ4_1: case DType::kQ5_1: case DType::kQ4_K: case DType::kQ5_K: return {0, 2};
    case DType::kQ6_K: return {208};
    case DType::kQ3_K: return {108};
    case DType::kQ2_K: return {80, 82};
    default: return {};
  }
}

// Rows of random valid weights: any codes, scales of about 0.01.
inline std::vector<uint8_t> RandomWeights(DType dtype, int64_t rows, int64_t cols,
                                          std::mt19937_64& rng) {
  const DTypeInfo& info = Info(dtype);
  std::vector<uint8_t> bytes(static_cast<size_t>(rows * RowBytes(dtype, cols).count()));
  std::uniform_real_distribution<float> scale(-0.02f, 0.02f);
  if (info.quantized) {
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng());
    for (size_t block = 0; block < bytes.size(); block += static_cast<size_t>(info.block_bytes)) {
      for (int field : HalfFields(dtype)) {
        const uint16_t h = FloatToHalf(scale(rng));
        std::memcpy(&bytes[block + static_cast<size_t>(field)], &h, 2);
      }
    }
    return bytes;
  }
  const std::vector<float> values = RandomFloats(static_cast<size_t>(rows * cols), rng, 0.1f);
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kF32) {
      std::memcpy(&bytes[4 * i], &values[i], 4);
    } else {
      const uint16_t h =
          dtype == DType::kF16 ? FloatToHalf(values[i]) : FloatToBf16(values[i]);
      std::memcpy(&bytes[2 * i], &h, 2);
    }
  }
  return bytes;
}

}  // namespace millrace

#endif  // MILLRACE_KERNELS_BENCH_RANDOM_WEIGHTS_H_
