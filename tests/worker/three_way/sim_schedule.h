// A stage on a simulated device whose blocks are homed by hand, and what its passes should take.
#ifndef MILLRACE_TESTS_WORKER_THREE_WAY_SIM_SCHEDULE_H_
#define MILLRACE_TESTS_WORKER_THREE_WAY_SIM_SCHEDULE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "proto/stream_layout.h"
#include "tests/worker/three_way/random_plan.h"
#include "tests/worker/three_way/sim_stages.h"

namespace millrace {

class SimScheduleTest : public ::testing::Test {
 protected:
  static constexpr int kPass = 32;
  static constexpr int kDeep = 1 << 20;  // of the ring: all groups twice

  SimScheduleTest() {
    script_.slots = 1;
    script_.context = 128;
    script_.max_pass_tokens = kPass;
    plan_ = ResidentPlan(model_->spec(), script_, DType::kF16);
    blocks_ = BlocksOf(model_->spec());
  }

  // Every `step`th feed-forward block from layer `first` on.
  void HomeFeedForward(int first, int step, int host_route_max_tokens) {
    for (size_t b = 0; b < blocks_.size(); ++b) {
      const Block& block = blocks_[b];
      if (block.kind != BlockKind::kFeedForward || block.layer < first) continue;
      if ((block.layer - first) % step != 0) continue;
      plan_.blocks[b].home = Home::kHost;
      plan_.blocks[b].host_route_max_tokens = host_route_max_tokens;
    }
  }
  // `more` bytes beside what the largest group takes, or kDeep.
  void SetRing(int64_t more) {
    const RingBounds bounds = RingOf(model_->spec(), plan_, 0);
    plan_.stages[0].stream_ring = more == kDeep ? bounds.all * 2 : bounds.least + Bytes(more);
  }
  void Make() {
    auto made = MakeSimStages(model_, plan_, spec_);
    ASSERT_TRUE(made.ok()) << made.status();
    stages_ = *std::move(made);
  }
  SimBackend& sim() { return *stages_.backends[0]; }

  absl::StatusOr<PassResult> RunPass(int tokens, bool output = true) {
    Pass pass;
    pass.id = ++passes_;
    for (int i = 0; i < tokens; ++i) pass.tokens.push_back(17 + i);
    pass.segments = {{0, 0, tokens}};
    if (output) {
      OutputRequest request;
      request.kind = OutputRequest::Kind::kLogits;
      request.row = tokens - 1;
      pass.outputs = {request};
    }
    return stages_.first->Run(pass, {}, absl::Now() + absl::Seconds(60));
  }
  // Virtual time of one more pass.
  absl::Duration TimePass(int tokens) {
    const absl::Duration before = sim().elapsed();
    const auto result = RunPass(tokens);
    EXPECT_TRUE(result.ok()) << result.status();
    return sim().elapsed() - before;
  }
  // Of a pass among many like it.
  absl::Duration SteadyPass(int tokens) {
    for (int i = 0; i < 5; ++i) TimePass(tokens);
    return TimePass(tokens);
  }

  static absl::Duration Of(Bytes bytes, Bandwidth rate) {
    return std::max(absl::Nanoseconds(1), bytes / rate);
  }
  // Products of a pass on the device; `tokens` decide which blocks the CPU computes.
  absl::Duration Products(int tokens) const {
    absl::Duration sum;
    for (size_t b = 0; b < blocks_.size(); ++b) {
      const BlockPlacement& placement = plan_.blocks[b];
      if (placement.home == Home::kHost && tokens <= placement.host_route_max_tokens) continue;
      for (const StreamedGroup& group : StreamedGroupsOf(model_->spec(), blocks_[b])) {
        absl::Duration time = Of(group.raw, spec_.hbm);
        const int rows = blocks_[b].kind == BlockKind::kHead ? 1 : tokens;
        if (spec_.flops > 0) {
          time = std::max(time, absl::Seconds(static_cast<double>(group.raw.count()) *
                                              static_cast<double>(rows) / spec_.flops));
        }
        sum += time;
      }
    }
    return sum;
  }
  // What the link takes for a pass's weights, chunk by chunk.
  absl::Duration Copies(int tokens) const {
    absl::Duration sum;
    for (size_t b = 0; b < blocks_.size(); ++b) {
      const BlockPlacement& placement = plan_.blocks[b];
      if (placement.home != Home::kHost || tokens <= placement.host_route_max_tokens) continue;
      for (int t : blocks_[b].tensors) {
        const TensorSpec& tensor = model_->spec().tensors[static_cast<size_t>(t)];
        if (tensor.shape.size() != 2) continue;
        for (Bytes at; at < tensor.size; at += spec_.chunk) {
          sum += Of(std::min(spec_.chunk, tensor.size - at), spec_.link);
        }
      }
    }
    return sum;
  }
  // Of all host-homed feed-forward blocks.
  int Chunks() const {
    int64_t chunks = 0;
    for (size_t b = 0; b < blocks_.size(); ++b) {
      if (plan_.blocks[b].home != Home::kHost) continue;
      for (int t : blocks_[b].tensors) {
        const TensorSpec& tensor = model_->spec().tensors[static_cast<size_t>(t)];
        const int64_t chunk = spec_.chunk.count();
        if (tensor.shape.size() == 2) chunks += (tensor.size.count() + chunk - 1) / chunk;
      }
    }
    return static_cast<int>(chunks);
  }
  int CpuBlocks(int tokens) const {
    int count = 0;
    for (const BlockPlacement& b : plan_.blocks) {
      count += b.home == Home::kHost && tokens <= b.host_route_max_tokens;
    }
    return count;
  }
  std::vector<float> Logits(int tokens) {
    const auto result = RunPass(tokens);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? result->outputs[0].logits : std::vector<float>();
  }
  std::vector<float> ResidentLogits(int tokens) {
    auto resident = MakeSimStages(model_, ResidentPlan(model_->spec(), script_, DType::kF16), {});
    EXPECT_TRUE(resident.ok());
    std::swap(stages_, *resident);
    const std::vector<float> logits = Logits(tokens);
    std::swap(stages_, *resident);
    return logits;
  }
  void ExpectTimeAddsUp() {
    const StreamStats stats = sim().stream()->stats();
    absl::Duration sum = stats.busy;
    for (const StreamStats::Stall& stall : stats.stalls) sum += stall.time;
    EXPECT_EQ(sum, stats.last_end - stats.first_begin);
  }

  std::shared_ptr<const Model> model_ = *Model::Open("");
  std::vector<Block> blocks_;
  Script script_;
  PlacementPlan plan_;
  SimBackendSpec spec_;
  SimStages stages_;
  uint64_t passes_ = 0;
};

}  // namespace millrace

#endif  // MILLRACE_TESTS_WORKER_THREE_WAY_SIM_SCHEDULE_H_
