#include "tools/synth_shapes.h"

#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace millrace {
namespace {

// Published config.json values. The tiny ones are ours: small, with head sizes and widths that are
// not all multiples of a 256-element block.
constexpr std::array<SynthShape, 9> kShapes = {{
    {"llama-3.2-1b", "llama", 2048, 16, 32, 8, 64, 8192, 128256, true, 131072, 500000.0f, 32.0f,
     1e-5f, "llama-bpe"},
    {"llama-3.2-3b", "llama", 3072, 28, 24, 8, 128, 8192, 128256, true, 131072, 500000.0f, 32.0f,
     1e-5f, "llama-bpe"},
    {"llama-3.1-8b", "llama", 4096, 32, 32, 8, 128, 14336, 128256, false, 131072, 500000.0f, 8.0f,
     1e-5f, "llama-bpe"},
    {"llama-3.1-70b", "llama", 8192, 80, 64, 8, 128, 28672, 128256, false, 131072, 500000.0f, 8.0f,
     1e-5f, "llama-bpe"},
    {"qwen2.5-7b", "qwen2", 3584, 28, 28, 4, 128, 18944, 152064, false, 32768, 1000000.0f, 0.0f,
     1e-6f, "qwen2"},
    {"qwen3-8b", "qwen3", 4096, 36, 32, 8, 128, 12288, 151936, false, 40960, 1000000.0f, 0.0f,
     1e-6f, "qwen2"},
    {"tiny-llama", "llama", 256, 3, 4, 2, 80, 512, 1200, false, 512, 500000.0f, 8.0f, 1e-5f,
     "llama-bpe"},
    {"tiny-qwen2", "qwen2", 256, 2, 4, 1, 64, 768, 1100, true, 512, 1000000.0f, 0.0f, 1e-6f,
     "qwen2"},
    {"tiny-qwen3", "qwen3", 256, 2, 3, 1, 96, 320, 1100, false, 512, 1000000.0f, 0.0f, 1e-6f,
     "qwen2"},
}};

constexpr std::array<SynthQuant, 13> kQuants = {{
    {"F32", DType::kF32, 0},
    {"F16", DType::kF16, 1},
    {"BF16", DType::kBF16, 32},
    {"Q8_0", DType::kQ8_0, 7},
    {"Q4_0", DType::kQ4_0, 2},
    {"Q4_1", DType::kQ4_1, 3},
    {"Q5_0", DType::kQ5_0, 8},
    {"Q5_1", DType::kQ5_1, 9},
    {"Q6_K", DType::kQ6_K, 18},
    {"Q5_K_M", DType::kQ5_K, 17},
    {"Q4_K_M", DType::kQ4_K, 15},
    {"Q3_K_M", DType::kQ3_K, 12},
    {"Q2_K", DType::kQ2_K, 10},
}};

constexpr int kLayersOf70b = 80;  // the quantiser treats its narrow attn_v apart

// The first and last eighth of the layers, and every third between.
bool MoreBits(int layer, int layers) {
  const int eighth = layers / 8;
  return layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
}

DType TypeOfValues(DType base, int layer, int layers, int gqa) {
  DType type = base;
  switch (base) {
    case DType::kQ2_K:
      type = gqa >= 4 ? DType::kQ4_K : DType::kQ3_K;
      break;
    case DType::kQ3_K:
      type = layer < 2 ? DType::kQ5_K : DType::kQ4_K;
      break;
    case DType::kQ4_K:
    case DType::kQ5_K:
      if (MoreBits(layer, layers)) type = DType::kQ6_K;
      break;
    default:
      break;
  }
  const bool narrow = type == DType::kQ3_K || type == DType::kQ4_K;
  return layers == kLayersOf70b && narrow ? DType::kQ5_K : type;
}

DType TypeOfDown(DType base, int layer, int layers) {
  switch (base) {
    case DType::kQ2_K:
      return DType::kQ3_K;
    case DType::kQ3_K:
      return layer < layers / 16 ? DType::kQ5_K : DType::kQ4_K;
    case DType::kQ4_K:
    case DType::kQ5_K:
      return MoreBits(layer, layers) ? DType::kQ6_K : base;
    default:
      return base;
  }
}

DType TypeOfAttentionOutput(DType base) {
  if (base == DType::kQ2_K) return DType::kQ3_K;
  if (base == DType::kQ3_K) return DType::kQ4_K;
  return base;
}

// A type whose blocks divide a row of `cols`.
DType Fitting(DType type, int64_t cols) {
  if (cols % Info(type).block_elements == 0) return type;
  switch (type) {
    case DType::kQ2_K:
    case DType::kQ3_K:
      type = DType::kQ4_0;
      break;
    case DType::kQ4_K:
      type = DType::kQ5_0;
      break;
    case DType::kQ5_K:
      type = DType::kQ5_1;
      break;
    case DType::kQ6_K:
      type = DType::kQ8_0;
      break;
    default:
      break;
  }
  return cols % Info(type).block_elements == 0 ? type : DType::kF16;
}

template <typename Item>
absl::StatusOr<Item> FindByName(absl::Span<const Item> items, absl::string_view name,
                                absl::string_view what) {
  std::vector<absl::string_view> known;
  for (const Item& item : items) {
    if (absl::EqualsIgnoreCase(item.name, name)) return item;
    known.push_back(item.name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown ", what, " '", name, "'; use one of ", absl::StrJoin(known, ", ")));
}

}  // namespace

absl::Span<const SynthShape> SynthShapes() { return kShapes; }
absl::Span<const SynthQuant> SynthQuants() { return kQuants; }

absl::StatusOr<SynthShape> FindSynthShape(absl::string_view name) {
  return FindByName(SynthShapes(), name, "shape");
}
absl::StatusOr<SynthQuant> FindSynthQuant(absl::string_view name) {
  return FindByName(SynthQuants(), name, "quant");
}

DType SynthTensorType(const SynthQuant& quant, TensorRole role, int layer, int layers, int gqa,
                      bool tied, int64_t cols) {
  const DType base = quant.base;
  DType type = base;
  switch (role) {
    case TensorRole::kTokenEmbedding:
    case TensorRole::kOutput:
      if (role == TensorRole::kTokenEmbedding && !tied) break;
      if (Info(base).quantized && base != DType::kQ8_0) {
        type = cols % Info(base).block_elements == 0 ? DType::kQ6_K : DType::kQ8_0;
      }
      break;
    case TensorRole::kAttnV:
      type = TypeOfValues(base, layer, layers, gqa);
      break;
    case TensorRole::kAttnOutput:
      type = TypeOfAttentionOutput(base);
      break;
    case TensorRole::kFfnDown:
      type = TypeOfDown(base, layer, layers);
      break;
    case TensorRole::kAttnQ:
    case TensorRole::kAttnK:
    case TensorRole::kFfnGate:
    case TensorRole::kFfnUp:
      break;
    default:
      return DType::kF32;
  }
  return Fitting(type, cols);
}

std::vector<SynthTensor> SynthTensors(const SynthShape& s) {
  const int64_t q = int64_t{s.heads} * s.head_dim;
  const int64_t kv = int64_t{s.kv_heads} * s.head_dim;
  std::vector<SynthTensor> out;
  out.push_back({TensorRole::kTokenEmbedding, -1, {s.vocab, s.d_model}});
  if (s.rope_factor > 0) out.push_back({TensorRole::kRopeFactors, -1, {s.head_dim / 2}});
  for (int i = 0; i < s.layers; ++i) {
    out.push_back({TensorRole::kAttnNorm, i, {s.d_model}});
    out.push_back({TensorRole::kAttnQ, i, {q, s.d_model}});
    out.push_back({TensorRole::kAttnK, i, {kv, s.d_model}});
    out.push_back({TensorRole::kAttnV, i, {kv, s.d_model}});
    if (s.architecture == "qwen2") {
      out.push_back({TensorRole::kAttnQBias, i, {q}});
      out.push_back({TensorRole::kAttnKBias, i, {kv}});
      out.push_back({TensorRole::kAttnVBias, i, {kv}});
    }
    if (s.architecture == "qwen3") {
      out.push_back({TensorRole::kAttnQNorm, i, {s.head_dim}});
      out.push_back({TensorRole::kAttnKNorm, i, {s.head_dim}});
    }
    out.push_back({TensorRole::kAttnOutput, i, {s.d_model, q}});
    out.push_back({TensorRole::kFfnNorm, i, {s.d_model}});
    out.push_back({TensorRole::kFfnGate, i, {s.d_ff, s.d_model}});
    out.push_back({TensorRole::kFfnUp, i, {s.d_ff, s.d_model}});
    out.push_back({TensorRole::kFfnDown, i, {s.d_model, s.d_ff}});
  }
  out.push_back({TensorRole::kOutputNorm, -1, {s.d_model}});
  if (!s.tied) out.push_back({TensorRole::kOutput, -1, {s.vocab, s.d_model}});
  return out;
}

}  // namespace millrace
