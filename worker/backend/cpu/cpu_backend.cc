#include <sys/mman.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"
#include "kernels/rope.h"
#include "proto/status_macros.h"
#include "worker/activation_arena.h"
#include "worker/backend/backend.h"
#include "worker/backend/row_output.h"

namespace millrace {
namespace {

// Anonymous memory: zeroed, resident only where touched.
class MappedMemory : public DeviceMemory {
 public:
  MappedMemory(void* base, Bytes size) : base_(base), size_(size) {}
  ~MappedMemory() override { munmap(base_, static_cast<size_t>(size_.count())); }
  MappedMemory(const MappedMemory&) = delete;
  MappedMemory& operator=(const MappedMemory&) = delete;
  std::byte* data() const override { return static_cast<std::byte*>(base_); }
  Bytes size() const override { return size_; }

 private:
  void* base_;
  Bytes size_;
};

absl::StatusOr<std::unique_ptr<DeviceMemory>> MapMemory(Bytes size, const char* what) {
  void* base = mmap(nullptr, static_cast<size_t>(size.count()), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", FormatBytes(size),
                                                     " of host memory for ", what, ": ",
                                                     std::strerror(errno)));
  }
  return std::make_unique<MappedMemory>(base, size);
}

FloatView View(const Activations& a) {
  return FloatView(static_cast<float*>(a.data), a.rows, a.cols, a.stride);
}
Activations Rows(FloatView v) { return {v.data, v.rows, v.cols, v.stride}; }
FloatView Columns(FloatView v, int64_t first, int64_t cols) {
  return FloatView(v.data + first, v.rows, cols, v.stride);
}

class CpuBackend : public Backend {
 public:
  CpuBackend(const ModelSpec& model, const BackendOptions& options)
      : model_(model),
        pool_(options.threads > 0 ? options.threads : UsableThreads(), options.pool_linger),
        layout_(LayOutActivations(model, {options.max_pass_tokens, pool_.size()},
                                  options.last_stage)),
        frequencies_(RopeFrequencies(model.rope)) {
    context_.pool = &pool_;
    context_.isa = DetectCpuIsa();
  }

  absl::Status Init() {
    MILLRACE_ASSIGN_OR_RETURN(
        arena_, MapMemory(Bytes(static_cast<int64_t>(layout_.total_bytes)), "activations"));
    context_.scratch = arena_->data() + layout_.scratch;
    context_.scratch_bytes = layout_.scratch_bytes;
    return absl::OkStatus();
  }

  Bytes activation_bytes() const override { return arena_->size(); }
  int max_head_rows() const override { return kMaxLogitRows; }

  // ---- load: the file's own bytes, in place ----
  absl::StatusOr<WeightsId> PlaceMatrices(absl::Span<const HostTensor> matrices,
                                          absl::Span<const HostTensor> biases) override {
    Group group;
    for (size_t i = 0; i < matrices.size(); ++i) {
      const TensorSpec& spec = *matrices[i].spec;
      const float* bias = nullptr;
      if (i < biases.size()) {
        MILLRACE_ASSIGN_OR_RETURN(bias, PlaceVector(biases[i]));
      }
      group.push_back({{matrices[i].bytes.data(), spec.dtype, spec.rows(), spec.cols(),
                        matrices[i].row_stride},
                       bias});
    }
    groups_.push_back(std::move(group));
    return WeightsId{static_cast<int>(groups_.size()) - 1};
  }

  absl::StatusOr<WeightsId> StreamMatrices(absl::Span<const HostTensor> matrices,
                                           absl::Span<const HostTensor> biases) override {
    return PlaceMatrices(matrices, biases);
  }

  absl::StatusOr<const float*> PlaceVector(const HostTensor& vector) override {
    if (vector.spec == nullptr) return nullptr;
    std::vector<float> values(static_cast<size_t>(vector.spec->cols()));
    DequantizeRow(vector.spec->dtype, vector.bytes.data(), vector.spec->cols(), values.data());
    vectors_.push_back(std::move(values));
    return vectors_.back().data();
  }

  absl::Status PlaceEmbedding(const HostTensor& table) override {
    embedding_ = {table.bytes.data(), table.spec->dtype, table.spec->rows(), table.spec->cols()};
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(Bytes size, const char* what) override {
    return MapMemory(size, what);
  }

  // ---- a pass ----
  absl::Status BeginPass(const Pass& pass, absl::Span<const AttentionSegment> segments,
                         absl::Span<const int> positions, const HiddenStates& hidden) override {
    MILLRACE_CHECK(hidden.device == nullptr);
    pass_ = &pass;
    segments_ = segments;
    results_.clear();
    RopeTable(context_, positions, frequencies_, At(layout_.rope));
    for (int64_t r = 0; r < hidden.rows.rows; ++r) {
      float* to = At(layout_.hidden) + r * model_.d_model;
      if (to == hidden.rows.row(r)) continue;
      std::memcpy(to, hidden.rows.row(r),
                  sizeof(float) * static_cast<size_t>(model_.d_model));
    }
    return absl::OkStatus();
  }

  PassBuffers buffers() const override {
    const int64_t n = static_cast<int64_t>(pass_->tokens.size());
    PassBuffers b;
    b.hidden = FloatView(At(layout_.hidden), n, model_.d_model);
    b.normed = Rows(FloatView(At(layout_.normed), n, model_.d_model));
    b.qkv = FloatView(At(layout_.qkv), n, layout_.q_cols + 2 * layout_.kv_cols);
    b.q = Rows(Columns(b.qkv, 0, layout_.q_cols));
    b.mixed = Rows(FloatView(At(layout_.mixed), n, layout_.q_cols));
    b.gate_up = FloatView(At(layout_.gate_up), n, 2 * layout_.ff_cols);
    b.act = Rows(Columns(b.gate_up, 0, layout_.ff_cols));
    return b;
  }

  absl::Status Expect(absl::Span<const WeightsId>, WeightsId, int) override {
    return absl::OkStatus();
  }
  absl::Status Run(absl::FunctionRef<absl::Status()> ops, bool) override { return ops(); }

  absl::Status Embed(FloatView out) override {
    millrace::Embed(context_, embedding_, pass_->tokens, out);
    return absl::OkStatus();
  }

  absl::Status RmsNorm(FloatView hidden, const float* weight, const Activations& normed) override {
    millrace::RmsNorm(context_, hidden, weight, model_.norm_epsilon, View(normed));
    return absl::OkStatus();
  }

  absl::Status Matmul(const Activations& x, WeightsId weights, FloatView out) override {
    return Multiply(x, weights, false, out);
  }

  absl::Status AddMatmul(const Activations& x, WeightsId weights, FloatView hidden,
                         const float* next_norm, const Activations& normed) override {
    MILLRACE_RETURN_IF_ERROR(Multiply(x, weights, true, hidden));
    return next_norm != nullptr ? RmsNorm(hidden, next_norm, normed) : absl::OkStatus();
  }

  absl::Status Multiply(const Activations& x, WeightsId weights, bool accumulate, FloatView out) {
    std::vector<MatmulTarget> targets;
    int64_t column = 0;
    for (const Part& part : groups_[static_cast<size_t>(weights.value)]) {
      targets.push_back({part.w, part.bias, Columns(out, column, part.w.rows), accumulate});
      column += part.w.rows;
    }
    millrace::Matmul(context_, View(x), targets);
    return absl::OkStatus();
  }

  absl::Status Attention(FloatView qkv, const LayerSpec& layer, const float* q_norm,
                         const float* k_norm, const KvView& cache, const Activations&,
                         const Activations& out) override {
    const int64_t q_cols = int64_t{layer.heads} * layer.head_dim;
    const int64_t kv_cols = int64_t{layer.kv_heads} * layer.head_dim;
    const FloatView q = Columns(qkv, 0, q_cols), k = Columns(qkv, q_cols, kv_cols);
    const FloatView v = Columns(qkv, q_cols + kv_cols, kv_cols);
    const float epsilon = model_.norm_epsilon;
    if (q_norm) HeadRmsNorm(context_, q, layer.head_dim, q_norm, epsilon);
    if (k_norm) HeadRmsNorm(context_, k, layer.head_dim, k_norm, epsilon);
    const RopeSpec& rope = model_.rope;
    Rope(context_, q, layer.head_dim, rope.dims, rope.style, At(layout_.rope));
    Rope(context_, k, layer.head_dim, rope.dims, rope.style, At(layout_.rope));
    KvAppend(context_, k, v, segments_, cache);
    millrace::Attention(context_, q, layer.heads, cache, segments_,
                        1.0f / std::sqrt(static_cast<float>(layer.head_dim)), View(out));
    return absl::OkStatus();
  }

  absl::Status GatedMatmul(const Activations& x, WeightsId weights, FloatView gate_up,
                           const Activations&) override {
    MILLRACE_RETURN_IF_ERROR(Matmul(x, weights, gate_up));
    const int64_t d_ff = gate_up.cols / 2;
    SwiGlu(context_, Columns(gate_up, 0, d_ff), Columns(gate_up, d_ff, d_ff));
    return absl::OkStatus();
  }

  absl::Status Head(const float* norm, WeightsId head, int first, int count) override {
    const FloatView rows(At(layout_.logit_rows), count, model_.d_model);
    for (int i = 0; i < count; ++i) {
      const float* from = At(layout_.hidden) +
                          pass_->outputs[static_cast<size_t>(first + i)].row * int64_t{model_.d_model};
      millrace::RmsNorm(context_, FloatView(const_cast<float*>(from), 1, model_.d_model), norm,
                        model_.norm_epsilon, FloatView(rows.row(i), 1, model_.d_model));
    }
    const FloatView logits(At(layout_.logits), count, model_.vocab);
    MILLRACE_RETURN_IF_ERROR(Matmul(Rows(rows), head, logits));
    results_.clear();
    for (int i = 0; i < count; ++i) {
      results_.push_back(OutputOf(pass_->outputs[static_cast<size_t>(first + i)],
                                  {logits.row(i), static_cast<size_t>(model_.vocab)}));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<RowOutput>> Collect(int, int count) override {
    MILLRACE_CHECK(static_cast<int>(results_.size()) == count);
    return std::move(results_);
  }

  absl::StatusOr<FloatView> ReadHidden() override { return buffers().hidden; }
  absl::StatusOr<FloatView> HostRows(int64_t n) override {
    return FloatView(At(layout_.hidden), n, model_.d_model);
  }
  absl::Status WriteHidden() override { return absl::OkStatus(); }

 private:
  struct Part {
    WeightView w;
    const float* bias = nullptr;
  };
  using Group = std::vector<Part>;
  float* At(size_t offset) const { return reinterpret_cast<float*>(arena_->data() + offset); }

  const ModelSpec& model_;
  ThreadPool pool_;
  const ActivationLayout layout_;
  const std::vector<double> frequencies_;
  std::unique_ptr<DeviceMemory> arena_;
  CpuContext context_;
  std::vector<Group> groups_;
  std::vector<std::vector<float>> vectors_;
  WeightView embedding_;
  // Of the pass begun.
  const Pass* pass_ = nullptr;
  absl::Span<const AttentionSegment> segments_;
  std::vector<RowOutput> results_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const ModelSpec& model,
                                                        const BackendOptions& options) {
  auto backend = std::make_unique<CpuBackend>(model, options);
  MILLRACE_RETURN_IF_ERROR(backend->Init());
  return backend;
}

}  // namespace millrace
