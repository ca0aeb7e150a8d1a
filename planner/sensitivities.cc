#include "planner/sensitivities.h"

#include "proto/status_macros.h"

namespace millrace {
namespace {

struct RoleDefault {
  TensorRole role;
  absl::string_view name;
  double sensitivity;  // nats a token at a relative error of one, were all weights of this role
};

// Measured on the demo model (docs/precision.md), rounded. What is held in more bits by llama.cpp's
// mixed types stands out here too: v, down, the head. An untied table was not measured: of its rows
// one counts a token.
constexpr RoleDefault kRoles[] = {
    {TensorRole::kTokenEmbedding, "token_embd", 1.0},
    {TensorRole::kOutput, "output", 5.0},
    {TensorRole::kAttnQ, "attn_q", 0.5},
    {TensorRole::kAttnK, "attn_k", 1.0},
    {TensorRole::kAttnV, "attn_v", 4.0},
    {TensorRole::kAttnOutput, "attn_output", 1.7},
    {TensorRole::kFfnGate, "ffn_gate", 1.2},
    {TensorRole::kFfnUp, "ffn_up", 1.0},
    {TensorRole::kFfnDown, "ffn_down", 1.8},
};
constexpr double kTiedTable = 6.0;
constexpr double kThirds[] = {1.5, 0.8, 1.0};
constexpr double kKvDefault = 2e-5;

}  // namespace

double QuantizationError(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      return 0;
    case DType::kQ8_0:
      return 2.8e-5;
    case DType::kQ6_K:
      return 2.8e-4;
    case DType::kQ5_K:
      return 1.2e-3;
    case DType::kQ4_K:
      return 5.0e-3;
    default:
      MILLRACE_CHECK(false);
      return 0;
  }
}

SensitivityGroup GroupOf(const TensorSpec& tensor, int layers) {
  return {tensor.role, tensor.layer < 0 ? 0 : 3 * tensor.layer / layers};
}

absl::string_view RoleName(TensorRole role) {
  for (const RoleDefault& r : kRoles) {
    if (r.role == role) return r.name;
  }
  return "";
}

double Sensitivities::Loss(const TensorSpec& tensor, int layers, DType dtype) const {
  const auto found = density.find(GroupOf(tensor, layers));
  MILLRACE_CHECK(found != density.end());
  return found->second * static_cast<double>(tensor.rows() * tensor.cols()) *
         QuantizationError(dtype);
}

Sensitivities DefaultSensitivities(const ModelSpec& model) {
  Sensitivities s;
  s.origin = "the default table";
  const double per_weight = 1.0 / static_cast<double>(model.parameters());
  for (const RoleDefault& r : kRoles) {
    const bool layered = r.role != TensorRole::kTokenEmbedding && r.role != TensorRole::kOutput;
    // A tied table is the head too.
    const bool head = r.role == TensorRole::kTokenEmbedding && model.tied_output;
    for (int third = 0; third < (layered ? 3 : 1); ++third) {
      s.density[{r.role, third}] =
          per_weight * (head ? kTiedTable : r.sensitivity) * (layered ? kThirds[third] : 1.0);
    }
  }
  s.kv_q8_0 = kKvDefault;
  return s;
}

}  // namespace millrace
