#include "proto/tensor_shapes.h"

namespace millrace {

std::vector<int64_t> LayerTensorShape(const LayerSpec& l, int64_t d, TensorRole role) {
  const int64_t q = int64_t{l.heads} * l.head_dim, kv = int64_t{l.kv_heads} * l.head_dim;
  switch (role) {
    case TensorRole::kAttnQ:
      return {q, d};
    case TensorRole::kAttnK:
    case TensorRole::kAttnV:
      return {kv, d};
    case TensorRole::kAttnQBias:
      return {q};
    case TensorRole::kAttnKBias:
    case TensorRole::kAttnVBias:
      return {kv};
    case TensorRole::kAttnQNorm:
    case TensorRole::kAttnKNorm:
      return {l.head_dim};
    case TensorRole::kAttnOutput:
      return {d, q};
    case TensorRole::kFfnGate:
    case TensorRole::kFfnUp:
      return {l.d_ff, d};
    case TensorRole::kFfnDown:
      return {d, l.d_ff};
    default:
      return {d};  // kAttnNorm, kFfnNorm, kAttnOutputBias
  }
}

}  // namespace millrace
