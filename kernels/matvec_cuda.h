// Products of quantised weights with one activation row, several in one launch: what lies between two
// attentions of a decode pass (compute capability 9.0 and up).
//
// A launch has one block on each multiprocessor; blocks hand each other finished rows as packets
// (cuda/packets.cuh). Weights do not depend on anything: each warp's ring in shared memory runs on from
// product to product, so that memory does not pause between them.
#ifndef MILLRACE_KERNELS_MATVEC_CUDA_H_
#define MILLRACE_KERNELS_MATVEC_CUDA_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cuda/stream.h"
#include "kernels/small_matmul_params.h"
#include "proto/dtype.h"

namespace millrace::cuda {

inline constexpr int kMostMatvecs = 8;       // in one launch
inline constexpr int kMostMatvecCols = 32768;

struct MatvecOp {
  SmallMatmulParams p;  // n = 1
  DType dtype = DType::kF16;
  bool swiglu = false;
  // Does not read what the op before writes: may run beside it.
  bool beside = false;
};

// Whether the current device runs the kernel.
absl::StatusOr<bool> HasMatvec();

// Whether one launch can hold these types and shapes.
bool FitOneLaunch(absl::Span<const MatvecOp> ops);

// What the ops of a launch hand rows to each other through.
struct MatvecRoom {
  // kMatvecRoomBytes of device memory, zero before the first launch that uses it, 256-byte aligned, used by
  // one launch at a time.
  uint64_t* packets = nullptr;
  // On the device: another number, not zero, for each pass.
  const uint32_t* epoch = nullptr;
};
inline constexpr int64_t kMatvecRoomBytes =
    2 * int64_t{8} * (kMostMatvecCols / 2 + kDeferredNormParts + 32);

// 1 to kMostMatvecs ops that fit one launch, on a device that has the kernel. Each op that is not `beside`
// the one before reads the row that that one writes, and no norm but the row's own or that one's. `launch`: of the pass, from 0 on. `room` may be empty where
// there is one op. No other launch of several ops may run on the device at the same time.
absl::Status RunMatvecs(absl::Span<const MatvecOp> ops, const MatvecRoom& room, int launch,
                        StreamView stream);

// Ops of one stream, held back so that as many as can share a launch.
class MatvecQueue {
 public:
  explicit MatvecQueue(const MatvecRoom& room) : room_(room) {}

  // A pass begins; what is held back of another is forgotten.
  void Begin() {
    ops_.clear();
    launches_ = 0;
  }
  // What is held back runs first where one launch does not hold both.
  absl::Status Add(const MatvecOp& op, StreamView stream);
  // Before anything else is queued on the stream.
  absl::Status Flush(StreamView stream);

 private:
  MatvecRoom room_;
  int launches_ = 0;
  std::vector<MatvecOp> ops_;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_MATVEC_CUDA_H_
