// What a synthetic model is, without writing it.
#ifndef MILLRACE_TOOLS_SYNTH_SPEC_H_
#define MILLRACE_TOOLS_SYNTH_SPEC_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/model_spec.h"
#include "tools/synth_shapes.h"
#include "worker/model/gguf_writer.h"

namespace millrace {

// The spec of the file that WriteSyntheticModel would write, but for its metadata's size: offsets
// and file sizes are of the tensors alone. Its fingerprint is the file's. InvalidArgument: unknown
// shape or quant, the known ones listed.
absl::StatusOr<ModelSpec> SynthModelSpec(absl::string_view shape, absl::string_view quant);

// `dimensions` (everything but tensors, vocabulary and files) with the tensors of `shape`, whose
// figures are the same, in the types of `quant`, in the order of GGUF files.
absl::StatusOr<ModelSpec> QuantisedSpec(ModelSpec dimensions, const SynthShape& shape,
                                        const SynthQuant& quant);

// Every tensor of the shape in its type, in order.
void AddSynthTensors(const SynthShape& shape, const SynthQuant& quant, GgufWriter& writer);

// Values of the kRopeFactors tensor; of a shape without scaling all ones.
std::vector<float> SynthRopeFactors(const SynthShape& shape);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_SYNTH_SPEC_H_
