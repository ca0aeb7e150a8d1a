// How far a product of tiled weights may be from the reference, derived from what is rounded.
//
// A tile holds the file's codes and scales unchanged (BF16 and F32: f16 values). The kernel makes a
// weight w = s q + m of a scale s, a code q and, in some types, a minimum m. With u = 2^-11, half a
// unit in the last place of an f16 number, it rounds s and m (where they are products themselves) and
// the result:
//     |w' - w| <= u |s q| + u |m| + u |w| <= 2 u (|w| + |m|) =: 2 u t,
// for |s q| <= |w| + |m|. F32 is rounded once, F16 and BF16 not at all. Below f16's normal range a
// rounding is off by at most 2^-25 instead, of a scale that up to 63 codes multiply: 2^-19 in all.
//
// The activations x of these tests are independent of the weights, normal, of variance one. So the
// error of a product, sum_k x_k (w'_k - w_k), is normal with a deviation of at most
//     2 u |t| + 2^-19 sqrt(K),   |t| = sqrt(sum_k t_k^2)
// and 7 deviations are passed once in 4e11 results. The sum of magnitudes, 2 u sum_k |x_k| t_k, would
// hold always, but at K = 4096 it is sixty times as wide and a lost term would pass.
//
// Accumulation in FP32 cuts off at most 2^-23 of the largest number in it, about 7 |t|, for each of K
// terms; storing, and adding a bias or what was there, 2^-22 of those.
#ifndef MILLRACE_TESTS_KERNELS_MATMUL_BOUND_H_
#define MILLRACE_TESTS_KERNELS_MATMUL_BOUND_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/matmul.h"
#include "proto/dtype.h"

namespace millrace {

inline constexpr double kHalfRounding = 0x1p-11;

// Error of one weight relative to t.
inline double WeightRounding(DType dtype) {
  switch (dtype) {
    case DType::kF16: case DType::kBF16: return 0;
    case DType::kF32: return kHalfRounding;
    default: return 2 * kHalfRounding * (1 + kHalfRounding);
  }
}
inline constexpr double kSmallWeightRounding = 0x1p-19;

// Where the codes of a block with minima begin and end: without them a block's values are its minima.
inline std::pair<int, int> CodesOf(DType dtype) {
  switch (dtype) {
    case DType::kQ4_1: return {4, 20};
    case DType::kQ5_1: return {4, 24};
    case DType::kQ4_K: return {16, 144};
    case DType::kQ5_K: return {16, 176};
    case DType::kQ2_K: return {16, 80};
    default: return {0, 0};
  }
}

// t of each value of a row as it lies in the file.
inline std::vector<double> TermsOf(DType dtype, const uint8_t* row, int64_t cols) {
  std::vector<float> values(static_cast<size_t>(cols)), minima(values.size(), 0.0f);
  DequantizeRow(dtype, row, cols, values.data());
  const auto [begin, end] = CodesOf(dtype);
  if (end > 0) {
    std::vector<uint8_t> bytes(row, row + RowBytes(dtype, cols).count());
    for (size_t block = 0; block < bytes.size(); block += static_cast<size_t>(Info(dtype).block_bytes)) {
      std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(block) + begin,
                bytes.begin() + static_cast<std::ptrdiff_t>(block) + end, uint8_t{0});
    }
    DequantizeRow(dtype, bytes.data(), cols, minima.data());
  }
  std::vector<double> terms;
  for (size_t k = 0; k < values.size(); ++k) terms.push_back(std::fabs(values[k]) + std::fabs(minima[k]));
  return terms;
}

// Of the dot product of each row with normal activations, before anything is added to it.
inline std::vector<double> ProductBounds(DType dtype, const std::vector<uint8_t>& raw, int64_t rows,
                                         int64_t cols) {
  std::vector<double> bounds;
  const double k = static_cast<double>(cols);
  for (int64_t r = 0; r < rows; ++r) {
    double squares = 0;
    for (double t : TermsOf(dtype, raw.data() + r * RowBytes(dtype, cols).count(), cols)) squares += t * t;
    const double norm = std::sqrt(squares);
    bounds.push_back(7 * (WeightRounding(dtype) * norm + kSmallWeightRounding * std::sqrt(k) +
                          k * 0x1p-23 * norm));
  }
  return bounds;
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_KERNELS_MATMUL_BOUND_H_
