#include "kernels/wide_matmul.cuh"

namespace millrace::cuda {

absl::Status WideMatmul128(const WideParams& p, bool k_types, bool swiglu, StreamView stream) {
  return LaunchWideTokens<128>(p, k_types, swiglu, stream);
}

}  // namespace millrace::cuda
