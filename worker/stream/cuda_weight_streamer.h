// CudaWeightStreamer: everything that a CUDA backend needs to run ops whose weights are not on the
// device: ring, stages, device and WeightStream, put together.
#ifndef MILLRACE_WORKER_STREAM_CUDA_WEIGHT_STREAMER_H_
#define MILLRACE_WORKER_STREAM_CUDA_WEIGHT_STREAMER_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/device_allocator.h"
#include "worker/stream/chunk_source.h"
#include "worker/stream/cuda_stream_device.h"
#include "worker/stream/weight_stream.h"

namespace millrace {

// The matrices of one op and where they will lie: LayOutGroup of them, with biases placed
// (WeightPool::PlaceBiases).
struct StreamedOp {
  std::vector<HostTensor> matrices;
  GroupLayout layout;
};

// An op's weights in the ring. Kernels queued on the compute stream find them; dies, or releases
// its lease, after the last of them was queued.
struct StreamedWeights {
  PlacedGroup group;
  WeightLease lease;
};

// Threading: the backend's thread, but for stream()'s functions for any thread.
class CudaWeightStreamer {
 public:
  // `source` outlives this; its chunks are at least as large as options.chunk_bytes. Takes
  // `ring` and options.staging_bytes() from the allocator. Errors as those of the parts.
  static absl::StatusOr<std::unique_ptr<CudaWeightStreamer>> Create(
      const CudaStreamOptions& options, const cuda::DeviceAllocator& allocator, Bytes ring,
      cuda::StreamView compute, ChunkSource* source, const std::vector<StreamedOp>& ops);

  // The ops that the pass will acquire, in this order: see WeightStream::BeginPass.
  absl::Status BeginPass(absl::Span<const int> order) { return stream_->BeginPass(order); }

  // The order's next op, to be read by work on `reader`, which waits for the bytes. The lease is
  // released before the next Acquire. Not while a graph is recorded.
  absl::StatusOr<StreamedWeights> Acquire(int op, cuda::StreamView reader, absl::Duration timeout);

  WeightStream& stream() { return *stream_; }

 private:
  CudaWeightStreamer(std::unique_ptr<CudaStreamDevice> device, std::unique_ptr<WeightStream> stream)
      : device_(std::move(device)), stream_(std::move(stream)) {}
  std::unique_ptr<CudaStreamDevice> device_;
  std::unique_ptr<WeightStream> stream_;  // dies first
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STREAM_CUDA_WEIGHT_STREAMER_H_
