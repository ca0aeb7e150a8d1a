#include "proto/stored_types.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"

namespace millrace {

bool CanBeHeldAs(const TensorSpec& tensor, DType dtype) {
  const DType source = tensor.file_dtype.value_or(tensor.dtype);
  const DTypeInfo& type = Info(dtype);
  return tensor.shape.size() == 2 && !Info(source).quantized &&
         std::find(kQuantizeTypes.begin(), kQuantizeTypes.end(), dtype) != kQuantizeTypes.end() &&
         tensor.cols() % type.block_elements == 0;
}

absl::StatusOr<ModelSpec> HeldModel(const ModelSpec& file, absl::Span<const StoredType> types) {
  std::map<absl::string_view, DType> wanted;
  for (const StoredType& type : types) {
    const auto [it, fresh] = wanted.emplace(type.tensor, type.dtype);
    if (fresh || it->second == type.dtype) continue;
    return absl::InvalidArgumentError(absl::StrCat("tensor ", type.tensor,
                                                   " is to be held as both ", DTypeName(it->second),
                                                   " and ", DTypeName(type.dtype)));
  }
  ModelSpec held = file;
  for (TensorSpec& tensor : held.tensors) {
    const auto found = wanted.find(tensor.name);
    if (found == wanted.end()) continue;
    const DType dtype = found->second;
    wanted.erase(found);
    if (!CanBeHeldAs(tensor, dtype)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", tensor.name, " of ", DTypeName(tensor.dtype), " [", tensor.rows(),
                       ", ", tensor.cols(), "] cannot be held as ", DTypeName(dtype),
                       ": only f32, f16 and bf16 matrices whose rows fill its blocks can"));
    }
    tensor.file_dtype = tensor.file_dtype.value_or(tensor.dtype);
    tensor.dtype = dtype;
    tensor.size = tensor.rows() * RowBytes(dtype, tensor.cols());
  }
  if (wanted.empty()) return held;
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", wanted.begin()->first, " is to be held as ",
                   DTypeName(wanted.begin()->second), ", but the model has no such tensor"));
}

std::vector<StoredType> StoredTypesOf(const ModelSpec& held, const Block& block) {
  std::vector<StoredType> types;
  for (int t : block.tensors) {
    const TensorSpec& tensor = held.tensors[static_cast<size_t>(t)];
    if (tensor.file_dtype) types.push_back({tensor.name, tensor.dtype});
  }
  return types;
}

std::vector<StoredType> StoredTypesOf(const PlacementPlan& plan) {
  std::vector<StoredType> types;
  for (const BlockPlacement& block : plan.blocks) {
    types.insert(types.end(), block.stored_types.begin(), block.stored_types.end());
  }
  return types;
}

}  // namespace millrace
