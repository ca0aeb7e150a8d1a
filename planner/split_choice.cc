#include "planner/split_choice.h"

#include <algorithm>

#include "planner/route_choice.h"

namespace millrace {
namespace {

constexpr int kShares = 28;  // of a block

// Of a pass size: every how many blocks are split (0: none), after how many shares.
struct Cut {
  int every = 0;
  int share = 0;
  double seconds = 0;
};

// A pass size of the ladder and what was chosen for it.
struct Rung {
  int tokens = 0;
  Cut cut;
};

class Splitter {
 public:
  Splitter(const StageView& stage, const StageOffload& whole) : stage_(stage), whole_(whole) {
    const int limit = std::min(stage.problem.max_pass_tokens, kMaxHostRouteTokens);
    for (int n = 1; n <= limit; n *= 2) rungs_.push_back({n, {}});
    if (rungs_.back().tokens < limit) rungs_.push_back({limit, {}});
    for (int b = stage.first; b < stage.end; ++b) {
      const size_t i = static_cast<size_t>(b - stage.first);
      if (!whole.host_home[i] || whole.OnDisk(i)) continue;
      if (stage.memory.Units(b) >= 2 * CutGrain(stage.memory.Units(b))) blocks_.push_back(i);
    }
  }

  StageOffload Run() {
    if (blocks_.empty()) return whole_;
    StageOffload streamed = whole_;
    for (size_t i : blocks_) streamed.route_max_tokens[i] = 0;
    const bool force = stage_.problem.routes == RoutePolicy::kSplit;
    for (Rung& rung : rungs_) {
      const Cut best = BestCut(rung.tokens);
      const double least = Seconds(force ? streamed : whole_, rung.tokens);
      if (best.seconds < (force ? 1 : kSplitWorth) * least) rung.cut = best;
    }
    return Written(force);
  }

 private:
  int UnitsOf(size_t i) const { return stage_.memory.Units(stage_.first + static_cast<int>(i)); }

  // More rows than there are slots are of a prompt.
  double Seconds(const StageOffload& offload, int tokens) const {
    const PassShape pass = {tokens, tokens > stage_.problem.slots};
    return SteadyStagePass(stage_, offload, pass).seconds;
  }

  // At which unit the cut goes through each of blocks_; 0: the block streams.
  std::vector<int> UnitsAt(const Cut& cut) const {
    const int count = static_cast<int>(blocks_.size());
    const std::vector<bool> split = SpreadEvenly(count, (count + cut.every - 1) / cut.every);
    std::vector<int> units;
    for (size_t k = 0; k < blocks_.size(); ++k) {
      const int all = UnitsOf(blocks_[k]), grain = CutGrain(all);
      const int near = static_cast<int>((int64_t{all} * cut.share / kShares + grain / 2) / grain);
      units.push_back(split[k] ? std::clamp(near, 1, (all - 1) / grain) * grain : 0);
    }
    return units;
  }

  Cut Timed(int tokens, Cut cut) const {
    StageOffload tried = whole_;
    tried.cpu_shares.assign(tried.host_home.size(), {});
    const std::vector<int> units = UnitsAt(cut);
    for (size_t k = 0; k < blocks_.size(); ++k) {
      tried.route_max_tokens[blocks_[k]] = 0;
      tried.cpu_shares[blocks_[k]] = {{tokens, units[k]}};
    }
    cut.seconds = Seconds(tried, tokens);
    return cut;
  }

  Cut BestCut(int tokens) const {
    Cut best;
    const auto consider = [&](int every, int share) {
      if (share < 1 || share >= kShares) return;
      const Cut cut = Timed(tokens, {every, share, 0});
      // Every block cut alike needs the least of the ring: ties, and nearly so, go to that.
      const double worth = every > best.every ? 0.99 : 1 - 1e-9;
      if (best.every == 0 || cut.seconds < best.seconds * worth) best = cut;
    };
    for (int share = 2; share < kShares; share += 4) consider(1, share);
    const int near = best.share;
    for (int d : {-2, -1, 1, 2}) consider(1, near + d);
    const int one = best.share;
    for (int every : {2, 4}) {
      for (int d = -2; d <= 2; ++d) consider(every, one * every + d);
    }
    return best;
  }

  // Units of blocks_[k] in passes of a rung.
  int UnitsIn(const Rung& rung, size_t k, bool force) const {
    if (rung.cut.every > 0) return UnitsAt(rung.cut)[k];
    const size_t i = blocks_[k];
    return !force && rung.tokens <= whole_.route_max_tokens[i] ? UnitsOf(i) : 0;
  }

  // The rungs as each block's route and shares.
  StageOffload Written(bool force) const {
    StageOffload out = whole_;
    out.cpu_shares.assign(out.host_home.size(), {});
    for (size_t k = 0; k < blocks_.size(); ++k) {
      const size_t i = blocks_[k];
      int& route = out.route_max_tokens[i];
      std::vector<CpuShare>& shares = out.cpu_shares[i];
      route = 0;
      for (const Rung& rung : rungs_) {
        const int units = UnitsIn(rung, k, force);
        if (units == UnitsOf(i) && shares.empty()) {
          route = rung.tokens;
        } else if (!shares.empty() && shares.back().units == units) {
          shares.back().max_tokens = rung.tokens;
        } else {
          shares.push_back({rung.tokens, units});
        }
      }
      while (!shares.empty() && shares.back().units == 0) shares.pop_back();
    }
    return out;
  }

  const StageView& stage_;
  const StageOffload& whole_;
  std::vector<Rung> rungs_;
  std::vector<size_t> blocks_;  // of the run, that may be split
};

}  // namespace

int CutGrain(int d_ff) {
  const int even = (d_ff + kShares - 1) / kShares;
  return std::max(1, (even + kUnitGrain - 1) / kUnitGrain) * kUnitGrain;
}

StageOffload ChooseShares(const StageView& stage, const StageOffload& whole) {
  return Splitter(stage, whole).Run();
}

}  // namespace millrace
