#include "tools/use_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace millrace {
namespace {

constexpr const char* kNames[] = {"gpu", "copy", "cpu"};
constexpr const char* kStalls[] = {"ring_full", "source", "idle", "copy_thread"};
static_assert(sizeof(kStalls) / sizeof(kStalls[0]) == kStreamStalls);

double Share(absl::Duration busy, absl::Duration all) {
  return all > absl::ZeroDuration() ? absl::FDivDuration(busy, all) : 0;
}

double Rate(Bytes bytes, absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  return seconds > 0 ? static_cast<double>(bytes.count()) / seconds / 1e9 : 0;
}

}  // namespace

void UseReport::Reset() {
  absl::MutexLock lock(&mutex_);
  for (const auto& [index, stage] : stages_) {
    if (stage.any_copies) before_[index] = stage.last;
  }
  stages_.clear();
  begin_ = absl::InfiniteFuture();
  end_ = absl::InfinitePast();
}

void UseReport::Add(const PassTrace& pass) {
  absl::MutexLock lock(&mutex_);
  begin_ = std::min(begin_, pass.begin);
  end_ = std::max(end_, pass.end);
  for (const BusySpan& span : pass.use.spans) {
    Sum& sum = stages_[span.stage].sums[span.resource];
    if (span.resource == Resource::kCopy) continue;  // counted whole by the stream itself
    sum.busy += span.end - span.begin;
    sum.bytes += span.bytes;
  }
  for (const StageCopies& copies : pass.use.copies) {
    Stage& stage = stages_[copies.stage];
    if (!stage.any_copies) stage.first = before_[copies.stage];
    stage.any_copies = true;
    stage.last = copies.stats;
    Sum& sum = stage.sums[Resource::kCopy];
    sum.busy = copies.stats.busy - stage.first.busy;
    sum.bytes = copies.stats.copied - stage.first.copied;
  }
}

nlohmann::ordered_json UseReport::Json() const {
  absl::MutexLock lock(&mutex_);
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const auto& [index, stage] : stages_) {
    nlohmann::ordered_json entry = {{"stage", index}};
    for (const auto& [resource, sum] : stage.sums) {
      nlohmann::ordered_json& to = entry[kNames[static_cast<size_t>(resource)]];
      to["busy"] = Share(sum.busy, end_ - begin_);
      to["bytes"] = sum.bytes.count();
      to["gb_per_second"] = Rate(sum.bytes, sum.busy);
    }
    for (size_t i = 0; stage.any_copies && i < kStreamStalls; ++i) {
      entry["copy"]["stalls"][kStalls[i]] = absl::ToDoubleSeconds(stage.last.stalls[i].time -
                                                                  stage.first.stalls[i].time);
    }
    out.push_back(std::move(entry));
  }
  return out;
}

std::string UseReport::Text() const {
  std::string out;
  for (const nlohmann::ordered_json& stage : Json()) {
    std::vector<std::string> parts;
    for (const char* name : {"copy", "cpu", "gpu"}) {
      if (!stage.contains(name)) continue;
      const nlohmann::ordered_json& r = stage[name];
      std::string part = absl::StrFormat("%s %.0f%% busy", name, 100 * r["busy"].get<double>());
      const double rate = r["gb_per_second"].get<double>();
      if (rate > 0) absl::StrAppendFormat(&part, " at %.1f GB/s", rate);
      if (r.contains("stalls")) {
        for (const auto& [cause, seconds] : r["stalls"].items()) {
          if (seconds.get<double>() > 1e-3) {
            absl::StrAppendFormat(&part, ", %s %.3f s", cause, seconds.get<double>());
          }
        }
      }
      parts.push_back(std::move(part));
    }
    absl::StrAppend(&out, "stage ", stage["stage"].get<int>(), ": ", absl::StrJoin(parts, "; "),
                    "\n");
  }
  return out;
}

}  // namespace millrace
