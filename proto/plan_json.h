// A plan as protobuf's JSON, with the field names of plan.proto (snake_case, every field printed).
#ifndef MILLRACE_PROTO_PLAN_JSON_H_
#define MILLRACE_PROTO_PLAN_JSON_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/placement_plan.h"

namespace google::protobuf {
class Message;
}

namespace millrace {

// Indented, ends with a newline.
std::string PlanToJson(const PlacementPlan& plan);

// InvalidArgument names the bad field, or where the JSON is broken. Unknown fields are refused:
// a plan is never half understood.
absl::StatusOr<PlacementPlan> PlanFromJson(absl::string_view json);

// A host as `millrace probe -o` writes it. Errors as of PlanFromJson.
absl::StatusOr<HostSpec> HostFromJson(absl::string_view json);

// What a GPU takes for the pieces of a pass, as the probe keeps it. Errors as of PlanFromJson.
absl::StatusOr<DeviceTimes> DeviceTimesFromJson(absl::string_view json);

// Any message of ours, in the same form; for --json outputs.
std::string MessageToJson(const google::protobuf::Message& message, bool indent = true);

}  // namespace millrace

#endif  // MILLRACE_PROTO_PLAN_JSON_H_
