#include "tools/calibration.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "proto/stored_types.h"

namespace millrace {
namespace {

bool HeadsFillBlocks(const ModelSpec& file) {
  return std::all_of(file.layers.begin(), file.layers.end(), [](const LayerSpec& l) {
    return l.head_dim % Info(DType::kQ8_0).block_elements == 0;
  });
}

}  // namespace

std::vector<GroupToMeasure> GroupsToMeasure(const ModelSpec& file) {
  std::map<SensitivityGroup, std::vector<const TensorSpec*>> tensors;
  for (const TensorSpec& t : file.tensors) {
    if (RoleName(t.role).empty() || !CanBeHeldAs(t, DType::kQ8_0)) continue;
    tensors[GroupOf(t, static_cast<int>(file.layers.size()))].push_back(&t);
  }
  std::vector<GroupToMeasure> groups;
  for (const auto& [group, members] : tensors) {
    GroupToMeasure out;
    out.group.group = group;
    for (DType dtype : kQuantizeTypes) {  // the last that fits stays
      const bool all = std::all_of(members.begin(), members.end(),
                                   [&](const TensorSpec* t) { return CanBeHeldAs(*t, dtype); });
      if (all) out.group.dtype = dtype;
    }
    for (const TensorSpec* t : members) {
      out.group.weights += t->rows() * t->cols();
      out.types.push_back({t->name, out.group.dtype});
    }
    groups.push_back(std::move(out));
  }
  return groups;
}

double DivergenceOf(const std::vector<float>& as_is, const std::vector<float>& held) {
  MILLRACE_CHECK(as_is.size() == held.size() && !as_is.empty());
  double squares = 0;
  for (size_t i = 0; i < as_is.size(); ++i) {
    const double change = static_cast<double>(held[i]) - as_is[i];
    squares += change * change;
  }
  return squares / (2 * static_cast<double>(as_is.size()));
}

absl::StatusOr<SensitivityFile> Measure(const ModelSpec& file, const ScoreHeld& score,
                                        const std::function<void(int, int)>& progress) {
  std::vector<GroupToMeasure> groups = GroupsToMeasure(file);
  if (groups.empty()) {
    return absl::FailedPreconditionError(
        "nothing to calibrate: the model has no f32, f16 or bf16 matrix that could be held in "
        "fewer "
        "bits");
  }
  const int all = static_cast<int>(groups.size()) + 2;
  int done = 0;
  const auto divergence = [&](const std::vector<float>& as_is, const std::vector<StoredType>& types,
                              DType kv_type) -> absl::StatusOr<double> {
    MILLRACE_ASSIGN_OR_RETURN(const std::vector<float> held, score(types, kv_type));
    progress(++done, all);
    return DivergenceOf(as_is, held);
  };
  SensitivityFile out;
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<float> as_is, score({}, DType::kF16));
  progress(++done, all);
  out.scored = static_cast<int64_t>(as_is.size());
  if (HeadsFillBlocks(file)) {
    MILLRACE_ASSIGN_OR_RETURN(out.kv_q8_0, divergence(as_is, {}, DType::kQ8_0));
  }
  for (GroupToMeasure& g : groups) {
    MILLRACE_ASSIGN_OR_RETURN(g.group.divergence, divergence(as_is, g.types, DType::kF16));
    out.groups.push_back(g.group);
  }
  return out;
}

}  // namespace millrace
