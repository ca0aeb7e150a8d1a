#include "proto/stream_layout.h"

namespace millrace {
namespace {

// Which op of its block reads the matrix: 0 or 1.
int OpOf(TensorRole role) {
  return role == TensorRole::kAttnOutput || role == TensorRole::kFfnDown ? 1 : 0;
}

}  // namespace

std::vector<StreamedGroup> StreamedGroupsOf(const ModelSpec& model, const Block& block,
                                            int first_unit) {
  if (block.kind == BlockKind::kEmbedding) return {};
  std::vector<StreamedGroup> ops(2);
  for (int t : block.tensors) {
    const TensorSpec& tensor = model.tensors[t];
    if (tensor.shape.size() != 2) continue;
    StreamedGroup& group = ops[static_cast<size_t>(OpOf(tensor.role))];
    group.tensors.push_back(t);
    const bool by_columns = tensor.role == TensorRole::kFfnDown;
    const int64_t rows = tensor.rows() - (by_columns ? 0 : first_unit);
    const int64_t cols = tensor.cols() - (by_columns ? first_unit : 0);
    group.raw += RowBytes(tensor.dtype, cols) * rows;
    group.tiled += RoundUp(TiledBytes(tensor.dtype, rows, cols), kDeviceAlignment);
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
