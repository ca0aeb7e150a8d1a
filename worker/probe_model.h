// Models that are nowhere: shapes and random weights for timing a device.
#ifndef MILLRACE_WORKER_PROBE_MODEL_H_
#define MILLRACE_WORKER_PROBE_MODEL_H_

#include <cstddef>
#include <vector>

#include "proto/model_spec.h"

namespace millrace {

struct ProbeShape {
  int d_model, d_ff;
};
enum class ProbePart { kFeedForward, kAttention, kHead };

// A model of that width with heads as 8B and 70B models have them; the matrices of `part` only, by
// layer: gate, up, down; or q, k, v, output; or, without layers, the head, of 131,072 rows. The
// last tensor is a norm.
ModelSpec ProbeModel(ProbeShape shape, DType type, int layers, ProbePart part);

// What its tensors take on a GPU.
Bytes ProbePlacedBytes(const ModelSpec& model);

// Valid weights of one of the types that are timed: any codes, small scales; F16 values below one.
std::vector<std::byte> ProbeWeights(DType type, Bytes size);

}  // namespace millrace

#endif  // MILLRACE_WORKER_PROBE_MODEL_H_
