// What the parts of the plan validator share.
#ifndef MILLRACE_PLANNER_PLAN_CHECK_H_
#define MILLRACE_PLANNER_PLAN_CHECK_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace millrace::plan_check {

using Memory = std::pair<std::string, std::string>;  // worker, memory

// A plan that breaks its own rules: our bug.
template <typename... Parts>
absl::Status Broken(const Parts&... parts) {
  return absl::InternalError(absl::StrCat("plan: ", parts...));
}

}  // namespace millrace::plan_check

#endif  // MILLRACE_PLANNER_PLAN_CHECK_H_
