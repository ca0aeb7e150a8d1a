#include "worker/backend/cuda/cuda_backend.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cublas_lt.h"
#include "kernels/cuda/device.h"
#include "kernels/rope.h"
#include "proto/device_layout.h"
#include "worker/backend/cuda/cuda_backend_class.h"
#include "worker/backend/cuda/gpu_name.h"

namespace millrace {

absl::Status CudaBackend::Init() {
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device_));
  const size_t frequency_bytes = (static_cast<size_t>(model_.rope.dims) * 4 + 255) / 256 * 256;
  if (std::max(small_meta_.bytes, large_meta_.bytes) + frequency_bytes > layout_.meta_bytes) {
    return absl::InternalError("a pass's metadata takes more than was laid out for it");
  }
  MILLRACE_ASSIGN_OR_RETURN(arena_, allocator_.Allocate(SizeOf(layout_.total_bytes), "activations"));
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaMemsetAsync(arena_->data(), 0, layout_.total_bytes, stream().get()));
  MILLRACE_ASSIGN_OR_RETURN(cuda::DeviceBuffer weights,
                            allocator_.Allocate(options_.weights, "weights"));
  MILLRACE_ASSIGN_OR_RETURN(
      pinned_meta_,
      cuda::PinnedBuffer::Create(SizeOf(std::max(small_meta_.bytes, large_meta_.bytes))));
  MILLRACE_ASSIGN_OR_RETURN(
      pinned_results_, cuda::PinnedBuffer::Create(SizeOf(kMaxGpuHeadRows * sizeof(cuda::SampleResult))));
  // No attention runs while weights are placed; FinishLoading clears its counters.
  MILLRACE_ASSIGN_OR_RETURN(
      pool_, WeightPool::Create(std::move(weights), At<std::byte>(layout_.attention),
                                SizeOf(layout_.attention_bytes), stream()));
  // The frequencies stand at the end of the metadata area.
  const std::vector<double> frequencies = RopeFrequencies(model_.rope);
  const size_t size = frequencies.size() * sizeof(double);
  auto* to = At<double>(layout_.meta + layout_.meta_bytes - frequency_bytes);
  MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(to, frequencies.data(), SizeOf(size), stream()));
  frequencies_ = to;
  if (!options_.last_stage) {
    MILLRACE_ASSIGN_OR_RETURN(shared_, DeviceRows::Create(device_));
  }
  return stream().Wait(kPassTimeout);
}

absl::StatusOr<WeightsId> CudaBackend::StreamMatrices(absl::Span<const HostTensor> matrices,
                                                      absl::Span<const HostTensor> biases) {
  MILLRACE_RETURN_IF_ERROR(Use());
  GroupLayout layout = LayOutGroup(matrices);
  if (!biases.empty()) MILLRACE_RETURN_IF_ERROR(pool_->PlaceBiases(biases, &layout));
  const int id = static_cast<int>(groups_.size());
  groups_.push_back(layout.group);
  MILLRACE_RETURN_IF_ERROR(streamed_.Add(id, matrices, std::move(layout)));
  return WeightsId{id};
}

absl::Status CudaBackend::FinishLoading() {
  MILLRACE_RETURN_IF_ERROR(Use());
  MILLRACE_RETURN_IF_ERROR(pool_->Finish());
  // Attention's counters begin at zero.
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaMemsetAsync(At<void>(layout_.attention), 0, layout_.attention_bytes, stream().get()));
  if (!streamed_.empty()) {
    MILLRACE_RETURN_IF_ERROR(streamed_.Start(allocator_, options_.stream_ring, stream(), options_.stream_source));
  }
  return MakePrefill();
}

absl::Status CudaBackend::MakePrefill() {
  auto bring = [this](int group, cuda::StreamView reader) { return Bring(group, reader); };
  if (cuda::HasWideMatmul(device_)) {
    wide_.emplace(At<__half>(layout_.packed), SizeOf(layout_.packed_bytes), &groups_, bring);
    return absl::OkStatus();
  }
  MILLRACE_ASSIGN_OR_RETURN(
      auto engine,
      cuda::GemmEngine::Create(device_, At<void>(layout_.cublas), SizeOf(layout_.cublas_bytes)));
  MILLRACE_ASSIGN_OR_RETURN(
      prefill_,
      PrefillMatmul::Create(
          device_, std::move(engine),
          {At<__half>(layout_.dequantized[0]), At<__half>(layout_.dequantized[1])},
          layout_.dequantized_bytes / sizeof(__half), &groups_, bring));
  return absl::OkStatus();
}

namespace {

// Shapes that the kernels take.
absl::Status CheckModel(const ModelSpec& model) {
  for (const TensorSpec& t : model.tensors) {
    if (t.shape.size() == 2 && t.cols() % 32 != 0) {
      return absl::UnimplementedError(absl::StrCat("tensor ", t.name, " has rows of ", t.cols(),
                                                   " values: GPUs take multiples of 32 only; plan "
                                                   "with --devices cpu"));
    }
  }
  for (const LayerSpec& l : model.layers) {
    if (l.head_dim % 8 != 0 || l.head_dim > 256) {
      return absl::UnimplementedError(absl::StrCat(
          "heads of ", l.head_dim, " values: GPUs take multiples of 8 up to 256; plan with --devices cpu"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const ModelSpec& model,
                                                         const BackendOptions& options) {
  MILLRACE_RETURN_IF_ERROR(CheckModel(model));
  MILLRACE_ASSIGN_OR_RETURN(const int device, HardwareIndex(options.device));
  // For good: the thread owns the device. Going back to the one before would open a context there.
  const absl::Status current = MILLRACE_CUDA_STATUS(cudaSetDevice(device));
  if (!current.ok()) return Annotate(current, options.device.value());
  const Bytes no_limit(int64_t{1} << 60);
  MILLRACE_ASSIGN_OR_RETURN(
      auto allocator,
      cuda::DeviceAllocator::Create(device, options.budget > Bytes(0) ? options.budget : no_limit,
                                    options.overhead));
  MILLRACE_ASSIGN_OR_RETURN(auto stream, cuda::Stream::Create(device));
  auto backend = std::make_unique<CudaBackend>(model, options, device, std::move(allocator),
                                               std::move(stream));
  MILLRACE_RETURN_IF_ERROR(backend->Init());
  return backend;
}

}  // namespace millrace
