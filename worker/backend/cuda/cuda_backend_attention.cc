#include "worker/backend/cuda/cuda_backend_class.h"

#include <algorithm>
#include <cmath>

#include "kernels/attention_cuda.h"
#include "kernels/rope_cuda.h"

namespace millrace {

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

}  // namespace millrace
