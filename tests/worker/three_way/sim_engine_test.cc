// Engines on simulated devices: stages on threads of their own, each with its ring and its copy
// thread, clients that come and go.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "absl/time/clock.h"
#include "tests/fakes/sim_backend.h"
#include "tests/worker/three_way/random_plan.h"
#include "worker/engine.h"
#include "worker/local_stages.h"

namespace millrace {
namespace {

class SimEngineTest : public ::testing::Test {
 protected:
  SimEngineTest() {
    script_.slots = 3;
    script_.context = 128;
    script_.max_pass_tokens = 24;
  }

  // Two stages; `host`: feed-forward blocks, attention of layer 1 and the head are at home in host
  // memory, and the first stage's feed-forward blocks are the CPU's for passes of up to 4.
  std::unique_ptr<Engine> MakeEngine(bool host) {
    PlacementPlan plan =
        ResidentPlan(model_->spec(), script_, DType::kF32, {9}, {"gpu0", "gpu0#1"});
    for (BlockPlacement& b : plan.blocks) {
      const bool feed_forward = b.block > 0 && b.block % 2 == 0;
      if (!host || !(feed_forward || b.block == 3 || b.block == 17)) continue;
      b.home = Home::kHost;
      if (feed_forward && b.block < 9) b.host_route_max_tokens = 4;
    }
    for (int s = 0; s < 2; ++s) {
      plan.stages[static_cast<size_t>(s)].stream_ring = RingOf(model_->spec(), plan, s).least;
    }
    SimBackendSpec spec;
    spec.drive = WeightStreamOptions::Drive::kThread;
    spec.max_queued_copies = 32;
    StageOptions options;
    options.threads = 1;
    options.make_gpu_backend = SimBackends(spec);
    auto stages = CreateLocalStages(model_, plan, options);
    EXPECT_TRUE(stages.ok()) << stages.status();
    EngineOptions engine_options;
    engine_options.slots = script_.slots;
    engine_options.context = script_.context;
    engine_options.max_pass_tokens = script_.max_pass_tokens;
    auto engine = Engine::Create(model_, *std::move(stages), engine_options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }

  GenerateRequest Request(int client) const {
    GenerateRequest request;
    std::mt19937_64 rng(static_cast<uint64_t>(client));
    for (int i = 0; i < 3 + 11 * client; ++i) {
      request.tokens.push_back(
          static_cast<TokenId>(rng() % static_cast<uint64_t>(model_->spec().vocab)));
    }
    request.max_tokens = 12;
    request.sampling.temperature = 0;
    request.ignore_end_of_generation = true;
    return request;
  }

  const std::shared_ptr<const Model> model_ = *Model::Open("");
  Script script_;
};

TEST_F(SimEngineTest, ClientsTogetherGetTheTokensOfTheResidentRun) {
  constexpr int kClients = 6;
  std::vector<std::vector<TokenId>> expected;
  {
    const auto resident = MakeEngine(false);
    for (int c = 0; c < kClients; ++c) {
      const auto summary = resident->Generate(Request(c), nullptr);
      ASSERT_TRUE(summary.ok()) << summary.status();
      expected.push_back(summary->tokens);
    }
  }
  const auto engine = MakeEngine(true);
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([&, c] {
      const auto summary = engine->Generate(Request(c), nullptr);
      ASSERT_TRUE(summary.ok()) << summary.status();
      EXPECT_EQ(summary->tokens, expected[static_cast<size_t>(c)]) << c;
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST_F(SimEngineTest, StoppedInTheMiddleOfStreamedPasses) {
  for (int round = 0; round < 6; ++round) {
    auto engine = MakeEngine(true);
    std::thread client([&] {
      GenerateRequest request = Request(5);
      request.max_tokens = 60;
      const auto summary = engine->Generate(request, nullptr);
      if (!summary.ok()) {
        EXPECT_EQ(summary.status().code(), absl::StatusCode::kCancelled) << summary.status();
      }
    });
    absl::SleepFor(absl::Milliseconds(7 * round));
    const absl::Time begin = absl::Now();
    engine->Stop();
    client.join();
    engine.reset();
    EXPECT_LT(absl::Now() - begin, absl::Seconds(20));
  }
}

}  // namespace
}  // namespace millrace
