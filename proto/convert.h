// Value types to and from their messages. ToProto never fails; FromProto validates what other code
// relies on (ranges, index bounds, non-negative sizes) and answers InvalidArgument with the path of
// the bad field: "PlacementPlan.stages[1].end_block: 3 is not above first_block 5".
#ifndef MILLRACE_PROTO_CONVERT_H_
#define MILLRACE_PROTO_CONVERT_H_

#include <string>

#include "absl/status/statusor.h"
#include "millrace/v1/cluster.pb.h"
#include "millrace/v1/model.pb.h"
#include "millrace/v1/plan.pb.h"
#include "proto/activation_needs.h"
#include "proto/cluster_spec.h"
#include "proto/model_spec.h"
#include "proto/placement_plan.h"

namespace millrace {

class FieldCheck;

v1::DType ToProto(DType dtype);
absl::StatusOr<DType> FromProto(v1::DType dtype);

v1::ModelSpec ToProto(const ModelSpec& model);
absl::StatusOr<ModelSpec> FromProto(const v1::ModelSpec& model);

v1::DeviceTimes ToProto(const DeviceTimes& times);
DeviceTimes DeviceTimesFromProto(FieldCheck& check, const std::string& field,
                                 const v1::DeviceTimes& wire);

v1::HostSpec ToProto(const HostSpec& host);
absl::StatusOr<HostSpec> FromProto(const v1::HostSpec& host);

v1::ClusterSpec ToProto(const ClusterSpec& cluster);
absl::StatusOr<ClusterSpec> FromProto(const v1::ClusterSpec& cluster);

v1::ActivationNeeds ToProto(const ActivationNeeds& needs);
absl::StatusOr<ActivationNeeds> FromProto(const v1::ActivationNeeds& needs);

v1::Objective ToProto(const Objective& objective);
// Refuses fields of `field` (the message's name) at `check`.
Objective ObjectiveFromProto(FieldCheck& check, const std::string& field,
                             const v1::Objective& wire);

v1::PlacementPlan ToProto(const PlacementPlan& plan);
// An unknown format_version is refused with both versions named. Stages must be contiguous from
// block 0 on and every block must be placed once, in order.
absl::StatusOr<PlacementPlan> FromProto(const v1::PlacementPlan& plan);

}  // namespace millrace

#endif  // MILLRACE_PROTO_CONVERT_H_
