#include "worker/backend/cuda/cuda_backend.h"

#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_allocator.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/host_copy.h"
#include "kernels/cuda/status.h"
#include "kernels/elementwise_cuda.h"
#include "kernels/matmul_cuda.h"
#include "kernels/narrow_choice.h"
#include "kernels/norm_cuda.h"
#include "kernels/rope.h"
#include "kernels/rope_cuda.h"
#include "proto/device_layout.h"
#include "proto/status_macros.h"
#include "worker/backend/cuda/device_rows.h"
#include "worker/backend/cuda/gpu_memory.h"
#include "worker/backend/cuda/gpu_name.h"
#include "worker/backend/cuda/pass_meta.h"
#include "worker/backend/cuda/prefill_matmul.h"
#include "worker/backend/cuda/streamed_groups.h"
#include "worker/backend/cuda/wide_prefill.h"
#include "worker/backend/row_output.h"
#include "worker/sampler.h"

namespace millrace {
namespace {

using cuda::CopyAsync;
using cuda::DeviceBuffer;

constexpr absl::Duration kPassTimeout = absl::Seconds(120);
// Recorded passes kept; one more starts afresh.
constexpr size_t kMaxGraphs = 96;

Bytes SizeOf(size_t bytes) { return Bytes(static_cast<int64_t>(bytes)); }

class CudaMemory : public DeviceMemory {
 public:
  explicit CudaMemory(DeviceBuffer buffer) : buffer_(std::move(buffer)) {}
  std::byte* data() const override { return static_cast<std::byte*>(buffer_.data()); }
  Bytes size() const override { return buffer_.size(); }

 private:
  DeviceBuffer buffer_;
};

class HostMemory : public DeviceMemory {
 public:
  explicit HostMemory(cuda::PinnedBuffer buffer) : buffer_(std::move(buffer)) {}
  std::byte* data() const override { return static_cast<std::byte*>(buffer_.data()); }
  Bytes size() const override { return buffer_.size(); }

 private:
  cuda::PinnedBuffer buffer_;
};

// Everything that decides which kernels a small pass runs.
// Rows, outputs, context rounded up, whether each row is of another sequence.
using GraphKey = std::tuple<int, int, int, bool>;

class CudaBackend : public Backend {
 public:
  CudaBackend(const ModelSpec& model, const BackendOptions& options, int device,
              cuda::DeviceAllocator allocator, cuda::Stream stream)
      : model_(model), options_(options), device_(device), allocator_(std::move(allocator)), stream_(std::move(stream)),
        layout_(LayOutGpuActivations(model, options.max_pass_tokens, options.slots, options.context,
                                     options.last_stage,
                                     cuda::HasWideMatmul(device) ? LargeProducts::kDirect
                                                                 : LargeProducts::kDequantized)),
        small_meta_(kGpuSmallBatchTokens, kGpuSmallBatchTokens),
        large_meta_(options.max_pass_tokens, options.slots), receiver_(device) {}

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
    MILLRACE_ASSIGN_OR_RETURN(DeviceBuffer buffer, allocator_.Allocate(size, what));
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
  cuda::SampleResult* results() const { return static_cast<cuda::SampleResult*>(pinned_results_->data()); }

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

  std::optional<DeviceBuffer> arena_;
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
  MILLRACE_ASSIGN_OR_RETURN(DeviceBuffer weights,
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
  MILLRACE_RETURN_IF_ERROR(CopyAsync(to, frequencies.data(), SizeOf(size), stream()));
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

absl::Status CudaBackend::Expect(absl::Span<const WeightsId> order, WeightsId head, int heads) {
  std::vector<int> groups;
  for (WeightsId id : order) groups.push_back(id.value);
  // The head's rows are few: it is multiplied as it is.
  if (!small_ && prefill_) prefill_->Expect(groups);
  groups.insert(groups.end(), static_cast<size_t>(heads), head.value);
  return streamed_.BeginPass(groups);
}

absl::Status CudaBackend::BeginPass(const Pass& pass, absl::Span<const AttentionSegment> segments,
                                    absl::Span<const int> positions, const HiddenStates& hidden) {
  MILLRACE_RETURN_IF_ERROR(Use());
  MILLRACE_CHECK(wide_ || prefill_);  // FinishLoading
  // A pass without outputs was not waited for, and its metadata is about to be overwritten.
  MILLRACE_RETURN_IF_ERROR(stream().Wait(kPassTimeout));
  pass_ = &pass;
  small_ = pass.tokens.size() <= kGpuSmallBatchTokens;
  shape_ = WriteRows(pass, segments, positions, meta(), pinned_meta());
  // Contexts are told apart by powers of two only, so that a recorded pass serves many.
  context_bucket_ = 256;
  while (context_bucket_ < shape_.max_context) context_bucket_ *= 2;
  const int count = std::min<int>(kMaxGpuHeadRows, static_cast<int>(pass.outputs.size()));
  WriteOutputs(pass, 0, count, meta(), pinned_meta(), to_host_);
  outputs_written_ = true;
  // Before anything overwrites rows that the next stage may still be copying.
  if (shared_) MILLRACE_RETURN_IF_ERROR(shared_->Begin(stream()));
  return TakeHidden(hidden);
}

absl::Status CudaBackend::TakeHidden(const HiddenStates& hidden) {
  const FloatView& from = hidden.rows;
  if (from.rows == 0) return absl::OkStatus();
  const size_t row = sizeof(float) * static_cast<size_t>(model_.d_model);
  const Bytes size = SizeOf(row * static_cast<size_t>(from.rows));
  if (hidden.device != nullptr) {
    MILLRACE_CHECK(from.stride == from.cols);
    return receiver_.Take(*hidden.device, from.data, At(layout_.hidden), size, stream());
  }
  MILLRACE_ASSIGN_OR_RETURN(const FloatView room, PinnedRows(from.rows));
  for (int64_t r = 0; r < from.rows && from.data != room.data; ++r) {
    std::memcpy(static_cast<std::byte*>(pinned_hidden_->data()) + static_cast<size_t>(r) * row,
                from.row(r), row);
  }
  return cuda::CopyByKernel(At(layout_.hidden), pinned_hidden_->data(), size, stream());
}

PassBuffers CudaBackend::buffers() const {
  const int64_t n = shape_.rows, d = model_.d_model;
  int64_t q = 0, qkv = 0, ff = 0;
  for (const LayerSpec& l : model_.layers) {
    q = std::max(q, int64_t{l.heads} * l.head_dim);
    qkv = std::max(qkv, (int64_t{l.heads} + 2 * l.kv_heads) * l.head_dim);
    ff = std::max(ff, int64_t{l.d_ff});
  }
  PassBuffers b;
  b.hidden = FloatView(At(layout_.hidden), n, d);
  b.normed = {At<void>(layout_.normed), n, d, d};
  b.qkv = FloatView(At(layout_.qkv), n, qkv);
  b.q = {At<void>(layout_.q), n, q, q};
  b.mixed = {At<void>(layout_.mixed), n, q, q};
  b.gate_up = FloatView(At(layout_.gate_up), n, 2 * ff);
  b.act = {At<void>(layout_.act), n, ff, ff};
  return b;
}

// The pass's metadata to the device, the rope table, then `ops`.
absl::Status CudaBackend::Issue(absl::FunctionRef<absl::Status()> ops) {
  MILLRACE_RETURN_IF_ERROR(
      cuda::CopyByKernel(Meta<std::byte>(0), pinned_meta(), SizeOf(meta().bytes), stream()));
  MILLRACE_RETURN_IF_ERROR(
      cuda::RopeTable(rows(), frequencies_, model_.rope.dims / 2, At(layout_.rope), stream()));
  return ops();
}

absl::Status CudaBackend::Run(absl::FunctionRef<absl::Status()> ops, bool repeat) {
  if (!small_ || !repeat) return Issue(ops);
  const GraphKey key = {shape_.rows, std::min<int>(kMaxGpuHeadRows, static_cast<int>(pass_->outputs.size())),
                        context_bucket_, shape_.one_row_each};
  return Replay(key, ops);
}

// The first pass of a shape runs as it is (modules load, algorithms are chosen), the second one is
// recorded, later ones replay it.
absl::Status CudaBackend::Replay(const GraphKey& key, absl::FunctionRef<absl::Status()> ops) {
  const auto found = graphs_.find(key);
  if (found == graphs_.end()) {
    if (graphs_.size() >= kMaxGraphs) graphs_.clear();
    graphs_.emplace(key, std::nullopt);
    return Issue(ops);
  }
  if (!found->second) {
    MILLRACE_ASSIGN_OR_RETURN(found->second,
                              cuda::Graph::Capture(stream(), [&] { return Issue(ops); }));
  }
  return found->second->Launch(stream());
}

// One of the two areas that norms alternate between.
cuda::DeferredNorm CudaBackend::NormRoom(int which) const {
  cuda::DeferredNorm norm;
  norm.sums = At(layout_.norms + static_cast<size_t>(which) * cuda::kDeferredNormBytes);
  norm.prescale = norm.sums + cuda::kDeferredNormRows * cuda::kDeferredNormParts;
  norm.d = model_.d_model;
  norm.epsilon = model_.norm_epsilon;
  return norm;
}

absl::Status CudaBackend::RmsNorm(FloatView hidden, const float* weight,
                                  const Activations& normed) {
  auto* out = static_cast<__half*>(normed.data);
  norm_ = {};
  // All that read these rows then take them packed.
  normed_packed_ =
      wide_ && hidden.rows >= cuda::kLeastNarrowRows && cuda::RmsNormPacks(hidden.cols);
  if (normed_packed_) {
    return cuda::RmsNormPacked(hidden.data, hidden.stride, weight, model_.norm_epsilon,
                               {out, hidden.rows, hidden.cols}, stream());
  }
  if (hidden.rows > cuda::kDeferredNormRows) {
    return cuda::RmsNormHalf(hidden.data, hidden.stride, nullptr, hidden.rows, hidden.cols, weight,
                             model_.norm_epsilon, out, stream());
  }
  norm_ = NormRoom(0);
  norm_.parts = 1;
  return cuda::RmsNormDeferred(hidden.data, hidden.stride, hidden.rows, weight, norm_, out,
                               stream());
}

cuda::MatmulInput CudaBackend::InputOf(const Activations& x) const {
  cuda::MatmulInput in;
  in.x = static_cast<const __half*>(x.data);
  in.ldx = x.stride;
  in.n = static_cast<int>(x.rows);
  if (x.data == At<void>(layout_.normed)) in.norm = norm_;
  return in;
}

WideRows CudaBackend::WideRowsOf(const Activations& x) const {
  const bool packed = (x.data == At<void>(layout_.normed) && normed_packed_) ||
                      (x.data == At<void>(layout_.act) && act_packed_);
  return {static_cast<const __half*>(x.data), x.rows, x.cols, x.stride, packed};
}

bool CudaBackend::UsesWide(const Activations& x, int64_t matrix_rows) const {
  return wide_ && (x.rows > kGpuSmallBatchTokens || WideRowsOf(x).packed ||
                   cuda::NarrowIsFaster(matrix_rows, x.rows, false));
}

absl::Status CudaBackend::Multiply(const Activations& x, WeightsId weights, bool accumulate,
                                   FloatView out) {
  if (UsesWide(x, out.cols)) {
    return wide_->Multiply(weights.value, WideRowsOf(x), accumulate, out.data, out.stride, stream());
  }
  if (x.rows > kGpuSmallBatchTokens) {
    return prefill_->Multiply(weights.value, static_cast<const __half*>(x.data), x.rows, x.stride,
                              accumulate, out.data, out.stride, stream());
  }
  float* column = out.data;
  cuda::MatmulInput in = InputOf(x);
  MILLRACE_ASSIGN_OR_RETURN(const WeightLease lease, Bring(weights.value, stream()));
  const std::vector<WeightRun>& runs = groups_[static_cast<size_t>(weights.value)].runs;
  in.leads = runs.size() > 1;
  for (const WeightRun& run : runs) {
    MILLRACE_RETURN_IF_ERROR(
        cuda::SmallMatmul(run.tiles, in, run.bias, accumulate, column, out.stride, stream()));
    column += run.tiles.rows;
    in.leads = false;
    in.follows = true;
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::AddMatmul(const Activations& x, WeightsId weights, FloatView hidden,
                                    const float* next_norm, const Activations& normed) {
  const PlacedGroup& group = groups_[static_cast<size_t>(weights.value)];
  const int rows = static_cast<int>(x.rows);
  const bool deferred = next_norm != nullptr && norm_.sums != nullptr && group.runs.size() == 1 &&
                        rows <= kGpuSmallBatchTokens && cuda::NormFits(group.runs[0].tiles, rows);
  if (!deferred) {
    MILLRACE_RETURN_IF_ERROR(Multiply(x, weights, true, hidden));
    return next_norm != nullptr ? RmsNorm(hidden, next_norm, normed) : absl::OkStatus();
  }
  MILLRACE_ASSIGN_OR_RETURN(const WeightLease lease, Bring(weights.value, stream()));
  const WeightRun& run = group.runs[0];
  cuda::NextNorm next;
  next.before = norm_;
  next.weight = next_norm;
  next.out = static_cast<__half*>(normed.data);
  next.ldo = normed.stride;
  next.after = NormRoom(norm_.sums == NormRoom(0).sums ? 1 : 0);
  MILLRACE_RETURN_IF_ERROR(cuda::SmallMatmulThenNorm(run.tiles, InputOf(x), run.bias, hidden.data,
                                                     hidden.stride, next, stream()));
  norm_ = next.after;
  return absl::OkStatus();
}

absl::Status CudaBackend::GatedMatmul(const Activations& x, WeightsId weights, FloatView gate_up,
                                      const Activations& out) {
  act_packed_ = false;
  if (x.rows > kGpuSmallBatchTokens) return GatedMany(x, weights, gate_up, out);
  const PlacedGroup& group = groups_[static_cast<size_t>(weights.value)];
  auto* to = static_cast<__half*>(out.data);
  if (UsesWide(x, group.rows) && wide_->TakesNarrowGated(weights.value)) {
    // Down reads them, and has as many rows as a hidden state has values.
    act_packed_ = cuda::NarrowIsFaster(model_.d_model, x.rows, true);
    if (!act_packed_) {
      return wide_->NarrowGatedMultiply(weights.value, WideRowsOf(x), to, out.stride, stream());
    }
    const cuda::PackedRows packed = {to, x.rows, group.part_rows[0]};
    return wide_->NarrowGatedMultiply(weights.value, WideRowsOf(x), packed, stream());
  }
  if (!WideRowsOf(x).packed && group.runs[0].tiles.dtype == group.runs.back().tiles.dtype) {
    MILLRACE_ASSIGN_OR_RETURN(const WeightLease lease, Bring(weights.value, stream()));
    const auto [gate, up] = GateAndUp(group);
    return cuda::SmallMatmulSwiGlu(gate, up, InputOf(x), to, out.stride, stream());
  }
  MILLRACE_RETURN_IF_ERROR(Matmul(x, weights, gate_up));
  return cuda::SwiGluHalf(gate_up.data, gate_up.stride, x.rows, group.part_rows[0], to, stream());
}

// More rows than the decode kernels take.
absl::Status CudaBackend::GatedMany(const Activations& x, WeightsId weights, FloatView gate_up,
                                    const Activations& out) {
  const int64_t d_ff = groups_[static_cast<size_t>(weights.value)].part_rows[0];
  auto* to = static_cast<__half*>(out.data);
  if (wide_ && wide_->TakesGated(weights.value, WideRowsOf(x))) {
    MILLRACE_RETURN_IF_ERROR(
        wide_->GatedMultiply(weights.value, WideRowsOf(x), {to, x.rows, d_ff}, stream()));
    act_packed_ = true;
    return absl::OkStatus();
  }
  if (!wide_ && d_ff % 8 == 0) {
    auto* halves = reinterpret_cast<__half*>(gate_up.data);
    MILLRACE_RETURN_IF_ERROR(prefill_->MultiplyToHalf(weights.value,
                                                      static_cast<const __half*>(x.data), x.rows,
                                                      x.stride, halves, 2 * d_ff, stream()));
    return cuda::SwiGluOfHalves(halves, 2 * d_ff, x.rows, d_ff, to, stream());
  }
  MILLRACE_RETURN_IF_ERROR(Matmul(x, weights, gate_up));
  return cuda::SwiGluHalf(gate_up.data, gate_up.stride, x.rows, d_ff, to, stream());
}

cuda::RopeAppendArgs CudaBackend::RopeArgs(FloatView qkv, const LayerSpec& layer,
                                           const float* q_norm, const float* k_norm) const {
  cuda::RopeAppendArgs args;
  args.qkv = qkv.data;
  args.stride = qkv.stride;
  args.heads = layer.heads;
  args.q_norm = q_norm;
  args.k_norm = k_norm;
  args.epsilon = model_.norm_epsilon;
  args.table = At(layout_.rope);
  args.dims = model_.rope.dims;
  args.style = model_.rope.style;
  return args;
}

// The attention workspace's first bytes: zero between launches.
size_t CudaBackend::CounterBytes(int heads) const {
  const Bytes counters = cuda::DecodeCounterBytes(options_.max_pass_tokens, heads);
  return static_cast<size_t>(RoundUp(counters, kDeviceAlignment).count());
}

// As many parts of each row's context as pay and as the workspace holds.
int CudaBackend::Splits(int kv_heads, int heads, int head_dim) const {
  int splits = cuda::DecodeSplits(multiprocessors_, kv_heads, shape_.single_rows, context_bucket_);
  const int64_t room = static_cast<int64_t>(layout_.attention_bytes - CounterBytes(heads));
  while (splits > 1 &&
         cuda::DecodePartialBytes(shape_.single_rows, heads, head_dim, splits).count() > room) {
    --splits;
  }
  return splits;
}

absl::Status CudaBackend::Attention(FloatView qkv, const LayerSpec& layer, const float* q_norm,
                                    const float* k_norm, const KvView& cache, const Activations& q,
                                    const Activations& out) {
  const cuda::RopeAppendArgs rope = RopeArgs(qkv, layer, q_norm, k_norm);
  auto* queries = static_cast<__half*>(q.data);
  auto* to = static_cast<__half*>(out.data);
  const float scale = 1.0f / std::sqrt(static_cast<float>(layer.head_dim));
  cuda::DecodeWorkspace workspace;
  workspace.counters = At<uint32_t>(layout_.attention);
  workspace.partials = At(layout_.attention + CounterBytes(layer.heads));
  const int splits = Splits(layer.kv_heads, layer.heads, layer.head_dim);
  if (shape_.tiles == 0 && shape_.one_row_each) {
    return cuda::RopeAttentionDecode(rope, cache, rows(), scale, splits, workspace, to, stream());
  }
  MILLRACE_RETURN_IF_ERROR(cuda::RopeAppend(rope, rows(), queries, cache, stream()));
  if (shape_.tiles > 0) {
    MILLRACE_RETURN_IF_ERROR(cuda::AttentionPrefill(
        queries, layer.heads, cache, Meta<cuda::AttentionTile>(meta().tiles), shape_.tiles, scale,
        to, stream()));
  }
  if (shape_.single_rows == 0) return absl::OkStatus();
  const cuda::PassRows single = {Meta<int>(meta().slots), Meta<int>(meta().single_positions),
                                 shape_.single_rows};
  return cuda::AttentionDecode(queries, layer.heads, cache, single, scale, splits, workspace, to,
                               stream());
}

absl::Status CudaBackend::Head(const float* norm, WeightsId head, int first, int count) {
  if (!outputs_written_) {
    // Later rounds of a pass with many outputs: the kernels that read the earlier ones are done.
    WriteOutputs(*pass_, first, count, meta(), pinned_meta(), to_host_);
    MILLRACE_RETURN_IF_ERROR(
        cuda::CopyByKernel(Meta<std::byte>(0), pinned_meta(), SizeOf(meta().bytes), stream()));
  }
  const Activations rows = {At<void>(layout_.logit_rows), count, model_.d_model, model_.d_model};
  MILLRACE_RETURN_IF_ERROR(cuda::RmsNormHalf(
      At(layout_.hidden), model_.d_model, Meta<int32_t>(meta().output_rows), count, model_.d_model,
      norm, model_.norm_epsilon, static_cast<__half*>(rows.data), stream()));
  MILLRACE_RETURN_IF_ERROR(
      Matmul(rows, head, FloatView(At(layout_.logits), count, model_.vocab)));
  auto* results = At<cuda::SampleResult>(layout_.sampling);
  void* workspace = At<void>(layout_.sampling + kMaxGpuHeadRows * sizeof(cuda::SampleResult));
  MILLRACE_RETURN_IF_ERROR(cuda::SampleRows(
      At(layout_.logits), count, model_.vocab, Meta<cuda::SampleRequest>(meta().requests),
      Meta<int32_t>(meta().recent), workspace, results, stream()));
  return CopyAsync(this->results(), results,
                   SizeOf(static_cast<size_t>(count) * sizeof(cuda::SampleResult)), stream());
}

// Output first + i, which stands in row i of the logits.
absl::StatusOr<RowOutput> CudaBackend::OutputAt(int first, int i) {
  const OutputRequest& request = pass_->outputs[static_cast<size_t>(first + i)];
  if (to_host_[static_cast<size_t>(i)]) {
    std::vector<float> logits(static_cast<size_t>(model_.vocab));
    MILLRACE_RETURN_IF_ERROR(CopyAsync(logits.data(), At(layout_.logits) + i * model_.vocab,
                                       SizeOf(logits.size() * sizeof(float)), stream()));
    MILLRACE_RETURN_IF_ERROR(stream().Wait(kPassTimeout));
    return OutputOf(request, logits);
  }
  const cuda::SampleResult& result = results()[i];
  RowOutput out;
  if (request.kind == OutputRequest::Kind::kLogProb) {
    out.log_prob = static_cast<float>(result.target_logit - result.log_sum_exp);
    return out;
  }
  const Sampled sampled = SampleFromCandidates(
      absl::MakeSpan(result.best, static_cast<size_t>(result.count)), result.log_sum_exp,
      request.sampling, request.sample_index);
  out.token = sampled.token;
  out.log_prob = sampled.log_prob;
  return out;
}

absl::StatusOr<std::vector<RowOutput>> CudaBackend::Collect(int first, int count) {
  MILLRACE_RETURN_IF_ERROR(stream().Wait(kPassTimeout));
  std::vector<RowOutput> out;
  for (int i = 0; i < count; ++i) {
    MILLRACE_ASSIGN_OR_RETURN(RowOutput row, OutputAt(first, i));
    out.push_back(std::move(row));
  }
  outputs_written_ = false;
  return out;
}

absl::StatusOr<FloatView> CudaBackend::PinnedRows(int64_t n,
                                                  std::optional<cuda::PinnedBuffer>* buffer) {
  MILLRACE_RETURN_IF_ERROR(Use());
  if (!*buffer) {
    const size_t values = static_cast<size_t>(options_.max_pass_tokens) * static_cast<size_t>(model_.d_model);
    MILLRACE_ASSIGN_OR_RETURN(*buffer, cuda::PinnedBuffer::Create(SizeOf(sizeof(float) * values)));
  }
  return FloatView(static_cast<float*>((*buffer)->data()), n, model_.d_model);
}

// The pass before may not have been waited for, and its copies read the same memory.
absl::StatusOr<FloatView> CudaBackend::HostRows(int64_t n) {
  MILLRACE_ASSIGN_OR_RETURN(const FloatView rows, PinnedRows(n));
  MILLRACE_RETURN_IF_ERROR(stream().Wait(kPassTimeout));
  return rows;
}

absl::StatusOr<FloatView> CudaBackend::ReadHidden() {
  MILLRACE_RETURN_IF_ERROR(SendHidden());
  return AwaitHidden();
}

absl::Status CudaBackend::SendHidden() {
  MILLRACE_ASSIGN_OR_RETURN(const FloatView rows, PinnedRows(shape_.rows));
  if (!hidden_sent_) {
    MILLRACE_ASSIGN_OR_RETURN(hidden_sent_, cuda::Event::Create(device_));
  }
  const Bytes size = SizeOf(sizeof(float) * static_cast<size_t>(rows.rows * rows.cols));
  MILLRACE_RETURN_IF_ERROR(cuda::CopyByKernel(rows.data, At(layout_.hidden), size, stream()));
  return hidden_sent_->Record(stream());
}

absl::StatusOr<FloatView> CudaBackend::AwaitHidden() {
  MILLRACE_CHECK(hidden_sent_.has_value());
  MILLRACE_RETURN_IF_ERROR(hidden_sent_->Wait(kPassTimeout));
  return PinnedRows(shape_.rows);
}

absl::Status CudaBackend::AddPart() {
  MILLRACE_ASSIGN_OR_RETURN(const FloatView rows, PartRows());
  return cuda::AddByKernel(At(layout_.hidden), rows.data, rows.rows * rows.cols, stream());
}

absl::Status CudaBackend::WriteHidden() {
  MILLRACE_ASSIGN_OR_RETURN(const FloatView rows, PinnedRows(shape_.rows));
  const Bytes size = SizeOf(sizeof(float) * static_cast<size_t>(rows.rows * rows.cols));
  return cuda::CopyByKernel(At(layout_.hidden), rows.data, size, stream());
}

absl::StatusOr<HiddenStates> CudaBackend::ShareHidden() {
  MILLRACE_RETURN_IF_ERROR(shared_->Offer(stream()));
  HiddenStates hidden = buffers().hidden;
  hidden.device = shared_.get();
  return hidden;
}

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
