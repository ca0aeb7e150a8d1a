#include "kernels/narrow_matmul.cuh"

namespace millrace::cuda {

absl::Status NarrowMatmul32(const WideParams& p, bool k_types, bool swiglu, StreamView stream) {
  return LaunchNarrowTokens<32>(p, k_types, swiglu, stream);
}

}  // namespace millrace::cuda
