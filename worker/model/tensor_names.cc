#include "worker/model/tensor_names.h"

#include <array>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

struct NamePair {
  TensorRole role;
  absl::string_view gguf;
  absl::string_view hugging_face;
};

constexpr std::array<NamePair, 4> kGlobal = {{
    {TensorRole::kTokenEmbedding, "token_embd.weight", "model.embed_tokens.weight"},
    {TensorRole::kOutputNorm, "output_norm.weight", "model.norm.weight"},
    {TensorRole::kOutput, "output.weight", "lm_head.weight"},
    {TensorRole::kRopeFactors, "rope_freqs.weight", ""},
}};

constexpr std::array<NamePair, 15> kPerLayer = {{
    {TensorRole::kAttnNorm, "attn_norm.weight", "input_layernorm.weight"},
    {TensorRole::kAttnQ, "attn_q.weight", "self_attn.q_proj.weight"},
    {TensorRole::kAttnK, "attn_k.weight", "self_attn.k_proj.weight"},
    {TensorRole::kAttnV, "attn_v.weight", "self_attn.v_proj.weight"},
    {TensorRole::kAttnQBias, "attn_q.bias", "self_attn.q_proj.bias"},
    {TensorRole::kAttnKBias, "attn_k.bias", "self_attn.k_proj.bias"},
    {TensorRole::kAttnVBias, "attn_v.bias", "self_attn.v_proj.bias"},
    {TensorRole::kAttnQNorm, "attn_q_norm.weight", "self_attn.q_norm.weight"},
    {TensorRole::kAttnKNorm, "attn_k_norm.weight", "self_attn.k_norm.weight"},
    {TensorRole::kAttnOutput, "attn_output.weight", "self_attn.o_proj.weight"},
    {TensorRole::kAttnOutputBias, "attn_output.bias", "self_attn.o_proj.bias"},
    {TensorRole::kFfnNorm, "ffn_norm.weight", "post_attention_layernorm.weight"},
    {TensorRole::kFfnGate, "ffn_gate.weight", "mlp.gate_proj.weight"},
    {TensorRole::kFfnUp, "ffn_up.weight", "mlp.up_proj.weight"},
    {TensorRole::kFfnDown, "ffn_down.weight", "mlp.down_proj.weight"},
}};

absl::string_view NameOf(const NamePair& pair, TensorNaming naming) {
  return naming == TensorNaming::kGguf ? pair.gguf : pair.hugging_face;
}

absl::string_view LayerPrefix(TensorNaming naming) {
  return naming == TensorNaming::kGguf ? "blk." : "model.layers.";
}

// Global tensors that other architectures have and that would change the result.
bool RefusedGlobal(absl::string_view name) {
  return absl::StartsWith(name, "rope_factors_") || absl::StartsWith(name, "token_embd_norm") ||
         absl::StartsWith(name, "position_embd") || absl::StartsWith(name, "token_types") ||
         name == "output_norm.bias" || name == "output.bias" || name == "lm_head.bias" ||
         name == "model.norm.bias";
}

}  // namespace

TensorKey ParseTensorName(TensorNaming naming, absl::string_view name) {
  for (const NamePair& pair : kGlobal) {
    if (!NameOf(pair, naming).empty() && name == NameOf(pair, naming)) {
      return {TensorKey::Kind::kKnown, pair.role, -1};
    }
  }
  absl::string_view rest = name;
  if (!absl::ConsumePrefix(&rest, LayerPrefix(naming))) {
    return {RefusedGlobal(name) ? TensorKey::Kind::kRefused : TensorKey::Kind::kUnknown, {}, -1};
  }
  const size_t dot = rest.find('.');
  int layer = -1;
  if (dot == absl::string_view::npos || !absl::SimpleAtoi(rest.substr(0, dot), &layer) ||
      layer < 0) {
    return {TensorKey::Kind::kUnknown, {}, -1};
  }
  rest = rest.substr(dot + 1);
  for (const NamePair& pair : kPerLayer) {
    if (rest == NameOf(pair, naming)) return {TensorKey::Kind::kKnown, pair.role, layer};
  }
  // Rotary tables that old converters stored: the same numbers follow from the rope base.
  if (absl::StartsWith(rest, "attn_rot_embd") || rest == "self_attn.rotary_emb.inv_freq") {
    return {TensorKey::Kind::kIgnored, {}, layer};
  }
  return {TensorKey::Kind::kRefused, {}, layer};
}

std::string TensorName(TensorNaming naming, TensorRole role, int layer) {
  for (const NamePair& pair : kGlobal) {
    if (pair.role == role) return std::string(NameOf(pair, naming));
  }
  for (const NamePair& pair : kPerLayer) {
    if (pair.role == role) {
      return absl::StrCat(LayerPrefix(naming), layer, ".", NameOf(pair, naming));
    }
  }
  MILLRACE_CHECK(false);
  return "";
}

}  // namespace millrace
