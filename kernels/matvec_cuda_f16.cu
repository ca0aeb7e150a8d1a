#include "kernels/matvec_cuda.cuh"

namespace millrace::cuda::matvec {

absl::Status RunF16(Params& p, int multiprocessors, int room, StreamView stream) {
  return RunSet<DType::kF16>(p, multiprocessors, room, stream);
}

}  // namespace millrace::cuda::matvec
