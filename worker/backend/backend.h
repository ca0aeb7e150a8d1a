// Backend: the seam between a stage and the device that computes it: the device's memory and its ops.
// Ops are as large as devices can fuse: what a GPU does in one kernel is one op here.
//
// Contract:
// 1. A backend belongs to one thread (the stage's owner). Ops are ordered; a device runs them
//    asynchronously and is waited for only in ReadHidden, AwaitHidden and Collect, and by BeginPass for the pass
//    before.
// 2. Load time: Create, then Place or Stream every tensor, Allocate the KV cache, FinishLoading. Then
//    passes: BeginPass, ops (inside Run), ReadHidden, ShareHidden or Collect.
// 3. Views point into memory of this device that the backend owns. Activation rows (Activations) are
//    stored as the device likes them: f32 on a CPU, f16 on a GPU; the residual stream (FloatView) is
//    always f32.
// 4. Shapes are the kernels' contracts (kernels/*.h); a wrong shape is our bug and CHECKed.
// 5. Errors: ResourceExhausted for memory, Internal for a device that failed, with the call named.
#ifndef MILLRACE_WORKER_BACKEND_BACKEND_H_
#define MILLRACE_WORKER_BACKEND_BACKEND_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/attention.h"
#include "kernels/views.h"
#include "proto/bytes.h"
#include "proto/cluster_spec.h"
#include "proto/ids.h"
#include "proto/model_spec.h"
#include "worker/hidden_states.h"
#include "worker/backend/host_tensor.h"
#include "worker/pass.h"
#include "worker/resource_use.h"

namespace millrace {

// Device memory with an owner. Freed when it dies; the backend outlives it.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  virtual std::byte* data() const = 0;
  virtual Bytes size() const = 0;
};

// Matrices that multiply the same input, placed together, with their biases; by place order.
struct WeightsId {
  int value = -1;
};

// Rows of activations in the device's own type.
struct Activations {
  void* data = nullptr;
  int64_t rows = 0, cols = 0;
  int64_t stride = 0;  // elements between rows
};

// Everything a pass of n rows writes, overwritten by the next pass.
struct PassBuffers {
  FloatView hidden;     // [n, d_model] f32: the residual stream
  Activations normed;   // [n, d_model]
  FloatView qkv;        // [n, widest (heads + 2 kv_heads) * head_dim] f32, shares memory with gate_up
  Activations q;        // [n, heads * head_dim]; on a CPU it is qkv's first columns
  Activations mixed;    // [n, heads * head_dim]: attention's output
  FloatView gate_up;    // [n, 2 widest d_ff] f32
  Activations act;      // [n, d_ff]; on a CPU it is gate_up's first columns
};

class ChunkSource;  // worker/stream/chunk_source.h

struct BackendOptions {
  int max_pass_tokens = 512;
  int slots = 1;
  int context = 0;         // tokens per slot
  bool last_stage = false; // room for logits
  int threads = 0;         // CPU threads; 0 = UsableThreads()
  absl::Duration pool_linger = absl::Microseconds(100);  // how long idle CPU threads stay awake
  DeviceId device;         // "cpu", "gpu0", "gpu0#1"
  Bytes weights;           // GPU: bytes of everything that will be placed (CudaPlacedBytes, summed)
  Bytes budget;            // GPU: never taken more, context and libraries included; 0 = no limit
  Bytes overhead;          // GPU: what of the budget context and libraries take
  Bytes stream_ring;       // GPU: what streamed weights come into; 0 = none are (stream_layout.h)
  ChunkSource* stream_source = nullptr;  // GPU: where they come from; outlives the backend
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual Bytes activation_bytes() const = 0;
  // Most rows of Head in one go.
  virtual int max_head_rows() const = 0;

  // ---- load ----
  // Whether placed tensors are copied: their bytes may go when the call that places them has returned.
  // Otherwise, and of streamed matrices in any case, they stay.
  virtual bool copies_weights() const { return false; }
  // `biases`: empty, or one per matrix, each may be without spec.
  virtual absl::StatusOr<WeightsId> PlaceMatrices(absl::Span<const HostTensor> matrices,
                                                  absl::Span<const HostTensor> biases) = 0;
  // The same of matrices whose bytes stay in host memory: they come to the device for each use, in the
  // order that Expect gives. A CPU reads them in place.
  virtual absl::StatusOr<WeightsId> StreamMatrices(absl::Span<const HostTensor> matrices,
                                                   absl::Span<const HostTensor> biases) = 0;
  // A small vector (norm) as f32, or a null pointer for a tensor without spec.
  virtual absl::StatusOr<const float*> PlaceVector(const HostTensor& vector) = 0;
  // The table that Embed looks tokens up in.
  virtual absl::Status PlaceEmbedding(const HostTensor& table) = 0;
  // Zeroed memory, 256-byte aligned; pages may become resident only when touched. `what` for errors.
  virtual absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(Bytes size, const char* what) = 0;
  // The same in host memory, at an address that the device's ops read and write.
  virtual absl::StatusOr<std::unique_ptr<DeviceMemory>> AllocateOnHost(Bytes size, const char* what) {
    return Allocate(size, what);
  }
  // Everything is placed: takes what passes need besides, the ring of streamed weights among it.
  // InvalidArgument where a streamed group does not fit the ring.
  virtual absl::Status FinishLoading() { return absl::OkStatus(); }

  // ---- a pass ----
  // Takes in rows, positions and outputs (the views must live until Collect, ReadHidden or
  // ShareHidden), `hidden` from the stage before (empty for the first stage; it has been copied, or
  // the copy is queued, when this returns) and makes the rope table.
  virtual absl::Status BeginPass(const Pass& pass, absl::Span<const AttentionSegment> segments,
                                 absl::Span<const int> positions, const HiddenStates& hidden) = 0;
  virtual PassBuffers buffers() const = 0;  // of the pass begun
  // The groups that the pass's ops will read, in their order, then `head` by `heads` calls of Head.
  // Called before Run.
  virtual absl::Status Expect(absl::Span<const WeightsId> order, WeightsId head, int heads) = 0;
  // Calls `ops` once. Where they `repeat`, a device may record them and replay the record for later
  // passes of the same shape: `ops` does the same for every pass with equal numbers of rows and
  // outputs, reads placed weights only, and waits for nothing.
  virtual absl::Status Run(absl::FunctionRef<absl::Status()> ops, bool repeat) = 0;

  virtual absl::Status Embed(FloatView out) = 0;  // the pass's tokens
  // normed = RmsNorm(hidden), as the products that follow take it: a device may leave a row's scale
  // to them.
  virtual absl::Status RmsNorm(FloatView hidden, const float* weight,
                               const Activations& normed) = 0;
  // out = x * W^T + bias; a group of several matrices side by side.
  virtual absl::Status Matmul(const Activations& x, WeightsId weights, FloatView out) = 0;
  // hidden += x * W^T + bias. Then, where next_norm is not null, RmsNorm(hidden, next_norm, normed).
  virtual absl::Status AddMatmul(const Activations& x, WeightsId weights, FloatView hidden,
                                 const float* next_norm, const Activations& normed) = 0;
  // Head norms (where not null), rotation of q and k, k and v into the cache; then out = attention.
  // `q` is room for the queries.
  virtual absl::Status Attention(FloatView qkv, const LayerSpec& layer, const float* q_norm,
                                 const float* k_norm, const KvView& cache, const Activations& q,
                                 const Activations& out) = 0;
  // out = silu(x * gate^T) * (x * up^T), both in `weights`; gate_up is room for the products.
  virtual absl::Status GatedMatmul(const Activations& x, WeightsId weights, FloatView gate_up,
                                   const Activations& out) = 0;
  // Output norm and head for the pass's outputs [first, first + count), count <= max_head_rows(),
  // and what they ask of the logits.
  virtual absl::Status Head(const float* norm, WeightsId head, int first, int count) = 0;

  // Waits. What Head made of outputs [first, first + count).
  virtual absl::StatusOr<std::vector<RowOutput>> Collect(int first, int count) = 0;
  // The copies of streamed weights since the backend was made, and when they were made since the last
  // call; nothing where none is streamed.
  virtual std::optional<StreamStats> TakeCopies(std::vector<BusySpan>& spans) {
    return std::nullopt;
  }
  // Waits. The residual stream as f32 in host memory, valid until the next pass.
  virtual absl::StatusOr<FloatView> ReadHidden() = 0;
  // Waits until no copy of an earlier pass reads it: host memory [n, d_model] f32 that BeginPass takes
  // hidden states from without another copy.
  virtual absl::StatusOr<FloatView> HostRows(int64_t n) = 0;
  // The residual stream from where ReadHidden put it, as the caller has changed it since. The memory
  // is not to be touched before the next ReadHidden.
  virtual absl::Status WriteHidden() = 0;

  // Where host and device compute parts of a block at the same time:
  //   SendHidden(); ... ops of the device's part ...; AwaitHidden(); the host computes; AddPart();
  // SendHidden queues the copy of the residual stream as the ops before leave it. Does not wait.
  virtual absl::Status SendHidden() { return NoParts(); }
  // Waits for that copy, not for what was queued after it: host memory, as ReadHidden gives.
  virtual absl::StatusOr<FloatView> AwaitHidden() { return NoParts(); }
  // Host memory [n, d_model] f32, to be written between AwaitHidden and AddPart.
  virtual absl::StatusOr<FloatView> PartRows() { return NoParts(); }
  // Queues hidden += PartRows.
  virtual absl::Status AddPart() { return NoParts(); }

  // Whether BeginPass takes rows that lie on a device, and ShareHidden gives such.
  virtual bool takes_device_rows() const { return false; }
  // Does not wait. The residual stream where it lies; the next pass waits on the device before it
  // overwrites what is still being copied.
  virtual absl::StatusOr<HiddenStates> ShareHidden() {
    return absl::UnimplementedError("hidden states are read through host memory here");
  }
  // What the device took for the pass that ShareHidden gave away; zero while it is not done.
  virtual absl::Duration shared_pass_time() const { return absl::ZeroDuration(); }

 private:
  static absl::Status NoParts() {
    return absl::UnimplementedError("this device does not share blocks with the host");
  }
};

// The CPU with `options.threads` threads and the best instructions it has.
absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const ModelSpec& model,
                                                        const BackendOptions& options);

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_BACKEND_H_
