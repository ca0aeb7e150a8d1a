#include "worker/probe_model.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/fp16.h"
#include "worker/backend/cuda/gpu_memory.h"

namespace millrace {
namespace {

constexpr int kVocab = 131072;

void AddTensor(ModelSpec& m, TensorRole role, int layer, DType type, std::vector<int64_t> shape) {
  TensorSpec t;
  t.name = absl::StrCat("probe.", m.tensors.size());
  t.role = role;
  t.layer = layer;
  t.dtype = type;
  const int64_t rows = shape.size() == 2 ? shape[0] : 1;
  t.size = Bytes(rows * RowBytes(type, shape.back()).count());
  t.shape = std::move(shape);
  m.tensors.push_back(std::move(t));
}

// Offsets of a block's f16 scales.
std::vector<size_t> ScalesOf(DType type) {
  switch (type) {
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ6_K:
      return {208};
    case DType::kQ8_0:
      return {0};
    default:
      return {};
  }
}

}  // namespace

ModelSpec ProbeModel(ProbeShape shape, DType type, int layers, ProbePart part) {
  ModelSpec m;
  m.architecture = "llama";
  m.name = "probe";
  m.d_model = shape.d_model;
  m.vocab = part == ProbePart::kHead ? kVocab : 32;
  m.context_length = 4096;
  m.rope.dims = 128;
  m.layers.assign(static_cast<size_t>(layers),
                  {shape.d_model / 128, std::max(1, shape.d_model / 512), 128, shape.d_ff});
  const int64_t d = shape.d_model, ff = shape.d_ff;
  const int64_t kv = int64_t{m.layers.front().kv_heads} * 128;
  if (part == ProbePart::kHead) AddTensor(m, TensorRole::kOutput, -1, type, {m.vocab, d});
  for (int l = 0; l < layers && part == ProbePart::kAttention; ++l) {
    AddTensor(m, TensorRole::kAttnQ, l, type, {d, d});
    AddTensor(m, TensorRole::kAttnK, l, type, {kv, d});
    AddTensor(m, TensorRole::kAttnV, l, type, {kv, d});
    AddTensor(m, TensorRole::kAttnOutput, l, type, {d, d});
  }
  for (int l = 0; l < layers && part == ProbePart::kFeedForward; ++l) {
    AddTensor(m, TensorRole::kFfnGate, l, type, {ff, d});
    AddTensor(m, TensorRole::kFfnUp, l, type, {ff, d});
    AddTensor(m, TensorRole::kFfnDown, l, type, {d, ff});
  }
  AddTensor(m, TensorRole::kFfnNorm, -1, DType::kF32, {d});
  return m;
}

Bytes ProbePlacedBytes(const ModelSpec& model) {
  Bytes sum;
  for (const TensorSpec& t : model.tensors) sum += CudaPlacedBytes(t, false);
  return sum;
}

std::vector<std::byte> ProbeWeights(DType type, Bytes size) {
  std::vector<std::byte> bytes(static_cast<size_t>(size.count()));
  const DTypeInfo& info = Info(type);
  std::mt19937_64 rng(17);
  // One stretch of whole blocks, again and again.
  const size_t block = static_cast<size_t>(info.block_bytes);
  const size_t stretch = std::min(bytes.size(), block * 4096);
  for (size_t i = 0; i + 8 <= stretch; i += 8) {
    const uint64_t word = rng();
    std::memcpy(&bytes[i], &word, 8);
  }
  const uint16_t small = FloatToHalf(0.01f);
  for (size_t b = 0; b + block <= stretch; b += block) {
    for (size_t field : ScalesOf(type)) std::memcpy(&bytes[b + field], &small, 2);
    if (type != DType::kF16) continue;
    bytes[b + 1] &= std::byte{0xbb};  // exponents up to 14: below one
  }
  for (size_t at = stretch; at < bytes.size(); at += stretch) {
    std::memcpy(&bytes[at], bytes.data(), std::min(stretch, bytes.size() - at));
  }
  return bytes;
}

}  // namespace millrace
