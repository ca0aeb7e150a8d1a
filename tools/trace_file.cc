#include "tools/trace_file.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace millrace {

void TraceFile::Add(const PassTrace& pass) {
  absl::MutexLock lock(&mutex_);
  passes_.push_back(pass);
}

std::string TraceFile::Json(const PlacementPlan& plan) const {
  nlohmann::json events = nlohmann::json::array();
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    events.push_back({{"ph", "M"},
                      {"pid", 1},
                      {"tid", i},
                      {"name", "thread_name"},
                      {"args",
                       {{"name", absl::StrCat("stage ", i, " ", plan.stages[i].worker.value(), "/",
                                              plan.stages[i].device.value())}}}});
  }
  absl::MutexLock lock(&mutex_);
  for (const PassTrace& pass : passes_) {
    absl::Duration at = pass.begin - passes_.front().begin;
    for (size_t i = 0; i < pass.stage_compute.size(); ++i) {
      events.push_back(
          {{"ph", "X"},
           {"pid", 1},
           {"tid", i},
           {"name", absl::StrCat(pass.tokens, pass.tokens == 1 ? " token" : " tokens")},
           {"ts", absl::ToDoubleMicroseconds(at)},
           {"dur", absl::ToDoubleMicroseconds(pass.stage_compute[i])},
           {"args", {{"pass", pass.id}, {"sequences", pass.sequences}}}});
      at += pass.stage_compute[i];
    }
  }
  return nlohmann::json{{"traceEvents", events}, {"displayTimeUnit", "ms"}}.dump();
}

}  // namespace millrace
