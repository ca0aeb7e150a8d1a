// Backend: the seam between a stage and the device that computes it: the device's memory and its ops.
//
// Contract:
// 1. A backend belongs to one thread (the stage's owner). Ops are ordered; a device may run them
//    asynchronously and says so only through Synchronize and ReadBack.
// 2. Views given to ops point into memory that Allocate or PlaceWeights returned, on this device.
//    For the CPU that is ordinary memory and weights are views of the model file.
// 3. Shapes are the kernels' contracts (kernels/*.h); a wrong shape is our bug and CHECKed.
// 4. Errors: ResourceExhausted for memory, Internal for a device that failed, with the call named.
#ifndef MILLRACE_WORKER_BACKEND_BACKEND_H_
#define MILLRACE_WORKER_BACKEND_BACKEND_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "kernels/views.h"
#include "proto/bytes.h"
#include "proto/ids.h"
#include "proto/model_spec.h"

namespace millrace {

// Device memory with an owner. Freed when it dies; the backend outlives it.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  virtual std::byte* data() const = 0;
  virtual Bytes size() const = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // Threads of the CPU that ops use, 0 for a GPU: part of what sizes scratch.
  virtual int threads() const = 0;

  // Zeroed memory, 64-byte aligned; pages may become resident only when touched.
  virtual absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(Bytes size) = 0;
  // Weights of one tensor where ops can read them. `host` outlives the backend.
  virtual absl::StatusOr<WeightView> PlaceWeights(const TensorSpec& spec,
                                                  absl::Span<const std::byte> host) = 0;
  // A small vector (norm, bias) as f32 on the device, owned by the backend.
  virtual absl::StatusOr<const float*> PlaceVector(const TensorSpec& spec,
                                                   absl::Span<const std::byte> host) = 0;
  // Memory that ops may overwrite; given once before the first op.
  virtual void SetScratch(std::byte* scratch, size_t bytes) = 0;

  virtual absl::Status Embed(const WeightView& table, absl::Span<const TokenId> tokens,
                             FloatView out) = 0;
  virtual absl::Status RmsNorm(FloatView x, const float* weight, float epsilon, FloatView out) = 0;
  virtual absl::Status HeadRmsNorm(FloatView x, int head_dim, const float* weight,
                                   float epsilon) = 0;
  virtual absl::Status Matmul(FloatView x, absl::Span<const MatmulTarget> targets) = 0;
  virtual absl::Status RopeTable(absl::Span<const int> positions,
                                 absl::Span<const double> frequencies, float* table) = 0;
  virtual absl::Status Rope(FloatView x, int head_dim, int dims, RopeStyle style,
                            const float* table) = 0;
  virtual absl::Status KvAppend(FloatView k, FloatView v,
                                absl::Span<const AttentionSegment> segments,
                                const KvView& cache) = 0;
  virtual absl::Status Attention(FloatView q, int heads, const KvView& cache,
                                 absl::Span<const AttentionSegment> segments, float scale,
                                 FloatView out) = 0;
  virtual absl::Status SwiGlu(FloatView gate, FloatView up) = 0;
  // Device to host and host to device; both return when the bytes have arrived.
  virtual absl::Status ReadBack(FloatView device, FloatView host) = 0;
  virtual absl::Status Upload(FloatView host, FloatView device) = 0;
};

// The CPU with `threads` threads (0: UsableThreads()) and the best instructions it has.
std::unique_ptr<Backend> MakeCpuBackend(int threads);

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_BACKEND_H_
