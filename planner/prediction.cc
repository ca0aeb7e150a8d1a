#include "planner/prediction.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "planner/objective_passes.h"
#include "planner/stage_steps.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

// Shares of a pass from which on a resource is called busy all the time.
constexpr double kSaturated = 0.9;

// What one stage waits for, by the busiest of its resources.
std::string StageLimit(const Stage& stage, bool offloads, bool disk, const SteadyPass& pass) {
  const std::string where = absl::StrCat(stage.worker.value(), "/", stage.device.value());
  if (stage.device_kind == DeviceKind::kCpu) return absl::StrCat("DRAM bandwidth of ", where);
  if (!offloads) return absl::StrCat("HBM bandwidth of ", where);
  const std::string shares =
      absl::StrFormat("copies %.0f%% busy, CPU %.0f%%, GPU %.0f%%", 100 * pass.copy_share,
                      100 * pass.cpu_share, 100 * pass.gpu_share);
  std::string what = "HBM bandwidth of ";
  if (!disk && pass.copy_share >= kSaturated && pass.cpu_share >= 0.5) {
    what = "the link and the host's DRAM together on ";
  } else if (pass.copy_share >= std::max(pass.cpu_share, pass.gpu_share)) {
    what = disk ? "the disk beside " : "the link to ";
  } else if (pass.cpu_share >= pass.gpu_share) {
    what = "CPU and DRAM beside ";
  }
  return absl::StrCat(what, where, " (", shares, ")");
}

bool Offloads(const StageOffload& offload) {
  return std::find(offload.host_home.begin(), offload.host_home.end(), true) !=
         offload.host_home.end();
}

StageView ViewOf(const PlacementProblem& problem, const MemoryBudget& memory, const CostModel& cost,
                 const HostSpec& host, const DeviceSpec& device, const Stage& stage) {
  return {problem, memory, cost, host, device, stage.first_block, stage.end_block};
}

}  // namespace

Predictor::Predictor(const PlacementProblem& problem, const MemoryBudget& memory,
                     const PlacementPlan& plan)
    : problem_(problem), memory_(memory), plan_(plan), cost_(problem, memory) {
  for (const Stage& s : plan.stages) {
    StageInfo info;
    for (const HostSpec& host : problem.cluster.hosts) {
      if (host.worker != s.worker) continue;
      info.host = &host;
      for (const DeviceSpec& d : host.devices) {
        if (d.id == s.device) info.device = &d;
      }
    }
    MILLRACE_CHECK(info.device != nullptr);
    info.offload.ring = s.stream_ring;
    if (s.device_kind == DeviceKind::kGpu) {
      for (int b = s.first_block; b < s.end_block; ++b) {
        info.offload.host_home.push_back(plan.blocks[b].home != Home::kDevice);
        info.offload.on_disk.push_back(plan.blocks[b].home == Home::kDisk);
        info.offload.kv_on_host.push_back(plan.blocks[b].kv_home == Home::kHost);
        info.offload.route_max_tokens.push_back(plan.blocks[b].host_route_max_tokens);
        info.offload.cpu_shares.push_back(plan.blocks[b].cpu_shares);
      }
    }
    if (!Offloads(info.offload)) info.offload = {};
    stages_.push_back(std::move(info));
  }
}

SteadyPass Predictor::StagePass(size_t stage, int batch) const {
  const StageInfo& info = stages_[stage];
  const StageView view =
      ViewOf(problem_, memory_, cost_, *info.host, *info.device, plan_.stages[stage]);
  const PassShape shape = {std::clamp(batch, 1, problem_.max_pass_tokens), false};
  if (Offloads(info.offload)) return SteadyStagePass(view, info.offload, shape);
  SteadyPass pass;
  for (int b = view.first; b < view.end; ++b) {
    pass.seconds += cost_.DeviceSeconds(*info.host, *info.device, b, shape);
  }
  pass.gpu_share = 1;
  return pass;
}

double Predictor::HopSeconds(int tokens) const {
  double seconds = 0;
  for (size_t i = 1; i < stages_.size(); ++i) {
    const bool same = plan_.stages[i - 1].worker == plan_.stages[i].worker;
    seconds += cost_.HopSeconds(same ? problem_.cluster.local : problem_.cluster.remote, tokens);
  }
  return seconds;
}

double Predictor::DecodeSeconds(int batch) const {
  double seconds = HopSeconds(batch);
  for (size_t i = 0; i < stages_.size(); ++i) seconds += StagePass(i, batch).seconds;
  return seconds;
}

double Predictor::PrefillSeconds(int tokens) const {
  const int size = problem_.max_pass_tokens;
  double seconds = HopSeconds(size) * (tokens / size);
  if (tokens % size > 0) seconds += HopSeconds(tokens % size);
  for (size_t i = 0; i < stages_.size(); ++i) {
    const StageInfo& info = stages_[i];
    const StageView view =
        ViewOf(problem_, memory_, cost_, *info.host, *info.device, plan_.stages[i]);
    if (Offloads(info.offload)) {
      seconds += StagePrefillSeconds(view, info.offload, tokens);
      continue;
    }
    for (const auto& [shape, passes] : PromptPasses(tokens, size)) {
      for (int b = view.first; b < view.end; ++b) {
        seconds += passes * cost_.DeviceSeconds(*info.host, *info.device, b, shape);
      }
    }
  }
  return seconds;
}

double Predictor::ObjectiveSeconds() const {
  const Objective& o = problem_.objective;
  double seconds = 0;
  if (o.prompt_tokens > 0) seconds += o.batch * PrefillSeconds(o.prompt_tokens);
  if (o.decode_tokens > 0) {
    const WeightedPass pass = DecodePasses(problem_);
    seconds += pass.weight * DecodeSeconds(pass.shape.tokens);
  }
  return seconds;
}

void Predict(const PlacementProblem& problem, const MemoryBudget& memory, PlacementPlan& plan) {
  const Predictor predictor(problem, memory, plan);
  Prediction& p = plan.predicted;
  const double hops = predictor.HopSeconds(1);
  double token = hops, worst = -1;
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const SteadyPass pass = predictor.StagePass(i, 1);
    token += pass.seconds;
    p.stage_time_per_token.push_back(absl::Seconds(pass.seconds));
    if (pass.seconds <= worst) continue;
    worst = pass.seconds;
    const Stage& s = plan.stages[i];
    const auto any = [&](auto homed) {
      return std::any_of(plan.blocks.begin() + s.first_block, plan.blocks.begin() + s.end_block,
                         homed);
    };
    plan.binding_constraint =
        StageLimit(s, any([](const BlockPlacement& b) { return b.home != Home::kDevice; }),
                   any([](const BlockPlacement& b) { return b.home == Home::kDisk; }), pass);
  }
  if (hops > worst) {
    plan.binding_constraint = "the links between stages";
    worst = hops;
  }
  absl::StrAppend(&plan.binding_constraint, absl::StrFormat(": %.0f%% of each token's time",
                                                            token > 0 ? 100 * worst / token : 0));
  p.hop_time_per_token = absl::Seconds(hops);
  p.time_per_token = absl::Seconds(token);
  p.decode_tokens_per_second = token > 0 ? 1 / token : 0;
  p.decode_batch = std::min(problem.slots, problem.max_pass_tokens);
  const double batch = p.decode_batch > 1 ? predictor.DecodeSeconds(p.decode_batch) : token;
  p.batch_tokens_per_second = batch > 0 ? p.decode_batch / batch : 0;
  p.prompt_tokens = std::max(1, std::min(problem.expected_prompt_tokens, problem.context));
  const double prefill = predictor.PrefillSeconds(p.prompt_tokens);
  p.ttft = absl::Seconds(prefill);
  p.objective_time = absl::Seconds(predictor.ObjectiveSeconds());
  p.prefill_tokens_per_second = prefill > 0 ? p.prompt_tokens / prefill : 0;
}

}  // namespace millrace
