// Random matrix products and what they are measured against, shared by the Matmul tests.
#ifndef MILLRACE_TESTS_KERNELS_MATMUL_CASES_H_
#define MILLRACE_TESTS_KERNELS_MATMUL_CASES_H_

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "kernels/matmul.h"
#include "tests/kernels/kernel_testing.h"

namespace millrace {

struct MatmulCase {
  DType dtype;
  int64_t rows, cols, n;
  bool bias = false, accumulate = false, unaligned = false;

  std::string Name() const {
    return std::string(DTypeName(dtype)) + " rows " + std::to_string(rows) + " cols " +
           std::to_string(cols) + " n " + std::to_string(n);
  }
};

struct MatmulData {
  MatmulCase c;
  std::vector<uint8_t> weights;
  std::vector<float> x, bias, start;  // [n, cols], [rows], [n, rows]: what y holds before

  MatmulData(const MatmulCase& which, std::mt19937_64& rng)
      : c(which),
        weights(RandomWeights(c.dtype, c.rows, c.cols, rng)),
        x(RandomFloats(static_cast<size_t>(c.n * c.cols), rng)),
        bias(RandomFloats(static_cast<size_t>(c.rows), rng)),
        start(RandomFloats(static_cast<size_t>(c.n * c.rows), rng)) {}

  FloatView X() { return FloatView(x.data(), c.n, c.cols); }
  MatmulTarget TargetOf(float* y, int64_t stride) const {
    MatmulTarget target;
    target.w = {weights.data(), c.dtype, c.rows, c.cols};
    target.bias = c.bias ? bias.data() : nullptr;
    target.accumulate = c.accumulate;
    target.y = FloatView(y, c.n, c.rows, stride);
    return target;
  }
};

using MatmulRunner =
    std::function<void(const CpuContext&, FloatView x, absl::Span<const MatmulTarget> targets)>;

// Runs one case inside a poisoned, fenced output; returns y [n, rows].
inline std::vector<float> RunMatmul(MatmulData& data, CpuIsa isa, int threads,
                                    const MatmulRunner& run) {
  constexpr float kCanary = 12345.0f;
  const MatmulCase& c = data.c;
  const int64_t stride = c.rows + 3;
  std::vector<uint8_t> shifted(data.weights.size() + 1);
  std::memcpy(shifted.data() + 1, data.weights.data(), data.weights.size());
  std::vector<float> y(static_cast<size_t>(c.n * stride), kCanary);
  for (int64_t t = 0; t < c.n; ++t) {
    for (int64_t r = 0; r < c.rows; ++r) {
      y[t * stride + r] =
          c.accumulate ? data.start[t * c.rows + r] : std::numeric_limits<float>::quiet_NaN();
    }
  }
  MatmulTarget target = data.TargetOf(y.data(), stride);
  if (c.unaligned) target.w.data = shifted.data() + 1;
  TestContext context(isa, threads, MatmulScratchBytes(c.n, c.cols, threads));
  run(context.get(), data.X(), {&target, 1});
  std::vector<float> out;
  for (int64_t t = 0; t < c.n; ++t) {
    for (int64_t r = 0; r < stride; ++r) {
      if (r < c.rows) {
        out.push_back(y[t * stride + r]);
      } else {
        EXPECT_EQ(y[t * stride + r], kCanary) << c.Name() << " wrote past row " << t;
      }
    }
  }
  return out;
}

inline std::vector<float> ExpectedOf(MatmulData& data) {
  std::vector<float> expected = data.start;
  MatmulReference(data.X(), data.TargetOf(expected.data(), data.c.rows));
  return expected;
}

// Root of the sum of squares of all products: the size of y were its terms independent. Errors are
// measured against it, so that a y which happens to cancel is no failure.
inline double ProductNorm(const MatmulData& data) {
  const MatmulCase& c = data.c;
  const int64_t row_bytes = RowBytes(c.dtype, c.cols).count();
  std::vector<float> w(static_cast<size_t>(c.cols));
  std::vector<double> x_squared(static_cast<size_t>(c.cols));
  for (int64_t t = 0; t < c.n; ++t) {
    for (int64_t i = 0; i < c.cols; ++i) {
      x_squared[i] += static_cast<double>(data.x[t * c.cols + i]) * data.x[t * c.cols + i];
    }
  }
  double sum = 0;
  for (int64_t r = 0; r < c.rows; ++r) {
    DequantizeRow(c.dtype, data.weights.data() + r * row_bytes, c.cols, w.data());
    for (int64_t i = 0; i < c.cols; ++i) sum += static_cast<double>(w[i]) * w[i] * x_squared[i];
  }
  return std::sqrt(sum);
}

inline double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i])) return 1e30;
    sum += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  }
  return std::sqrt(sum);
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_KERNELS_MATMUL_CASES_H_
