#include "planner/route_choice.h"

#include <algorithm>
#include <set>

#include "planner/host_split.h"
#include "planner/split_choice.h"

namespace millrace {
namespace {

FluidPass FluidOf(const StageView& stage, const StageOffload& offload,
                  const std::vector<size_t>& choosable, PassShape pass) {
  FluidPass fluid;
  const HostRates rates = stage.rates();
  for (int b = stage.first; b < stage.end; ++b) {
    const Block& block = stage.memory.blocks()[b];
    fluid.device_seconds += stage.cost.DeviceSeconds(stage.host, stage.device, b, pass);
    const size_t i = static_cast<size_t>(b - stage.first);
    const auto bytes = static_cast<double>(block.weights.count());
    if (offload.OnDisk(i)) {
      fluid.streamed_bytes += FluidDiskBytes(stage.host, rates, bytes);
    } else if (offload.host_home[i] && block.kind != BlockKind::kEmbedding &&
               block.kind != BlockKind::kFeedForward) {
      fluid.streamed_bytes += bytes;
    }
  }
  for (size_t i : choosable) {
    const int b = stage.first + static_cast<int>(i);
    fluid.ff_bytes += static_cast<double>(stage.memory.blocks()[b].weights.count());
    fluid.ff_device_seconds += stage.cost.DeviceSeconds(stage.host, stage.device, b, pass);
    fluid.ff_compute_seconds += stage.cost.HostComputeSeconds(stage.host, b, pass);
    fluid.ff_hop_seconds += stage.cost.HostHopSeconds(stage.device, pass);
  }
  return fluid;
}

// The set of streamed blocks at growing pass sizes.
class Chooser {
 public:
  Chooser(const StageView& stage, const StageOffload& offload) : stage_(stage), offload_(offload) {
    offload_.route_max_tokens.assign(offload.host_home.size(), 0);
    for (int b = stage.first; b < stage.end; ++b) {
      const size_t i = static_cast<size_t>(b - stage.first);
      const bool choosable = offload.host_home[i] && !offload.OnDisk(i) &&
                             stage.memory.blocks()[b].kind == BlockKind::kFeedForward;
      if (choosable) choosable_.push_back(i);
    }
    on_cpu_ = choosable_;
  }

  StageOffload Run() {
    const RoutePolicy policy = stage_.problem.routes;
    const int limit = stage_.problem.max_pass_tokens;
    if (policy == RoutePolicy::kStream) return offload_;
    if (policy == RoutePolicy::kCpu) {
      SetRoutes(limit);
      return offload_;
    }
    for (int n = 1; n <= std::min(limit, kMaxHostRouteTokens) && !on_cpu_.empty(); n *= 2) {
      on_cpu_ = Left(BestMore(n));
      SetRoutes(n);
    }
    return policy == RoutePolicy::kSplit ? ChooseShares(stage_, offload_) : offload_;
  }

 private:
  // What the CPU keeps when `more` of its blocks stream as well.
  std::vector<size_t> Left(int more) const {
    const std::vector<bool> chosen = SpreadEvenly(static_cast<int>(on_cpu_.size()), more);
    std::vector<size_t> left;
    for (size_t k = 0; k < on_cpu_.size(); ++k) {
      if (!chosen[k]) left.push_back(on_cpu_[k]);
    }
    return left;
  }

  void SetRoutes(int tokens) {
    for (size_t i : on_cpu_) offload_.route_max_tokens[i] = tokens;
  }

  // More rows than there are slots are of a prompt.
  PassShape ShapeOf(int n) const { return {n, n > stage_.problem.slots}; }

  int BestMore(int n) const {
    const FluidPass fluid = FluidOf(stage_, offload_, choosable_, ShapeOf(n));
    const double share = BestHostSplit(fluid, stage_.rates(), stage_.problem.routes).stream_share;
    const int all = static_cast<int>(choosable_.size()), left = static_cast<int>(on_cpu_.size());
    const int near = static_cast<int>(share * all + 0.5) - (all - left);
    std::set<int> candidates = {left};
    for (int eighth = 0; eighth < 8; ++eighth) candidates.insert(left * eighth / 8);
    for (int d = -3; d <= 3; ++d) candidates.insert(std::clamp(near + d, 0, left));
    int best = left;
    double least = -1;
    for (auto it = candidates.rbegin(); it != candidates.rend(); ++it) {
      const double seconds = Seconds(n, *it);
      if (least < 0 || seconds < least * (1 - 1e-9)) {
        least = seconds;
        best = *it;
      }
    }
    return best;
  }

  double Seconds(int n, int more) const {
    StageOffload tried = offload_;
    for (size_t i : choosable_) tried.route_max_tokens[i] = 0;
    for (size_t i : Left(more)) tried.route_max_tokens[i] = n;
    return SteadyStagePass(stage_, tried, ShapeOf(n)).seconds;
  }

  const StageView& stage_;
  StageOffload offload_;
  std::vector<size_t> choosable_, on_cpu_;  // by block of the run
};

}  // namespace

std::vector<bool> SpreadEvenly(int count, int chosen) {
  std::vector<bool> out(static_cast<size_t>(count), false);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t half = count / 2;
    out[static_cast<size_t>(i)] = ((i + 1) * chosen + half) / count > (i * chosen + half) / count;
  }
  return out;
}

StageOffload ChooseRoutes(const StageView& stage, const StageOffload& offload) {
  return Chooser(stage, offload).Run();
}

}  // namespace millrace
