#include "planner/split_choice.h"

#include <algorithm>

#include "planner/route_choice.h"

namespace millrace {
namespace {

// A block's units in steps of the search, and about how many cuts a block has.
constexpr int kShares = 112, kCuts = 28;

// Of a pass size: every how many blocks are split (0: none), and where on average.
struct Cut {
  int every = 0;
  int share = 0;  // of kShares
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
      if (stage.memory.Units(b) == 0) continue;
      const int grain = CutGrain(stage.problem.model, stage.memory.blocks()[b]);
      if (stage.memory.Units(b) < 2 * grain) continue;
      blocks_.push_back(i);
      grains_.push_back(grain);
    }
  }

  StageOffload Run() {
    if (blocks_.empty()) return whole_;
    StageOffload streamed = whole_;
    for (size_t i : blocks_) streamed.route_max_tokens[i] = 0;
    for (Rung& rung : rungs_) {
      const Cut best = BestCut(rung.tokens);
      if (best.seconds < Seconds(streamed, rung.tokens)) rung.cut = best;
    }
    return Written();
  }

 private:
  int UnitsOf(size_t i) const { return stage_.memory.Units(stage_.first + static_cast<int>(i)); }

  // More rows than there are slots are of a prompt.
  double Seconds(const StageOffload& offload, int tokens) const {
    const PassShape pass = {tokens, tokens > stage_.problem.slots};
    return SteadyStagePass(stage_, offload, pass).seconds;
  }

  // At which unit the cut goes through each of blocks_; 0: the block streams. What one block's grain
  // gives too much or too little the next one makes up for.
  std::vector<int> UnitsAt(const Cut& cut) const {
    const int count = static_cast<int>(blocks_.size());
    const std::vector<bool> split = SpreadEvenly(count, (count + cut.every - 1) / cut.every);
    std::vector<int> units;
    double owed = 0;  // shares of a block
    for (size_t k = 0; k < blocks_.size(); ++k) {
      const int all = UnitsOf(blocks_[k]), grain = grains_[k];
      units.push_back(0);
      if (!split[k]) continue;
      owed += static_cast<double>(cut.share) / kShares;
      const int near = static_cast<int>(owed * all / grain + 0.5);
      units.back() = std::clamp(near, 1, (all - 1) / grain) * grain;
      owed -= static_cast<double>(units.back()) / all;
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
    constexpr int kCoarse = kShares / 7;
    for (int share = kCoarse / 2; share < kShares; share += kCoarse) consider(1, share);
    for (int step : {kCoarse / 2, kCoarse / 4, kCoarse / 8}) {
      const int near = best.share;
      consider(1, near - step);
      consider(1, near + step);
    }
    const int one = best.share;
    for (int every : {2, 4}) {
      for (int d = -2; d <= 2; ++d) consider(every, one * every + d * kCoarse / 4);
    }
    return best;
  }

  // Units of blocks_[k] in passes of a rung.
  int UnitsIn(const Rung& rung, size_t k) const {
    return rung.cut.every > 0 ? UnitsAt(rung.cut)[k] : 0;
  }

  // The rungs as each block's shares.
  StageOffload Written() const {
    StageOffload out = whole_;
    out.cpu_shares.assign(out.host_home.size(), {});
    for (size_t k = 0; k < blocks_.size(); ++k) {
      const size_t i = blocks_[k];
      std::vector<CpuShare>& shares = out.cpu_shares[i];
      out.route_max_tokens[i] = 0;
      for (const Rung& rung : rungs_) {
        const int units = UnitsIn(rung, k);
        if (!shares.empty() && shares.back().units == units) {
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
  std::vector<int> grains_;     // of those
};

}  // namespace

int CutGrain(const ModelSpec& model, const Block& block) {
  constexpr int kFewest = 8, kAligned = 16;
  const int d_ff = model.layers[static_cast<size_t>(block.layer)].d_ff;
  const int even = (d_ff + kCuts - 1) / kCuts;
  const int grain = std::max(1, (even + kUnitGrain - 1) / kUnitGrain) * kUnitGrain;
  const DType down = model.tensors[model.FindTensor(TensorRole::kFfnDown, block.layer)].dtype;
  for (int wide = grain; wide * kFewest <= d_ff; wide += grain) {
    if (RowBytes(down, wide).count() % kAligned == 0) return wide;
  }
  return grain;
}

StageOffload ChooseShares(const StageView& stage, const StageOffload& whole) {
  return Splitter(stage, whole).Run();
}

}  // namespace millrace
