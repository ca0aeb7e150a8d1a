// The demo model against Hugging Face transformers in fp32, whole and cut into stages.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/fakes/plans.h"
#include "worker/engine.h"
#include "worker/local_stages.h"

namespace millrace {
namespace {

constexpr char kGoldens[] = "../shared/models/quill-7m-goldens.json";

struct Golden {
  std::string prompt;
  std::vector<TokenId> ids, greedy;
  std::vector<float> last_logits;
  std::vector<std::vector<TokenId>> top_ids;
  std::vector<std::vector<float>> top_logprobs;
};

std::vector<Golden> ReadGoldens() {
  std::ifstream in(kGoldens);
  std::vector<Golden> goldens;
  const nlohmann::json all = nlohmann::json::parse(in);
  for (const auto& c : all["cases"]) {
    goldens.push_back({c["prompt"], c["ids"], c["greedy"], c["last_logits"], c["top_ids"],
                       c["top_logprobs"]});
  }
  return goldens;
}

std::unique_ptr<Engine> MakeEngine(const std::shared_ptr<const Model>& model,
                                   const std::vector<int>& cuts, DType kv = DType::kF32,
                                   int max_pass_tokens = 512, int slots = 1) {
  const PlacementPlan plan = PlanWithCuts(model->spec(), cuts, 512, slots, kv, max_pass_tokens);
  StageOptions options;
  options.threads = 2;
  auto first = CreateLocalStages(model, plan, options);
  EXPECT_TRUE(first.ok()) << first.status();
  EngineOptions engine;
  engine.context = 512;
  engine.slots = slots;
  engine.max_pass_tokens = max_pass_tokens;
  auto result = Engine::Create(model, *std::move(first), engine);
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

float LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  float worst = a.size() == b.size() ? 0.0f : 1e9f;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

class GoldenTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kGoldens)) GTEST_SKIP() << kGoldens << " is not here";
    model_ = *Model::Open("");
    goldens_ = ReadGoldens();
    ASSERT_EQ(goldens_.size(), 4u);
  }

  void CheckGreedy(Engine& engine) {
    for (const Golden& g : goldens_) {
      GenerateRequest request;
      request.prompt = g.prompt;
      request.max_tokens = static_cast<int>(g.greedy.size());
      request.sampling.temperature = 0;
      request.ignore_end_of_generation = true;
      const auto summary = engine.Generate(request, nullptr);
      ASSERT_TRUE(summary.ok()) << summary.status();
      EXPECT_EQ(summary->prompt_tokens, g.ids) << g.prompt;
      EXPECT_EQ(summary->tokens, g.greedy) << g.prompt;
    }
  }

  void CheckLogits(Engine& engine, float tolerance) {
    for (const Golden& g : goldens_) {
      const auto logits = engine.Logits(g.ids);
      ASSERT_TRUE(logits.ok()) << logits.status();
      EXPECT_LT(LargestDifference(*logits, g.last_logits), tolerance) << g.prompt;
    }
  }

  std::shared_ptr<const Model> model_;
  std::vector<Golden> goldens_;
};

TEST_F(GoldenTest, LogitsAndGreedyTokensInOneStage) {
  const auto engine = MakeEngine(model_, {});
  CheckLogits(*engine, 0.02f);
  CheckGreedy(*engine);
}

TEST_F(GoldenTest, TwoAndThreeStagesAlsoCutInsideALayer) {
  for (const std::vector<int>& cuts :
       {std::vector<int>{9}, std::vector<int>{6}, std::vector<int>{1}, std::vector<int>{17},
        std::vector<int>{4, 11}, std::vector<int>{1, 2, 3, 16, 17}}) {
    const auto engine = MakeEngine(model_, cuts);
    CheckLogits(*engine, 0.02f);
    CheckGreedy(*engine);
  }
}

TEST_F(GoldenTest, SmallChunksGiveTheSameAsWholePrompts) {
  for (int chunk : {1, 3}) CheckLogits(*MakeEngine(model_, {5}, DType::kF32, chunk), 0.02f);
}

TEST_F(GoldenTest, NarrowKvCachesStayClose) {
  CheckLogits(*MakeEngine(model_, {}, DType::kF16), 0.02f);
  CheckLogits(*MakeEngine(model_, {}, DType::kBF16), 0.25f);
  CheckLogits(*MakeEngine(model_, {}, DType::kQ8_0), 0.25f);
}

TEST_F(GoldenTest, LogProbabilitiesAtEveryPosition) {
  const auto engine = MakeEngine(model_, {7});
  const Golden& g = goldens_.back();
  const auto values = engine->LogProbs(g.ids, 1);
  ASSERT_TRUE(values.ok()) << values.status();
  ASSERT_EQ(values->size(), g.ids.size() - 1);
  int checked = 0;
  for (size_t p = 0; p + 1 < g.ids.size(); ++p) {
    for (size_t k = 0; k < g.top_ids[p].size(); ++k) {
      if (g.top_ids[p][k] != g.ids[p + 1]) continue;
      EXPECT_NEAR((*values)[p], g.top_logprobs[p][k], 0.02);
      ++checked;
    }
  }
  EXPECT_GT(checked, 0);
}

TEST_F(GoldenTest, SequencesTogetherGiveTheSameTokensAsAlone) {
  const auto engine = MakeEngine(model_, {9}, DType::kF32, 16, 3);
  std::vector<std::thread> clients;
  for (int round = 0; round < 8; ++round) {
    clients.emplace_back([&, round] {
      const Golden& g = goldens_[round % 4];
      GenerateRequest request;
      request.tokens = g.ids;
      request.max_tokens = 24;
      request.sampling.temperature = 0;
      request.ignore_end_of_generation = true;
      const auto summary = engine->Generate(request, nullptr);
      ASSERT_TRUE(summary.ok()) << summary.status();
      EXPECT_EQ(summary->tokens,
                std::vector<TokenId>(g.greedy.begin(), g.greedy.begin() + 24));
    });
  }
  for (std::thread& t : clients) t.join();
}

}  // namespace
}  // namespace millrace
