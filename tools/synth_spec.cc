#include "tools/synth_spec.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "worker/model/architecture.h"
#include "worker/model/rope_scaling.h"
#include "worker/model/tensor_names.h"

namespace millrace {

absl::StatusOr<ModelSpec> SynthModelSpec(absl::string_view shape, absl::string_view quant) {
  MILLRACE_ASSIGN_OR_RETURN(const SynthShape s, FindSynthShape(shape));
  MILLRACE_ASSIGN_OR_RETURN(const SynthQuant q, FindSynthQuant(quant));
  MILLRACE_ASSIGN_OR_RETURN(const ArchitectureTraits traits, FindArchitecture(s.architecture));
  ModelSpec spec;
  spec.architecture = std::string(s.architecture);
  spec.name = absl::StrCat("synthetic ", s.name);
  spec.d_model = s.d_model;
  spec.context_length = s.context;
  spec.norm_epsilon = s.norm_epsilon;
  spec.layers.assign(s.layers, {s.heads, s.kv_heads, s.head_dim, s.d_ff});
  spec.rope.style = traits.gguf_rope;
  spec.rope.dims = s.head_dim;
  spec.rope.base = s.rope_base;
  if (s.rope_factor > 0) spec.rope.frequency_factors = SynthRopeFactors(s);
  return QuantisedSpec(std::move(spec), s, q);
}

absl::StatusOr<ModelSpec> QuantisedSpec(ModelSpec spec, const SynthShape& shape,
                                        const SynthQuant& quant) {
  GgufWriter writer;
  AddSynthTensors(shape, quant, writer);
  MILLRACE_RETURN_IF_ERROR(AssembleTensors(spec.name, TensorNaming::kGguf, writer.Tensors(), spec));
  spec.files.push_back({absl::StrCat(shape.name, "-", quant.name), Bytes(writer.FileSize())});
  return spec;
}

void AddSynthTensors(const SynthShape& shape, const SynthQuant& quant, GgufWriter& writer) {
  for (const SynthTensor& t : SynthTensors(shape)) {
    const DType type = SynthTensorType(quant, t.role, t.layer, shape.layers,
                                       shape.heads / shape.kv_heads, shape.tied, t.shape.back());
    writer.AddTensor(TensorName(TensorNaming::kGguf, t.role, t.layer), type, t.shape);
  }
}

std::vector<float> SynthRopeFactors(const SynthShape& shape) {
  if (shape.rope_factor <= 0) return std::vector<float>(shape.head_dim / 2, 1.0f);
  return Llama3FrequencyFactors(shape.rope_base, shape.head_dim, {shape.rope_factor, 1, 4, 8192});
}

}  // namespace millrace
