#include "tools/plan_file.h"

#include "absl/strings/str_cat.h"
#include "proto/plan_json.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"

namespace millrace {

absl::StatusOr<PlacementPlan> ReadPlanFile(absl::string_view flag, const std::string& path) {
  MILLRACE_ASSIGN_OR_RETURN(const std::string json, ReadTextFile(flag, path));
  absl::StatusOr<PlacementPlan> plan = PlanFromJson(json);
  if (!plan.ok()) return Annotate(plan.status(), absl::StrCat(flag, ": '", path, "'"));
  return plan;
}

}  // namespace millrace
