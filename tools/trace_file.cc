#include "tools/trace_file.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

// Lanes of a stage's resources, beside the one of its passes.
constexpr const char* kLanes[] = {"GPU", "copies", "CPU"};
int LaneOf(int stage, Resource resource) {
  return 1000 + 10 * stage + static_cast<int>(resource);
}

nlohmann::json LaneName(int lane, const std::string& name) {
  return {{"ph", "M"}, {"pid", 1}, {"tid", lane}, {"name", "thread_name"}, {"args", {{"name", name}}}};
}

nlohmann::json SpanEvent(const BusySpan& span, absl::Time start) {
  return {{"ph", "X"},
          {"pid", 1},
          {"tid", LaneOf(span.stage, span.resource)},
          {"name", span.what.empty() ? "blocks" : span.what},
          {"ts", absl::ToDoubleMicroseconds(span.begin - start)},
          {"dur", absl::ToDoubleMicroseconds(span.end - span.begin)},
          {"args", {{"bytes", span.bytes.count()}}}};
}

}  // namespace

void TraceFile::Add(const PassTrace& pass) {
  absl::MutexLock lock(&mutex_);
  passes_.push_back(pass);
}

std::string TraceFile::Json(const PlacementPlan& plan) const {
  nlohmann::json events = nlohmann::json::array();
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const std::string name = absl::StrCat("stage ", i, " ", plan.stages[i].worker.value(), "/",
                                          plan.stages[i].device.value());
    events.push_back(LaneName(static_cast<int>(i), name));
    for (Resource r : {Resource::kGpu, Resource::kCopy, Resource::kCpu}) {
      events.push_back(LaneName(LaneOf(static_cast<int>(i), r),
                                absl::StrCat(name, " ", kLanes[static_cast<size_t>(r)])));
    }
  }
  absl::MutexLock lock(&mutex_);
  for (const PassTrace& pass : passes_) {
    for (const BusySpan& span : pass.use.spans) events.push_back(SpanEvent(span, passes_.front().begin));
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
