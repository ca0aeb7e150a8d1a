// What a model loses where one group of its tensors is held in fewer bits, measured on a text.
#ifndef MILLRACE_TOOLS_CALIBRATION_H_
#define MILLRACE_TOOLS_CALIBRATION_H_

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/sensitivities.h"
#include "proto/placement_plan.h"
#include "tools/sensitivity_file.h"

namespace millrace {

// A group and the types to measure it in.
struct GroupToMeasure {
  MeasuredGroup group;  // all but the divergence
  std::vector<StoredType> types;
};

// The groups of matrices that may be converted, by role and third of the layers, each in the lowest
// type that all of its tensors may be held in.
std::vector<GroupToMeasure> GroupsToMeasure(const ModelSpec& file);

// Log-probabilities of the scored tokens of all windows, of the model held so.
using ScoreHeld = std::function<absl::StatusOr<std::vector<float>>(
    const std::vector<StoredType>& types, DType kv_type)>;

// Half the mean square of the differences of log-probabilities: for small changes, and tokens drawn
// from the model, the Kullback-Leibler divergence in nats per token (its second-order term). Of a
// text, whose tokens others drew, it is of that size; it needs one log-probability a token where
// the divergence needs a whole vocabulary's.
double DivergenceOf(const std::vector<float>& as_is, const std::vector<float>& held);

// Fills divergences: the model as it is, q8_0 caches, then one group after the other. `progress`:
// measurements done and all. The file's text and model fields stay empty.
absl::StatusOr<SensitivityFile> Measure(const ModelSpec& file, const ScoreHeld& score,
                                        const std::function<void(int, int)>& progress);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_CALIBRATION_H_
