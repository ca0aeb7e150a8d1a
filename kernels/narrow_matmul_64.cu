#include "kernels/narrow_matmul.cuh"

namespace millrace::cuda {

absl::Status NarrowMatmul64(const WideParams& p, bool k_types, bool swiglu, StreamView stream) {
  return LaunchNarrowTokens<64>(p, k_types, swiglu, stream);
}

}  // namespace millrace::cuda
