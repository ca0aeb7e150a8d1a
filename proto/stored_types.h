// Tensors held in other types than the model file's: which may be, and the ModelSpec of the model
// as it is held, from which everything else (bytes, kernels, layouts) follows as if the file were
// so.
//
// Contract between plan and runtime:
// 1. A plan lists what it changes (BlockPlacement::stored_types); everything else is held as in the
// file.
// 2. Only matrices of f32, f16 or bf16 are converted, to a type of kQuantizeTypes that is smaller
// and
//    whose blocks their rows fill. What is quantised in the file is never quantised again.
// 3. The fingerprint stays that of the file.
// 4. Whoever loads a stage converts its tensors into memory of its own. They cannot stay on a disk.
#ifndef MILLRACE_PROTO_STORED_TYPES_H_
#define MILLRACE_PROTO_STORED_TYPES_H_

#include <array>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/dtype.h"
#include "proto/model_spec.h"
#include "proto/placement_plan.h"

namespace millrace {

// What tensors may be converted to (kernels/quantize.h), the most precise first.
inline constexpr std::array<DType, 4> kQuantizeTypes = {DType::kQ8_0, DType::kQ6_K, DType::kQ5_K,
                                                        DType::kQ4_K};

// Whether a tensor of the file may be held as `dtype`, which is not its own type.
bool CanBeHeldAs(const TensorSpec& tensor, DType dtype);

// The model as it is held. InvalidArgument names a tensor that the model has not, one that is named
// twice with different types, and one that cannot be held so.
absl::StatusOr<ModelSpec> HeldModel(const ModelSpec& file, absl::Span<const StoredType> types);

// What a held model's block does not hold as in the file.
std::vector<StoredType> StoredTypesOf(const ModelSpec& held, const Block& block);
// Of all the plan's blocks, in their order, repetitions included.
std::vector<StoredType> StoredTypesOf(const PlacementPlan& plan);

}  // namespace millrace

#endif  // MILLRACE_PROTO_STORED_TYPES_H_
