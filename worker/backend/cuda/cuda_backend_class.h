// CudaBackend: the class behind MakeCudaBackend (cuda_backend.h). Its members are defined by what they
// are about: loading in cuda_backend.cc, passes and their recording in _pass.cc, norms and products in
// _products.cc, rotation and attention in _attention.cc, head and sampling in _outputs.cc, rows that
// come and go in _hidden.cc.
#ifndef MILLRACE_WORKER_BACKEND_CUDA_CUDA_BACKEND_CLASS_H_
#define MILLRACE_WORKER_BACKEND_CUDA_CUDA_BACKEND_CLASS_H_

#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/attention_cuda.h"
#include "kernels/cuda/device_allocator.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/status.h"
#include "kernels/deferred_norm_cuda.h"
#include "kernels/elementwise_cuda.h"
#include "kernels/matmul_cuda.h"
#include "kernels/rope_cuda.h"
#include "kernels/sample_cuda.h"
#include "kernels/wide_matmul_cuda.h"
#include "proto/status_macros.h"
#include "worker/backend/backend.h"
#include "worker/backend/cuda/cuda_memory.h"
#include "worker/backend/cuda/device_rows.h"
#include "worker/backend/cuda/gpu_memory.h"
#include "worker/backend/cuda/pass_meta.h"
#include "worker/backend/cuda/prefill_matmul.h"
#include "worker/backend/cuda/streamed_groups.h"
#include "worker/backend/cuda/weight_pool.h"
#include "worker/backend/cuda/wide_prefill.h"

namespace millrace {

inline constexpr absl::Duration kPassTimeout = absl::Seconds(120);

inline Bytes SizeOf(size_t bytes) { return Bytes(static_cast<int64_t>(bytes)); }

// Everything that decides which kernels a small pass runs.
// Rows, outputs, context rounded up, whether each row is of another sequence.
using GraphKey = std::tuple<int, int, int, bool>;

class CudaBackend : public Backend {
 public:
  CudaBackend(const ModelSpec& model, const BackendOptions& options, int device,
              cuda::DeviceAllocator allocator, cuda::Stream stream)
      : model_(model),
        options_(options),
        device_(device),
        allocator_(std::move(allocator)),
        stream_(std::move(stream)),
        layout_(LayOutGpuActivations(model, options.max_pass_tokens, options.slots, options.context,
                                     options.last_stage,
                                     cuda::HasWideMatmul(device) ? LargeProducts::kDirect
                                                                 : LargeProducts::kDequantized)),
        small_meta_(kGpuSmallBatchTokens, kGpuSmallBatchTokens),
        large_meta_(options.max_pass_tokens, options.slots),
        receiver_(device) {}

  ~CudaBackend() override {
    Use().IgnoreError();
    // A pass that broke off may have left it a lease, which dies before its stream.
    if (prefill_) prefill_->Expect({});
    stream().Wait(kPassTimeout).IgnoreError();
    if (shared_) shared_->WaitUntilTaken(kPassTimeout).IgnoreError();
  }

  absl::Status Init();

  Bytes activation_bytes() const override { return arena_->size(); }
  int max_head_rows() const override { return kMaxGpuHeadRows; }

  absl::StatusOr<WeightsId> PlaceMatrices(absl::Span<const HostTensor> matrices,
                                          absl::Span<const HostTensor> biases) override {
    MILLRACE_RETURN_IF_ERROR(Use());
    MILLRACE_ASSIGN_OR_RETURN(PlacedGroup group, pool_->PlaceMatrices(matrices, biases));
    groups_.push_back(std::move(group));
    return WeightsId{static_cast<int>(groups_.size()) - 1};
  }
  absl::StatusOr<WeightsId> StreamMatrices(absl::Span<const HostTensor> matrices,
                                           absl::Span<const HostTensor> biases) override;
  absl::StatusOr<const float*> PlaceVector(const HostTensor& vector) override {
    MILLRACE_RETURN_IF_ERROR(Use());
    return pool_->PlaceVectors({&vector, 1});
  }
  absl::Status PlaceEmbedding(const HostTensor& table) override {
    MILLRACE_RETURN_IF_ERROR(Use());
    embedding_ = *table.spec;
    MILLRACE_ASSIGN_OR_RETURN(embedding_data_, pool_->PlaceRaw(table));
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(Bytes size, const char* what) override {
    MILLRACE_RETURN_IF_ERROR(Use());
    MILLRACE_ASSIGN_OR_RETURN(cuda::DeviceBuffer buffer, allocator_.Allocate(size, what));
    MILLRACE_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(
        buffer.data(), 0, static_cast<size_t>(size.count()), stream().get()));
    return std::make_unique<CudaMemory>(std::move(buffer));
  }
  // Kernels read and write it over the link.
  absl::StatusOr<std::unique_ptr<DeviceMemory>> AllocateOnHost(Bytes size,
                                                               const char* what) override {
    MILLRACE_RETURN_IF_ERROR(Use());
    absl::StatusOr<cuda::PinnedBuffer> buffer = cuda::PinnedBuffer::Create(size);
    if (!buffer.ok()) return Annotate(buffer.status(), what);
    std::memset(buffer->data(), 0, static_cast<size_t>(size.count()));
    return std::make_unique<HostMemory>(*std::move(buffer));
  }
  absl::Status FinishLoading() override;

  absl::Status BeginPass(const Pass& pass, absl::Span<const AttentionSegment> segments,
                         absl::Span<const int> positions, const HiddenStates& hidden) override;
  PassBuffers buffers() const override;
  absl::Status Expect(absl::Span<const WeightsId> order, WeightsId head, int heads) override;
  absl::Status Run(absl::FunctionRef<absl::Status()> ops, bool repeat) override;

  absl::Status Embed(FloatView out) override {
    return cuda::EmbedRows(embedding_data_, embedding_.dtype, embedding_.rows(), embedding_.cols(),
                           Meta<int32_t>(meta().tokens), out.rows, out.data, stream());
  }
  absl::Status RmsNorm(FloatView hidden, const float* weight, const Activations& normed) override;
  absl::Status Matmul(const Activations& x, WeightsId weights, FloatView out) override {
    return Multiply(x, weights, false, out);
  }
  absl::Status AddMatmul(const Activations& x, WeightsId weights, FloatView hidden,
                         const float* next_norm, const Activations& normed) override;
  absl::Status Attention(FloatView qkv, const LayerSpec& layer, const float* q_norm,
                         const float* k_norm, const KvView& cache, const Activations& q,
                         const Activations& out) override;
  absl::Status GatedMatmul(const Activations& x, WeightsId weights, FloatView gate_up,
                           const Activations& out) override;
  absl::Status Head(const float* norm, WeightsId head, int first, int count) override;
  absl::StatusOr<std::vector<RowOutput>> Collect(int first, int count) override;
  std::optional<StreamStats> TakeCopies(std::vector<BusySpan>& spans) override {
    return streamed_.TakeCopies(spans);
  }
  absl::StatusOr<FloatView> ReadHidden() override;
  absl::StatusOr<FloatView> HostRows(int64_t n) override;
  absl::Status WriteHidden() override;
  absl::Status SendHidden() override;
  absl::StatusOr<FloatView> AwaitHidden() override;
  absl::StatusOr<FloatView> PartRows() override { return PinnedRows(shape_.rows, &pinned_part_); }
  absl::Status AddPart() override;
  bool copies_weights() const override { return true; }
  bool takes_device_rows() const override { return true; }
  absl::StatusOr<HiddenStates> ShareHidden() override;
  absl::Duration shared_pass_time() const override {
    return shared_->PassTime().value_or(absl::ZeroDuration());
  }

 private:
  cuda::StreamView stream() const { return stream_.view(); }
  // Makes the device current on the calling thread, which need not be the one that created this.
  absl::Status Use() const { return MILLRACE_CUDA_STATUS(cudaSetDevice(device_)); }
  template <typename T = float>
  T* At(size_t offset) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(arena_->data()) + offset);
  }
  template <typename T>
  T* Meta(size_t offset) const {
    return At<T>(layout_.meta + offset);
  }
  const PassMetaLayout& meta() const { return small_ ? small_meta_ : large_meta_; }
  std::byte* pinned_meta() const { return static_cast<std::byte*>(pinned_meta_->data()); }
  cuda::PassRows rows() const {
    return {Meta<int>(meta().slots), Meta<int>(meta().positions), shape_.rows};
  }
  cuda::SampleResult* results() const {
    return static_cast<cuda::SampleResult*>(pinned_results_->data());
  }

  // The group's weights for work that is queued on `reader` while the lease lives.
  absl::StatusOr<WeightLease> Bring(int group, cuda::StreamView reader) {
    return streamed_.Bring(group, reader, groups_[static_cast<size_t>(group)]);
  }
  // n rows of `buffer`, which is made where it is not there yet.
  absl::StatusOr<FloatView> PinnedRows(int64_t n, std::optional<cuda::PinnedBuffer>* buffer);
  // What HostRows gives, without waiting.
  absl::StatusOr<FloatView> PinnedRows(int64_t n) { return PinnedRows(n, &pinned_hidden_); }
  absl::Status TakeHidden(const HiddenStates& hidden);
  cuda::MatmulInput InputOf(const Activations& x) const;
  cuda::DeferredNorm NormRoom(int which) const;
  WideRows WideRowsOf(const Activations& x) const;
  // Whether a product with `matrix_rows` weight rows goes to wide_.
  bool UsesWide(const Activations& x, int64_t matrix_rows) const;
  absl::Status MakePrefill();
  absl::Status Multiply(const Activations& x, WeightsId weights, bool accumulate, FloatView out);
  absl::Status GatedMany(const Activations& x, WeightsId weights, FloatView gate_up,
                         const Activations& out);
  cuda::RopeAppendArgs RopeArgs(FloatView qkv, const LayerSpec& layer, const float* q_norm,
                                const float* k_norm) const;
  absl::Status Issue(absl::FunctionRef<absl::Status()> ops);
  absl::Status Replay(const GraphKey& key, absl::FunctionRef<absl::Status()> ops);
  size_t CounterBytes(int heads) const;
  int Splits(int kv_heads, int heads, int head_dim) const;
  absl::StatusOr<RowOutput> OutputAt(int first, int i);

  const ModelSpec& model_;
  const BackendOptions options_;
  const int device_;
  cuda::DeviceAllocator allocator_;
  const cuda::Stream stream_;
  const GpuActivationLayout layout_;
  const PassMetaLayout small_meta_, large_meta_;
  int multiprocessors_ = 0;

  std::optional<cuda::DeviceBuffer> arena_;
  std::optional<cuda::PinnedBuffer> pinned_meta_, pinned_results_, pinned_hidden_, pinned_part_;
  std::optional<cuda::Event> hidden_sent_;
  std::optional<WeightPool> pool_;
  // Products of large passes: one of the two, as the device is.
  std::optional<WidePrefill> wide_;
  std::optional<PrefillMatmul> prefill_;
  std::vector<PlacedGroup> groups_;  // of streamed ones where they lay last
  StreamedGroups streamed_;
  TensorSpec embedding_;
  const std::byte* embedding_data_ = nullptr;
  const double* frequencies_ = nullptr;
  RowsReceiver receiver_;
  std::unique_ptr<DeviceRows> shared_;  // null on the last stage

  // Of the pass begun.
  const Pass* pass_ = nullptr;
  PassShape shape_;
  bool small_ = false;
  int context_bucket_ = 0;
  cuda::DeferredNorm norm_;  // of the normed rows; sums null: they are whole
  bool normed_packed_ = false, act_packed_ = false;  // as WidePrefill takes them
  bool outputs_written_ = false;  // the first outputs are in the pinned metadata already
  std::vector<bool> to_host_;
  std::map<GraphKey, std::optional<cuda::Graph>> graphs_;  // nothing: seen once, not recorded
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_CUDA_CUDA_BACKEND_CLASS_H_
