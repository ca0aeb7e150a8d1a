// The shapes that synthetic models copy and the storage types the field's quantiser would choose.
#ifndef MILLRACE_TOOLS_SYNTH_SHAPES_H_
#define MILLRACE_TOOLS_SYNTH_SHAPES_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/dtype.h"
#include "proto/model_spec.h"

namespace millrace {

struct SynthShape {
  absl::string_view name;
  absl::string_view architecture;
  int d_model, layers, heads, kv_heads, head_dim, d_ff, vocab;
  bool tied;
  int context;
  float rope_base;
  float rope_factor;  // Llama 3 scaling; 0: none
  float norm_epsilon;
  absl::string_view pre_tokenizer;
};
absl::Span<const SynthShape> SynthShapes();

struct SynthQuant {
  absl::string_view name;  // "Q4_K_M"
  DType base;              // what most matrices are stored in
  uint32_t file_type;      // general.file_type
};
absl::Span<const SynthQuant> SynthQuants();

// By name, any case. InvalidArgument lists the known ones.
absl::StatusOr<SynthShape> FindSynthShape(absl::string_view name);
absl::StatusOr<SynthQuant> FindSynthQuant(absl::string_view name);

// What a tensor of `role` with rows of `cols` elements is stored in. `layer` of `layers`;
// `gqa` = heads / kv_heads. Norms and biases are F32.
DType SynthTensorType(const SynthQuant& quant, TensorRole role, int layer, int layers, int gqa,
                      bool tied, int64_t cols);

struct SynthTensor {
  TensorRole role{};
  int layer = -1;
  std::vector<int64_t> shape;  // row-major
};
// Every tensor of the shape, in the order files list them.
std::vector<SynthTensor> SynthTensors(const SynthShape& shape);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_SYNTH_SHAPES_H_
