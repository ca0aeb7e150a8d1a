// Shared by the kernel tests: random data, every instruction set this processor has, canaries.
#ifndef MILLRACE_TESTS_KERNELS_KERNEL_TESTING_H_
#define MILLRACE_TESTS_KERNELS_KERNEL_TESTING_H_

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu_context.h"
#include "kernels/fp16.h"
#include "kernels/views.h"

namespace millrace {

inline std::vector<CpuIsa> AvailableIsas() {
  std::vector<CpuIsa> isas = {CpuIsa::kScalar};
  if (DetectCpuIsa() >= CpuIsa::kAvx2) isas.push_back(CpuIsa::kAvx2);
  if (DetectCpuIsa() >= CpuIsa::kAvx512) isas.push_back(CpuIsa::kAvx512);
  if (DetectCpuIsa() >= CpuIsa::kAmx) isas.push_back(CpuIsa::kAmx);
  return isas;
}

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

// |a - b| / |b| over whole vectors: the error of a product as a whole.
inline double RelativeError(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 1e-30;
  for (size_t i = 0; i < b.size(); ++i) {
    if (std::isnan(a[i])) return 1e9;
    difference += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    norm += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(difference / norm);
}

// A context with its own pool and scratch.
class TestContext {
 public:
  TestContext(CpuIsa isa, int threads, size_t scratch_bytes)
      : pool_(threads), scratch_(scratch_bytes + 128) {
    context_.pool = &pool_;
    context_.isa = isa;
    const uintptr_t base = (reinterpret_cast<uintptr_t>(scratch_.data()) + 63) / 64 * 64;
    context_.scratch = reinterpret_cast<std::byte*>(base);
    context_.scratch_bytes = scratch_bytes;
  }
  const CpuContext& get() const { return context_; }

 private:
  ThreadPool pool_;
  std::vector<std::byte> scratch_;
  CpuContext context_;
};

}  // namespace millrace

#endif  // MILLRACE_TESTS_KERNELS_KERNEL_TESTING_H_
