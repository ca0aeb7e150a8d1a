// StreamedGroups: a GPU backend's groups of weights that stay in host memory, and their way to the ops.
#ifndef MILLRACE_WORKER_BACKEND_CUDA_STREAMED_GROUPS_H_
#define MILLRACE_WORKER_BACKEND_CUDA_STREAMED_GROUPS_H_

#include <map>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cuda/device_allocator.h"
#include "kernels/cuda/stream.h"
#include "worker/backend/backend.h"
#include "worker/backend/cuda/group_layout.h"
#include "worker/stream/cuda_weight_streamer.h"

namespace millrace {

// Belongs to its backend's thread. Add every group, Start, then passes.
class StreamedGroups {
 public:
  // Group number `id` of the backend; `layout` with biases (resident) already in it. The matrices'
  // bytes outlive this.
  absl::Status Add(int id, absl::Span<const HostTensor> matrices, GroupLayout layout);
  bool empty() const { return index_.empty(); }

  // Takes ring and staging from `allocator`; copies begin with the first pass. `compute`: where ops
  // are queued. `source` outlives this and knows all matrices. ResourceExhausted, Internal.
  absl::Status Start(const cuda::DeviceAllocator& allocator, Bytes ring, cuda::StreamView compute,
                     ChunkSource* source);

  // The groups that the pass reads, in order; resident ones may be among them.
  absl::Status BeginPass(absl::Span<const int> order);

  // The next group of the order: `placed` becomes where it lies. Work queued on `reader` while the
  // lease lives finds it there. An id that is not streamed gets an empty lease.
  absl::StatusOr<WeightLease> Bring(int id, cuda::StreamView reader, PlacedGroup& placed);

  // See Backend.
  std::optional<StreamStats> TakeCopies(std::vector<BusySpan>& spans);

 private:
  std::map<int, int> index_;  // backend's id to the streamer's
  std::vector<StreamedOp> pending_;  // until Start
  std::unique_ptr<CudaWeightStreamer> streamer_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_CUDA_STREAMED_GROUPS_H_
