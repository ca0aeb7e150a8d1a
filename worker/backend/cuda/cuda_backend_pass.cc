#include "worker/backend/cuda/cuda_backend_class.h"

#include <algorithm>

#include "kernels/cuda/host_copy.h"

namespace millrace {
namespace {

// Recorded passes kept; one more starts afresh.
constexpr size_t kMaxGraphs = 96;

}  // namespace

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

}  // namespace millrace
