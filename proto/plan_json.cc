#include "proto/plan_json.h"

#include <google/protobuf/util/json_util.h>

#include "proto/convert.h"
#include "proto/status_macros.h"

namespace millrace {

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
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = false;
  const auto parsed = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(json.data(), json.size()), &wire, options);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("not the JSON of a plan: ", std::string(parsed.message())));
  }
  return FromProto(wire);
}

}  // namespace millrace
