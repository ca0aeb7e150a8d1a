#include "kernels/narrow_matmul.cuh"

namespace millrace::cuda {

absl::Status NarrowMatmulFlat(const WideParams& p, bool swiglu, StreamView stream) {
  switch (p.matrix[0].dtype) {
    case DType::kF16:
      return LaunchNarrowType<DType::kF16>(p, swiglu, stream);
    case DType::kQ8_0:
      return LaunchNarrowType<DType::kQ8_0>(p, swiglu, stream);
    case DType::kQ4_0:
      return LaunchNarrowType<DType::kQ4_0>(p, swiglu, stream);
    case DType::kQ4_1:
      return LaunchNarrowType<DType::kQ4_1>(p, swiglu, stream);
    case DType::kQ5_0:
      return LaunchNarrowType<DType::kQ5_0>(p, swiglu, stream);
    case DType::kQ5_1:
      return LaunchNarrowType<DType::kQ5_1>(p, swiglu, stream);
    default:
      return absl::InternalError("NarrowMatmul: not a type of this file");
  }
}

}  // namespace millrace::cuda
