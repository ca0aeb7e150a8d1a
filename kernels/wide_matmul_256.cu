#include "kernels/wide_matmul.cuh"

namespace millrace::cuda {

absl::Status WideMatmul256(const WideParams& p, bool k_types, bool swiglu, StreamView stream) {
  return LaunchWideTokens<256>(p, k_types, swiglu, stream);
}

}  // namespace millrace::cuda
