// ChoosePrecision: which type each tensor is held in under a budget, with the least loss. Pure.
#ifndef MILLRACE_PLANNER_PRECISION_CHOICE_H_
#define MILLRACE_PLANNER_PRECISION_CHOICE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/sensitivities.h"
#include "proto/bytes.h"
#include "proto/model_spec.h"
#include "proto/placement_plan.h"

namespace millrace {

// A user's wish: tensors whose name (with or without ".weight") matches `pattern` (glob: * and ?)
// are held in no fewer bits than `least` has.
struct PrecisionFloor {
  std::string pattern;  // "blk.*.attn_v"
  DType least{};
};

struct PrecisionQuestion {
  ModelSpec file;
  Sensitivities sensitivities;
  std::vector<PrecisionFloor> floors;
  DType kv_type = DType::kF16;
  // The keys' and values' type may become q8_0: only from f16, where heads fill its blocks.
  bool may_lower_kv = false;
  int64_t kv_cells = 0;  // tokens of all slots
};

struct PrecisionChoice {
  std::vector<StoredType> types;  // what is not held as in the file, in the file's order
  DType kv_type = DType::kF16;
  Bytes bytes;      // of weights, vectors included, and caches
  double loss = 0;  // by the sensitivities
};

// Weights and caches as in the file, and with everything as low as the floors allow.
struct PrecisionRange {
  Bytes most, least;
};

// InvalidArgument: a floor that matches no tensor, named.
absl::StatusOr<PrecisionRange> PrecisionRangeOf(const PrecisionQuestion& question);

// The types with the least loss that take at most `budget`; where none are few enough, the lowest.
// Tensors of one product that GPUs compute at once (gate and up) share a type. Every tensor's types
// form a convex curve of loss over bytes; steps along all of them are taken by least loss per byte
// saved until the budget holds (exact for the budgets in between steps), then what is left of the
// budget is given back to whatever gains most, and uniform types are compared. Errors as
// PrecisionRangeOf.
absl::StatusOr<PrecisionChoice> ChoosePrecision(const PrecisionQuestion& question, Bytes budget);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PRECISION_CHOICE_H_
