// Plan files: what `millrace plan -o` writes.
#ifndef MILLRACE_TOOLS_PLAN_FILE_H_
#define MILLRACE_TOOLS_PLAN_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "proto/placement_plan.h"

namespace millrace {

// NotFound or InvalidArgument; names `flag`, the file, and the field that is bad.
absl::StatusOr<PlacementPlan> ReadPlanFile(absl::string_view flag, const std::string& path);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_PLAN_FILE_H_
