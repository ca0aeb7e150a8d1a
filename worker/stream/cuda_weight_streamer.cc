#include "worker/stream/cuda_weight_streamer.h"

#include <utility>

#include "proto/status_macros.h"

namespace millrace {

absl::StatusOr<std::unique_ptr<CudaWeightStreamer>> CudaWeightStreamer::Create(
    const CudaStreamOptions& options, const cuda::DeviceAllocator& allocator, Bytes ring,
    cuda::StreamView compute, ChunkSource* source, const std::vector<StreamedOp>& ops) {
  std::vector<StreamGroup> groups;
  std::vector<GroupLayout> layouts;
  for (size_t i = 0; i < ops.size(); ++i) {
    MILLRACE_ASSIGN_OR_RETURN(
        StreamGroup group,
        MakeStreamGroup(static_cast<int>(i), ops[i].matrices, ops[i].layout, options.chunk_bytes));
    groups.push_back(std::move(group));
    layouts.push_back(ops[i].layout);
  }
  MILLRACE_ASSIGN_OR_RETURN(cuda::DeviceBuffer memory, allocator.Allocate(ring, "weight ring"));
  MILLRACE_ASSIGN_OR_RETURN(cuda::DeviceBuffer staging,
                            allocator.Allocate(options.staging_bytes(), "weight stages"));
  MILLRACE_ASSIGN_OR_RETURN(
      auto device, CudaStreamDevice::Create(options, compute, std::move(memory), std::move(staging),
                                            std::move(layouts)));
  MILLRACE_ASSIGN_OR_RETURN(auto stream,
                            WeightStream::Create(device.get(), source, std::move(groups), {}));
  return std::unique_ptr<CudaWeightStreamer>(
      new CudaWeightStreamer(std::move(device), std::move(stream)));
}

absl::StatusOr<StreamedWeights> CudaWeightStreamer::Acquire(int op, cuda::StreamView reader,
                                                              absl::Duration timeout) {
  MILLRACE_ASSIGN_OR_RETURN(WeightLease lease, stream_->Acquire(op, timeout));
  device_->ReadBy(reader);
  MILLRACE_RETURN_IF_ERROR(lease.ComputeAfterArrival());
  StreamedWeights weights;
  weights.group = device_->Placed(op, lease.ring_offset());
  weights.lease = std::move(lease);
  return weights;
}

}  // namespace millrace
