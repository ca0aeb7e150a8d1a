// WeightPool: a stage's weights on a GPU, in one allocation, and how they get there.
#ifndef MILLRACE_WORKER_BACKEND_CUDA_WEIGHT_POOL_H_
#define MILLRACE_WORKER_BACKEND_CUDA_WEIGHT_POOL_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cuda/buffers.h"
#include "kernels/cuda/event.h"
#include "worker/backend/backend.h"
#include "worker/backend/cuda/group_layout.h"

namespace millrace {

// Belongs to its backend's thread. Bytes go through two pinned buffers and two staging areas on the
// device, copies and tiling running while the next bytes are read from the file.
class WeightPool {
 public:
  // `staging`: device memory that nothing else uses while weights are placed, at least
  // kLeastStaging. `memory` holds everything that will be placed.
  static constexpr Bytes kLeastStaging = 16_MiB;
  static absl::StatusOr<WeightPool> Create(cuda::DeviceBuffer memory, std::byte* staging,
                                           Bytes staging_size, cuda::StreamView stream);

  absl::StatusOr<PlacedGroup> PlaceMatrices(absl::Span<const HostTensor> matrices,
                                            absl::Span<const HostTensor> biases);
  // The biases of a group that is laid out and whose matrices are not placed here (streamed ones):
  // `biases` as in PlaceMatrices, the layout's runs point to them.
  absl::Status PlaceBiases(absl::Span<const HostTensor> biases, GroupLayout* layout);
  // As f32. Null for a tensor without spec.
  absl::StatusOr<const float*> PlaceVectors(absl::Span<const HostTensor> vectors);
  // Bytes as they are.
  absl::StatusOr<const std::byte*> PlaceRaw(const HostTensor& tensor);
  // Until everything placed is there.
  absl::Status Finish();

 private:
  struct Slot {
    cuda::PinnedBuffer pinned;
    cuda::Event free;
    std::byte* staging = nullptr;
  };
  WeightPool(cuda::DeviceBuffer memory, cuda::StreamView stream)
      : memory_(std::move(memory)), stream_(stream) {}

  absl::StatusOr<std::byte*> Take(Bytes size);
  // Copies `size` bytes into the next slot's pinned buffer once it is free.
  absl::StatusOr<Slot*> Fill(const std::byte* from, size_t size);
  absl::Status Upload(const std::byte* from, size_t size, std::byte* to);
  absl::Status UploadTiles(const HostTensor& matrix, const WeightTiles& tiles, uint8_t* data);

  cuda::DeviceBuffer memory_;
  cuda::StreamView stream_;
  size_t used_ = 0;
  size_t slot_bytes_ = 0;
  std::vector<Slot> slots_;
  size_t next_slot_ = 0;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_CUDA_WEIGHT_POOL_H_
