// How much a model loses where its tensors are held in fewer bits.
//
// The model of the loss: quantising a tensor adds to every weight an error that is independent of
// it, of a relative mean square that only the type decides (QuantizationError). What the model
// loses, as the divergence of its predictions in nats per token, is then the sum over tensors of
//     density(role, third of the layers) * weights * error(type).
// Measured by `millrace calibrate`; where none was measured the defaults below stand.
#ifndef MILLRACE_PLANNER_SENSITIVITIES_H_
#define MILLRACE_PLANNER_SENSITIVITIES_H_

#include <map>
#include <string>

#include "absl/strings/string_view.h"
#include "proto/model_spec.h"

namespace millrace {

// Mean square of the error over that of the values: gaussian weights quantised by
// kernels/quantize.h, measured (tests/planner/sensitivities_test.cc). 0 for f32, f16 and bf16; only
// types of kQuantizeTypes otherwise.
double QuantizationError(DType dtype);

// Tensors that are measured together. Layers are grouped by thirds of the model.
struct SensitivityGroup {
  TensorRole role{};
  int third = 0;  // 0 to 2; 0 for what is not part of a layer

  auto operator<=>(const SensitivityGroup&) const = default;
};

SensitivityGroup GroupOf(const TensorSpec& tensor, int layers);
// "attn_v", "ffn_down", "token_embd", "output": GGUF's names of the matrices that may be quantised;
// empty for other roles.
absl::string_view RoleName(TensorRole role);

struct Sensitivities {
  std::string origin;  // for people: the file, or "the default table"
  std::map<SensitivityGroup, double> density;
  // Divergence of holding all keys and values as q8_0 instead of f16, nats per token.
  double kv_q8_0 = 0;

  // Of a tensor whose group is known, held in a type with that error.
  double Loss(const TensorSpec& tensor, int layers, DType dtype) const;
};

// For models that nobody has measured: docs/precision.md has the table and where it comes from.
Sensitivities DefaultSensitivities(const ModelSpec& model);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_SENSITIVITIES_H_
