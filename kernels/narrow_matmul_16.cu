#include "kernels/narrow_matmul.cuh"

namespace millrace::cuda {

absl::Status NarrowMatmul16(const WideParams& p, bool k_types, int row_parts, int cluster, bool swiglu,
                            StreamView stream) {
  return LaunchNarrowTokens<16>(p, k_types, row_parts, cluster, swiglu, stream);
}

}  // namespace millrace::cuda
