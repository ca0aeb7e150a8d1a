#include <vector>

#include "kernels/matmul.h"
#include "kernels/matmul_kernels.h"

namespace millrace {

void MatmulReference(FloatView x, const MatmulTarget& target) {
  const int64_t row_bytes = target.w.stride().count();
  std::vector<float> w(static_cast<size_t>(target.w.cols));
  for (int64_t r = 0; r < target.w.rows; ++r) {
    ScalarMatmulKernels().dequantize_row(
        target.w.dtype, static_cast<const char*>(target.w.data) + r * row_bytes, target.w.cols,
        w.data());
    for (int64_t t = 0; t < x.rows; ++t) {
      double sum = target.bias ? target.bias[r] : 0.0;
      for (int64_t c = 0; c < x.cols; ++c) sum += static_cast<double>(w[c]) * x.row(t)[c];
      float* y = target.y.row(t) + r;
      *y = static_cast<float>(target.accumulate ? sum + *y : sum);
    }
  }
}

}  // namespace millrace
