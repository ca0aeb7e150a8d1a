// How far a product is from another, for benchmarks and tests.
#ifndef MILLRACE_KERNELS_BENCH_RELATIVE_ERROR_H_
#define MILLRACE_KERNELS_BENCH_RELATIVE_ERROR_H_

#include <cmath>
#include <vector>

namespace millrace {

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

}  // namespace millrace

#endif  // MILLRACE_KERNELS_BENCH_RELATIVE_ERROR_H_
