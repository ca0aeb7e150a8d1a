#include "worker/local_stages.h"

#include <map>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "worker/stage_thread.h"

namespace millrace {
namespace {

class LocalLink : public StageLink {
 public:
  explicit LocalLink(std::unique_ptr<StageRunner> next) : next_(std::move(next)) {}
  absl::StatusOr<PassResult> Forward(const Pass& pass, const HiddenStates& hidden,
                                     absl::Time deadline) override {
    return next_->Run(pass, hidden, deadline);
  }
  void Cancel() override { next_->Cancel(); }
  bool takes_device_rows() const override { return next_->takes_device_rows(); }

 private:
  std::unique_ptr<StageRunner> next_;
};

// Lets one stage at a time report.
class Reporter {
 public:
  explicit Reporter(const StageProgress& progress) : progress_(progress) {}

  StageOptions OptionsFor(int stage, StageOptions options) {
    options.on_load_progress = nullptr;
    if (progress_) {
      options.on_load_progress = [this, stage](Bytes done, Bytes total) {
        const std::lock_guard lock(mu_);
        progress_(stage, done, total);
      };
    }
    return options;
  }

 private:
  const StageProgress& progress_;
  std::mutex mu_;
};

absl::Status OfStage(const absl::Status& status, int stage) {
  return Annotate(status, absl::StrCat("stage ", stage));
}

}  // namespace

std::unique_ptr<StageLink> MakeLocalLink(std::unique_ptr<StageRunner> next) {
  return std::make_unique<LocalLink>(std::move(next));
}

absl::StatusOr<StageChain> CreateStageChain(const std::shared_ptr<const Model>& model,
                                            const PlacementPlan& plan, int first, int end,
                                            std::unique_ptr<StageLink> next,
                                            const StageOptions& options,
                                            const StageProgress& progress) {
  if (first >= end) return absl::InvalidArgumentError("the plan has no stages");
  Reporter reporter(progress);
  StageChain chain;
  if (end - first == 1) {
    absl::StatusOr<std::unique_ptr<StageRunner>> only = StageRunner::Create(
        model, plan, first, std::move(next), reporter.OptionsFor(first, options));
    if (!only.ok()) return OfStage(only.status(), first);
    chain.resident = {(*only)->resident_bytes()};
    chain.first = *std::move(only);
    return chain;
  }
  std::vector<std::shared_ptr<const StageThread::Loading>> loads(static_cast<size_t>(end - first));
  for (int stage = end - 1; stage >= first; --stage) {
    auto create = [&model, &plan, stage, link = std::move(next),
                   own = reporter.OptionsFor(stage, options)]() mutable {
      return StageRunner::Create(model, plan, stage, std::move(link), own);
    };
    auto thread = std::make_unique<StageThread>(stage, std::move(create));
    loads[static_cast<size_t>(stage - first)] = thread->loading();
    if (stage > first) {
      next = MakeLocalLink(std::move(thread));
    } else {
      chain.first = std::move(thread);
    }
  }
  absl::Status failed;
  for (int stage = first; stage < end; ++stage) {
    const absl::StatusOr<Bytes> resident = loads[static_cast<size_t>(stage - first)]->Wait();
    if (resident.ok()) {
      chain.resident.push_back(*resident);
    } else if (failed.ok()) {
      failed = OfStage(resident.status(), stage);
    }
  }
  if (!failed.ok()) return failed;
  return chain;
}

absl::StatusOr<std::unique_ptr<StageRunner>> CreateLocalStages(
    const std::shared_ptr<const Model>& model, const PlacementPlan& plan,
    const StageOptions& options) {
  std::map<int, std::pair<Bytes, Bytes>> reported;  // by stage
  StageProgress progress;
  if (options.on_load_progress) {
    progress = [&](int stage, Bytes done, Bytes total) {
      reported[stage] = {done, total};
      Bytes all_done, all;
      for (const auto& [_, r] : reported) {
        all_done += r.first;
        all += r.second;
      }
      options.on_load_progress(all_done, all);
    };
  }
  MILLRACE_ASSIGN_OR_RETURN(
      StageChain chain, CreateStageChain(model, plan, 0, static_cast<int>(plan.stages.size()),
                                         nullptr, options, progress));
  return std::move(chain.first);
}

}  // namespace millrace
