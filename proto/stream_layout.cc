#include "proto/stream_layout.h"

namespace millrace {
namespace {

// Which op of its block reads the matrix: 0 or 1.
int OpOf(TensorRole role) {
  return role == TensorRole::kAttnOutput || role == TensorRole::kFfnDown ? 1 : 0;
}

}  // namespace

std::vector<StreamedGroup> StreamedGroupsOf(const ModelSpec& model, const Block& block) {
  if (block.kind == BlockKind::kEmbedding) return {};
  std::vector<StreamedGroup> ops(2);
  for (int t : block.tensors) {
    const TensorSpec& tensor = model.tensors[t];
    if (tensor.shape.size() != 2) continue;
    StreamedGroup& group = ops[static_cast<size_t>(OpOf(tensor.role))];
    group.tensors.push_back(t);
    group.raw += tensor.size;
    group.tiled +=
        RoundUp(TiledBytes(tensor.dtype, tensor.rows(), tensor.cols()), kDeviceAlignment);
  }
  std::erase_if(ops, [](const StreamedGroup& g) { return g.tensors.empty(); });
  return ops;
}

Bytes BlockVectorBytes(const ModelSpec& model, const Block& block) {
  Bytes sum;
  for (int t : block.tensors) {
    const TensorSpec& tensor = model.tensors[t];
    if (tensor.shape.size() != 2) sum += DeviceVectorBytes(tensor.cols());
  }
  return sum;
}

}  // namespace millrace
