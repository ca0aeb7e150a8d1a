// The three-way schedule on a real GPU: tokens of random mixes of homes, routes, rings and devices
// are those of the fully resident run; stopping, destroying and several devices while copies are
// under way. Needs a GPU.
#include <gtest/gtest.h>

#include <filesystem>
#include <iostream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/cuda/device.h"
#include "tests/worker/three_way/random_plan.h"
#include "tests/worker/three_way/script.h"
#include "worker/engine.h"
#include "worker/local_stages.h"

namespace millrace {
namespace {

constexpr uint64_t kSeed = 20251126;
constexpr char kQuantised[] = "../shared/models/quill-7m-q4_k_m.gguf";

// Where the CPU computes a part, logits differ by its kernels' rounding, and where it shares a block with
// the GPU, by the order of the sum too. Elsewhere not at all.
struct Tolerance {
  float cpu_blocks;
  bool exact_embedding;  // rows of the table come out the same on CPU and GPU
};

class ThreeWayGpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const cuda::DeviceList list = cuda::ListDevices();
    if (list.devices.empty()) GTEST_SKIP() << "no GPU: " << list.reason;
    model_ = *Model::Open("");
  }

  int64_t Random(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(rng_);
  }

  absl::StatusOr<std::unique_ptr<StageRunner>> Stages(const PlacementPlan& plan) {
    StageOptions options;
    options.threads = 2;
    return CreateLocalStages(model_, plan, options);
  }

  void ExpectTranscript(const PlacementPlan& plan, const Script& script, const Transcript& expected,
                        const Tolerance& tolerance) {
    SCOPED_TRACE(Describe(plan));
    auto stages = Stages(plan);
    ASSERT_TRUE(stages.ok()) << stages.status();
    const auto got = RunScript(**stages, script, &expected);
    ASSERT_TRUE(got.ok()) << got.status();
    const bool embeds_alike = plan.blocks[0].home == Home::kDevice || tolerance.exact_embedding;
    if (HasCpuBlocks(plan) || !embeds_alike) {
      // A narrow cache rounds differences up.
      const bool narrow = plan.kv_type == DType::kBF16 || plan.kv_type == DType::kQ8_0;
      const float most = narrow ? kQuants.cpu_blocks : tolerance.cpu_blocks;
      EXPECT_EQ(Difference(expected, *got, most), "");
    } else {
      EXPECT_EQ(Difference(expected, *got), "");
    }
  }

  Transcript Expected(const PlacementPlan& resident, const Script& script) {
    auto stages = Stages(resident);
    EXPECT_TRUE(stages.ok()) << stages.status();
    if (!stages.ok()) return {};
    auto expected = RunScript(**stages, script);
    EXPECT_TRUE(expected.ok()) << expected.status();
    return expected.ok() ? *std::move(expected) : Transcript();
  }

  // Some scripts' plans are cut in two: where a stage begins, norms are computed otherwise, so the
  // resident run is cut there as well.
  void CheckRandomPlans(const Tolerance& tolerance, absl::Duration limit) {
    const absl::Time begin = absl::Now();
    constexpr DType kKvTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0};
    int plans = 0, exact = 0, split = 0;
    while (plans < 300 && absl::Now() - begin < limit && !HasFailure()) {
      const Script script = RandomScript(rng_, model_->spec().vocab);
      std::vector<int> cuts;
      if (Random(1, 4) == 1) {
        cuts = {static_cast<int>(Random(1, std::ssize(BlocksOf(model_->spec())) - 1))};
      }
      const PlacementPlan resident =
          ResidentPlan(model_->spec(), script, kKvTypes[Random(0, 3)], cuts, {"gpu0", "gpu0#1"});
      const Transcript expected = Expected(resident, script);
      for (int i = 0; i < 6 && !HasFailure(); ++i, ++plans) {
        PlacementPlan plan = resident;
        MoveToHost(rng_, model_->spec(), plan, !model_->PathOf(0).empty(), Random(1, 2) == 1);
        if (Random(1, 2) == 1) NoCpuBlocks(plan);
        exact += !HasCpuBlocks(plan);
        split += HasSplitBlocks(plan);
        ExpectTranscript(plan, script, expected, tolerance);
      }
    }
    std::cout << plans << " plans, " << exact << " of them without CPU blocks, " << split
              << " with split ones, seed " << kSeed
              << "\n";
  }

  // Everything that was for the CPU streams.
  void NoCpuBlocks(PlacementPlan& plan) {
    for (BlockPlacement& b : plan.blocks) {
      b.host_route_max_tokens = 0;
      b.cpu_shares.clear();
    }
    for (size_t s = 0; s < plan.stages.size(); ++s) {
      const RingBounds bounds = RingOf(model_->spec(), plan, static_cast<int>(s));
      plan.stages[s].stream_ring = std::max(plan.stages[s].stream_ring, bounds.least);
    }
  }

  // Long prompts in many passes.
  Script LongScript(int max_pass_tokens) {
    Script script;
    script.slots = 3;
    script.context = 512;
    script.max_pass_tokens = max_pass_tokens;
    for (int g = 0; g < 4; ++g) {
      Script::Generation one;
      for (int i = 0; i < 150 + 90 * g; ++i) {
        one.prompt.push_back(static_cast<TokenId>(Random(0, model_->spec().vocab - 1)));
      }
      one.tokens = 12;
      script.generations.push_back(std::move(one));
    }
    return script;
  }

  // Everything of `plan` in host memory; feed-forward blocks of odd layers are the CPU's for passes
  // of up to `host_route_max_tokens`.
  void AllToHost(PlacementPlan& plan, int host_route_max_tokens, int64_t more_ring) {
    const std::vector<Block> blocks = BlocksOf(model_->spec());
    for (BlockPlacement& b : plan.blocks) {
      b.home = Home::kHost;
      const Block& block = blocks[static_cast<size_t>(b.block)];
      if (block.kind == BlockKind::kFeedForward && block.layer % 2 == 1) {
        b.host_route_max_tokens = host_route_max_tokens;
      }
    }
    for (size_t s = 0; s < plan.stages.size(); ++s) {
      plan.stages[s].stream_ring =
          RingOf(model_->spec(), plan, static_cast<int>(s)).least + Bytes(more_ring);
    }
  }

  // All feed-forward blocks in host memory; in every pass the CPU computes their first `units`.
  void SplitAll(PlacementPlan& plan, int units) {
    for (size_t b = 2; b + 1 < plan.blocks.size(); b += 2) {
      plan.blocks[b].home = Home::kHost;
      plan.blocks[b].host_route_max_tokens = 0;
      plan.blocks[b].cpu_shares = {{plan.max_pass_tokens, units}};
    }
    for (size_t s = 0; s < plan.stages.size(); ++s) {
      plan.stages[s].stream_ring = RingOf(model_->spec(), plan, static_cast<int>(s)).least;
    }
  }

  std::mt19937_64 rng_{kSeed};
  std::shared_ptr<const Model> model_;
  static constexpr Tolerance kF16{2e-2f, true};
  static constexpr Tolerance kQuants{0.3f, false};
};

TEST_F(ThreeWayGpuTest, RandomPlansOfTheDemoModel) { CheckRandomPlans(kF16, absl::Seconds(60)); }

TEST_F(ThreeWayGpuTest, RandomPlansOfAQuantisedModel) {
  if (!std::filesystem::exists(kQuantised)) GTEST_SKIP() << kQuantised << " is not here";
  model_ = *Model::Open(kQuantised);
  CheckRandomPlans(kQuants, absl::Seconds(40));
}

TEST_F(ThreeWayGpuTest, TwoLogicalDevicesStreamEachThroughItsOwnRing) {
  for (const int pass : {7, 64, 100, 300}) {
    const Script script = LongScript(pass);
    const PlacementPlan resident =
        ResidentPlan(model_->spec(), script, DType::kF16, {8}, {"gpu0", "gpu0#1"});
    const Transcript expected = Expected(resident, script);
    for (const int64_t more : {int64_t{0}, int64_t{512} << 10}) {
      PlacementPlan plan = resident;
      AllToHost(plan, 0, more);
      ASSERT_NO_FATAL_FAILURE(ExpectTranscript(plan, script, expected, kF16));
    }
  }
}

// Only feed-forward blocks are at home in host memory, and all of them are the CPU's: no ring.
TEST_F(ThreeWayGpuTest, NothingStreamsWhereTheCpuComputesEveryPass) {
  for (const int pass : {1, 8, 100}) {
    const Script script = LongScript(std::max(3, pass));
    const PlacementPlan resident = ResidentPlan(model_->spec(), script, DType::kF16);
    const Transcript expected = Expected(resident, script);
    PlacementPlan plan = resident;
    for (size_t b = 2; b + 1 < plan.blocks.size(); b += 2) {
      plan.blocks[b].home = Home::kHost;
      plan.blocks[b].host_route_max_tokens = plan.max_pass_tokens;
    }
    ASSERT_EQ(RingOf(model_->spec(), plan, 0).all, Bytes(0));
    ASSERT_NO_FATAL_FAILURE(ExpectTranscript(plan, script, expected, kF16));
  }
}

// The ring holds the largest slice and no more.
TEST_F(ThreeWayGpuTest, EveryBlockSplitBetweenCpuAndGpu) {
  for (const int pass : {3, 8, 40, 100, 300}) {
    const Script script = LongScript(pass);
    const PlacementPlan resident = ResidentPlan(model_->spec(), script, DType::kF16);
    const Transcript expected = Expected(resident, script);
    for (const int units : {256, 512}) {
      PlacementPlan plan = resident;
      SplitAll(plan, units);
      ASSERT_NO_FATAL_FAILURE(ExpectTranscript(plan, script, expected, kF16));
    }
  }
}

TEST_F(ThreeWayGpuTest, RingTooSmallForAGroupIsRefusedAtLoad) {
  PlacementPlan plan = ResidentPlan(model_->spec(), LongScript(64), DType::kF16);
  AllToHost(plan, 0, -256);
  const absl::Status refused = Stages(plan).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << refused;
}

// Passes without outputs are not waited for: the next one's embedding, looked up by the CPU, must
// not reach the rows that the pass before still copies.
TEST_F(ThreeWayGpuTest, HostEmbeddingOfChunksThatNobodyWaitsFor) {
  const Script script = LongScript(400);
  const PlacementPlan resident = ResidentPlan(model_->spec(), script, DType::kF16);
  const Transcript expected = Expected(resident, script);
  for (int round = 0; round < 20 && !HasFailure(); ++round) {
    PlacementPlan plan = resident;
    plan.blocks[0].home = Home::kHost;
    const size_t last = plan.blocks.size() - 2;
    plan.blocks[last].home = Home::kHost;
    if (round % 2 == 1) plan.blocks[last].host_route_max_tokens = plan.max_pass_tokens;
    plan.stages[0].stream_ring = RingOf(model_->spec(), plan, 0).least;
    ASSERT_NO_FATAL_FAILURE(ExpectTranscript(plan, script, expected, kF16));
  }
}

TEST_F(ThreeWayGpuTest, StoppedInTheMiddleOfStreamedPasses) {
  for (int round = 0; round < 12; ++round) {
    Script script = LongScript(round % 2 == 0 ? 7 : 100);
    std::vector<int> cuts;
    if (round % 3 == 0) cuts = {8};
    PlacementPlan plan =
        ResidentPlan(model_->spec(), script, DType::kF16, cuts, {"gpu0", "gpu0#1"});
    AllToHost(plan, round % 4 == 0 ? 8 : 0, 0);
    if (round % 4 == 1) SplitAll(plan, 512);
    auto stages = Stages(plan);
    ASSERT_TRUE(stages.ok()) << stages.status();
    EngineOptions options;
    options.slots = script.slots;
    options.context = script.context;
    options.max_pass_tokens = script.max_pass_tokens;
    auto engine = Engine::Create(model_, *std::move(stages), options);
    ASSERT_TRUE(engine.ok()) << engine.status();
    std::thread client([&] {
      GenerateRequest request;
      request.tokens = script.generations[1].prompt;
      request.max_tokens = 200;
      request.ignore_end_of_generation = true;
      const auto summary = (*engine)->Generate(request, nullptr);
      if (!summary.ok()) {
        EXPECT_EQ(summary.status().code(), absl::StatusCode::kCancelled) << summary.status();
      }
    });
    absl::SleepFor(absl::Milliseconds(4 * round));
    const absl::Time begin = absl::Now();
    (*engine)->Stop();
    client.join();
    engine->reset();
    EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
  }
}

TEST_F(ThreeWayGpuTest, DestroyedWhileCopiesAreUnderWay) {
  for (int round = 0; round < 12; ++round) {
    const Script script = LongScript(round % 2 == 0 ? 20 : 200);
    PlacementPlan plan = ResidentPlan(model_->spec(), script, DType::kF16);
    AllToHost(plan, 0, round % 3 == 0 ? 4 << 20 : 0);
    if (round % 4 == 3) SplitAll(plan, 256);
    auto stages = Stages(plan);
    ASSERT_TRUE(stages.ok()) << stages.status();
    // Nobody waits for a pass without outputs.
    Pass pass;
    pass.id = 1;
    pass.tokens.assign(
        script.generations[0].prompt.begin(),
        script.generations[0].prompt.begin() + std::min(150, script.max_pass_tokens));
    pass.segments = {{0, 0, static_cast<int>(pass.tokens.size())}};
    const auto result = (*stages)->Run(pass, {}, absl::Now() + absl::Seconds(60));
    ASSERT_TRUE(result.ok()) << result.status();
    absl::SleepFor(absl::Microseconds(200 * round));
    const absl::Time begin = absl::Now();
    stages->reset();
    EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
  }
}

}  // namespace
}  // namespace millrace
