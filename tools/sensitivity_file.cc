#include "tools/sensitivity_file.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/placement_plan.h"
#include "proto/status_macros.h"
#include "proto/stored_types.h"
#include "worker/model/json_file.h"
#include "worker/model/model.h"

namespace millrace {
namespace {

constexpr char kFormat[] = "millrace sensitivity";
constexpr int kVersion = 1;

std::optional<TensorRole> RoleFromName(absl::string_view name) {
  for (int r = 0; r <= static_cast<int>(TensorRole::kFfnDown); ++r) {
    const TensorRole role = static_cast<TensorRole>(r);
    if (!name.empty() && RoleName(role) == name) return role;
  }
  return std::nullopt;
}

std::string String(absl::string_view view) { return {view.data(), view.size()}; }

absl::Status CheckHeader(const JsonFields& fields, const ModelSpec& model) {
  MILLRACE_ASSIGN_OR_RETURN(const auto format, fields.String("format"));
  if (format != kFormat) {
    return fields.Error(
        "format", absl::StrCat("is not '", kFormat, "': make the file with `millrace calibrate`"));
  }
  MILLRACE_RETURN_IF_ERROR(fields.RequiredInteger("version", kVersion, kVersion).status());
  MILLRACE_ASSIGN_OR_RETURN(const auto fingerprint, fields.String("model_fingerprint"));
  if (!fingerprint) return fields.Error("model_fingerprint", "is missing");
  if (*fingerprint == FingerprintOf(model)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(fields.file(), ": key 'model_fingerprint': measured on model ", *fingerprint,
                   ", this one is ", FingerprintOf(model),
                   ": run `millrace calibrate` again, or give another --sensitivity"));
}

absl::StatusOr<double> NotNegative(const JsonFields& fields, absl::string_view key) {
  MILLRACE_ASSIGN_OR_RETURN(const std::optional<double> value, fields.Number(key));
  if (!value) return fields.Error(key, "is missing");
  if (*value < 0) return fields.Error(key, absl::StrCat(*value, " is below zero"));
  return *value;
}

absl::StatusOr<MeasuredGroup> ReadGroup(const JsonFields& fields) {
  MeasuredGroup group;
  MILLRACE_ASSIGN_OR_RETURN(const auto role, fields.String("role"));
  const std::optional<TensorRole> known = RoleFromName(role.value_or(""));
  if (!known) return fields.Error("role", absl::StrCat("'", role.value_or(""), "' is no role"));
  group.group.role = *known;
  MILLRACE_ASSIGN_OR_RETURN(const int64_t third, fields.RequiredInteger("third", 0, 2));
  group.group.third = static_cast<int>(third);
  MILLRACE_ASSIGN_OR_RETURN(const auto type, fields.String("type"));
  const std::optional<DType> dtype = DTypeFromName(type.value_or(""));
  if (!dtype ||
      std::find(kQuantizeTypes.begin(), kQuantizeTypes.end(), *dtype) == kQuantizeTypes.end()) {
    return fields.Error(
        "type", absl::StrCat("'", type.value_or(""), "' is not one of q8_0, q6_K, q5_K, q4_K"));
  }
  group.dtype = *dtype;
  MILLRACE_ASSIGN_OR_RETURN(group.weights, fields.RequiredInteger("weights", 1, int64_t{1} << 53));
  MILLRACE_ASSIGN_OR_RETURN(group.divergence, NotNegative(fields, "divergence"));
  return group;
}

// Every tensor that may be converted belongs to a group that was measured.
absl::Status CheckComplete(const JsonFields& fields, const ModelSpec& model,
                           const Sensitivities& read) {
  const int layers = static_cast<int>(model.layers.size());
  for (const TensorSpec& t : model.tensors) {
    if (RoleName(t.role).empty() || !CanBeHeldAs(t, DType::kQ8_0)) continue;
    const SensitivityGroup group = GroupOf(t, layers);
    if (read.density.contains(group)) continue;
    return fields.Error("groups", absl::StrCat("has no entry for role ", RoleName(t.role),
                                               ", third ", group.third));
  }
  return absl::OkStatus();
}

}  // namespace

std::string SensitivityPathOf(const std::string& model) {
  if (model.empty() || model == kDemoModel) return "";
  absl::string_view path = model;
  while (path.size() > 1 && absl::ConsumeSuffix(&path, "/")) {
  }
  return absl::StrCat(path, ".sensitivity.json");
}

std::string ToJson(const SensitivityFile& file) {
  nlohmann::ordered_json json = {
      {"format", kFormat},       {"version", kVersion},
      {"model", file.model},     {"model_fingerprint", file.model_fingerprint},
      {"text", file.text},       {"windows", file.windows},
      {"context", file.context}, {"scored", file.scored},
      {"kv_q8_0", file.kv_q8_0}, {"groups", nlohmann::ordered_json::array()}};
  for (const MeasuredGroup& g : file.groups) {
    json["groups"].push_back({{"role", String(RoleName(g.group.role))},
                              {"third", g.group.third},
                              {"type", String(DTypeName(g.dtype))},
                              {"weights", g.weights},
                              {"divergence", g.divergence}});
  }
  return absl::StrCat(json.dump(2), "\n");
}

absl::StatusOr<Sensitivities> ReadSensitivities(const std::string& path, const ModelSpec& model) {
  MILLRACE_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonObject(path));
  const JsonFields fields(path, json);
  MILLRACE_RETURN_IF_ERROR(CheckHeader(fields, model));
  Sensitivities read;
  read.origin = path;
  MILLRACE_ASSIGN_OR_RETURN(read.kv_q8_0, NotNegative(fields, "kv_q8_0"));
  const nlohmann::json* groups = fields.Find("groups");
  if (groups == nullptr || !groups->is_array()) return fields.Error("groups", "is not a list");
  for (size_t i = 0; i < groups->size(); ++i) {
    const std::string where = absl::StrCat(path, ": 'groups[", i, "]'");
    if (!(*groups)[i].is_object()) {
      return absl::DataLossError(absl::StrCat(where, " is not an object"));
    }
    MILLRACE_ASSIGN_OR_RETURN(const MeasuredGroup g, ReadGroup(JsonFields(where, (*groups)[i])));
    const double density =
        g.divergence / (QuantizationError(g.dtype) * static_cast<double>(g.weights));
    if (!read.density.emplace(g.group, density).second) {
      return absl::DataLossError(absl::StrCat(where, " is there twice"));
    }
  }
  MILLRACE_RETURN_IF_ERROR(CheckComplete(fields, model, read));
  return read;
}

absl::StatusOr<Sensitivities> SensitivitiesOf(const std::string& reference,
                                              const ModelSpec& model) {
  const std::string path = SensitivityPathOf(reference);
  if (path.empty()) return DefaultSensitivities(model);
  absl::StatusOr<Sensitivities> read = ReadSensitivities(path, model);
  if (absl::IsNotFound(read.status())) return DefaultSensitivities(model);
  return read;
}

}  // namespace millrace
