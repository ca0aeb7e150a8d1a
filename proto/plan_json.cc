#include "proto/plan_json.h"

#include <google/protobuf/util/json_util.h>

#include "absl/strings/str_cat.h"
#include "proto/convert.h"
#include "proto/field_check.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

absl::Status ReadJson(absl::string_view json, absl::string_view of,
                      google::protobuf::Message& message) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = false;
  const auto parsed = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(json.data(), json.size()), &message, options);
  if (parsed.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("not the JSON of ", of, ": ", std::string(parsed.message())));
}

}  // namespace

std::string MessageToJson(const google::protobuf::Message& message, bool indent) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = indent;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  MILLRACE_CHECK(google::protobuf::util::MessageToJsonString(message, &json, options).ok());
  return json;
}

std::string PlanToJson(const PlacementPlan& plan) { return MessageToJson(ToProto(plan)); }

absl::StatusOr<PlacementPlan> PlanFromJson(absl::string_view json) {
  v1::PlacementPlan wire;
  MILLRACE_RETURN_IF_ERROR(ReadJson(json, "a plan", wire));
  return FromProto(wire);
}

absl::StatusOr<HostSpec> HostFromJson(absl::string_view json) {
  v1::HostSpec wire;
  MILLRACE_RETURN_IF_ERROR(ReadJson(json, "a host", wire));
  return FromProto(wire);
}

absl::StatusOr<DeviceTimes> DeviceTimesFromJson(absl::string_view json) {
  v1::DeviceTimes wire;
  MILLRACE_RETURN_IF_ERROR(ReadJson(json, "a device's times", wire));
  FieldCheck check;
  DeviceTimes times = DeviceTimesFromProto(check, "DeviceTimes", wire);
  if (!check.ok()) return check.status();
  return times;
}

}  // namespace millrace
