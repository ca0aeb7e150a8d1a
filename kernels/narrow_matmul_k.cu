#include "kernels/narrow_matmul.cuh"

namespace millrace::cuda {

absl::Status NarrowMatmulK(const WideParams& p, bool swiglu, StreamView stream) {
  switch (p.matrix[0].dtype) {
    case DType::kQ4_K:
      return LaunchNarrowType<DType::kQ4_K>(p, swiglu, stream);
    case DType::kQ5_K:
      return LaunchNarrowType<DType::kQ5_K>(p, swiglu, stream);
    case DType::kQ6_K:
      return LaunchNarrowType<DType::kQ6_K>(p, swiglu, stream);
    case DType::kQ3_K:
      return LaunchNarrowType<DType::kQ3_K>(p, swiglu, stream);
    case DType::kQ2_K:
      return LaunchNarrowType<DType::kQ2_K>(p, swiglu, stream);
    default:
      return absl::InternalError("NarrowMatmul: not a type of this file");
  }
}

}  // namespace millrace::cuda
