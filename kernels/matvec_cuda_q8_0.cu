#include "kernels/matvec_cuda.cuh"

namespace millrace::cuda::matvec {

absl::Status RunQ8_0(Params& p, int multiprocessors, int room, StreamView stream) {
  return RunSet<DType::kQ8_0>(p, multiprocessors, room, stream);
}

}  // namespace millrace::cuda::matvec
