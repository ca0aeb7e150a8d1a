#include "kernels/wide_matmul.cuh"

namespace millrace::cuda {

absl::Status WideMatmul176(const WideParams& p, bool k_types, bool swiglu, StreamView stream) {
  return LaunchWideTokens<176>(p, k_types, swiglu, stream);
}

}  // namespace millrace::cuda
