#include "proto/model_spec.h"

#include "absl/strings/str_cat.h"

namespace millrace {

int ModelSpec::FindTensor(TensorRole role, int layer) const {
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].role == role && tensors[i].layer == layer) return static_cast<int>(i);
  }
  return -1;
}

Bytes ModelSpec::weight_bytes() const {
  Bytes sum;
  for (const TensorSpec& t : tensors) sum += t.size;
  return sum;
}

int64_t ModelSpec::parameters() const {
  int64_t sum = 0;
  for (const TensorSpec& t : tensors) sum += t.rows() * t.cols();
  return sum;
}

std::vector<Block> BlocksOf(const ModelSpec& model) {
  const int layers = static_cast<int>(model.layers.size());
  std::vector<Block> blocks(2 * layers + 2);
  blocks.front() = {BlockKind::kEmbedding, -1, {}, {}};
  for (int i = 0; i < layers; ++i) {
    blocks[1 + 2 * i] = {BlockKind::kAttention, i, {}, {}};
    blocks[2 + 2 * i] = {BlockKind::kFeedForward, i, {}, {}};
  }
  blocks.back() = {BlockKind::kHead, -1, {}, {}};

  auto add = [&](size_t block, size_t tensor) {
    blocks[block].tensors.push_back(static_cast<int>(tensor));
    blocks[block].weights += model.tensors[tensor].size;
  };
  for (size_t t = 0; t < model.tensors.size(); ++t) {
    const TensorSpec& tensor = model.tensors[t];
    switch (tensor.role) {
      case TensorRole::kRopeFactors:
        break;  // folded into RopeSpec, never resident
      case TensorRole::kTokenEmbedding:
        add(0, t);
        if (model.tied_output) add(blocks.size() - 1, t);
        break;
      case TensorRole::kOutputNorm:
      case TensorRole::kOutput:
        add(blocks.size() - 1, t);
        break;
      case TensorRole::kFfnNorm:
      case TensorRole::kFfnGate:
      case TensorRole::kFfnUp:
      case TensorRole::kFfnDown:
        add(2 + 2 * tensor.layer, t);
        break;
      default:
        add(1 + 2 * tensor.layer, t);
    }
  }
  return blocks;
}

std::string BlockName(const Block& block) {
  switch (block.kind) {
    case BlockKind::kEmbedding:
      return "embed";
    case BlockKind::kAttention:
      return absl::StrCat("blk.", block.layer, ".attn");
    case BlockKind::kFeedForward:
      return absl::StrCat("blk.", block.layer, ".ffn");
    case BlockKind::kHead:
      return "head";
  }
  return "?";
}

Bytes KvBytesPerToken(const LayerSpec& layer, DType kv_type) {
  return 2 * layer.kv_heads * RowBytes(kv_type, layer.head_dim);
}

Bytes KvCacheBytes(const LayerSpec& layer, DType kv_type, int context, int slots) {
  const int64_t half = (KvBytesPerToken(layer, kv_type) * context * slots).count() / 2;
  return Bytes(2 * ((half + 255) / 256 * 256));
}

}  // namespace millrace
