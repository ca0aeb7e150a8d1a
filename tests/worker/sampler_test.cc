#include "worker/sampler.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace millrace {
namespace {

SamplingParams Plain(float temperature) {
  SamplingParams p;
  p.temperature = temperature;
  p.top_k = 0;
  p.top_p = 1;
  p.min_p = 0;
  return p;
}

TEST(SamplerTest, GreedyTakesTheLowestIdAmongEquals) {
  EXPECT_EQ(Sample({1.f, 3.f, 3.f, 2.f}, Plain(0), {}, 0).token, 1);
}

TEST(SamplerTest, PenaltyChangesTheChoiceButNotTheLogProbability) {
  const std::vector<float> logits = {2.f, 1.5f};
  SamplingParams p = Plain(0);
  p.repetition_penalty = 2;
  const Sampled s = Sample(logits, p, {0}, 0);
  EXPECT_EQ(s.token, 1);
  EXPECT_NEAR(s.log_prob, -std::log1p(std::exp(0.5)), 1e-6);
}

TEST(SamplerTest, DrawsFollowTheProbabilities) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  std::vector<int> count(3);
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    ++count[static_cast<size_t>(Sample(logits, Plain(1), {}, static_cast<uint64_t>(i)).token)];
  }
  // Five standard deviations of a binomial are at most 0.018.
  EXPECT_NEAR(count[0] / double{kDraws}, 0.5, 0.018);
  EXPECT_NEAR(count[1] / double{kDraws}, 0.3, 0.018);
  EXPECT_NEAR(count[2] / double{kDraws}, 0.2, 0.018);
}

TEST(SamplerTest, EachCutLeavesOnlyTheBest) {
  const std::vector<float> logits = {std::log(0.2f), std::log(0.5f), std::log(0.3f)};
  SamplingParams k = Plain(1), top = Plain(1), min = Plain(1);
  k.top_k = 1;
  top.top_p = 0.4f;
  min.min_p = 0.7f;
  for (uint64_t i = 0; i < 200; ++i) {
    EXPECT_EQ(Sample(logits, k, {}, i).token, 1);
    EXPECT_EQ(Sample(logits, top, {}, i).token, 1);
    EXPECT_EQ(Sample(logits, min, {}, i).token, 1);
  }
}

TEST(SamplerTest, RefusesParametersOutOfRange) {
  SamplingParams p;
  EXPECT_TRUE(CheckSampling(p).ok());
  p.top_p = 0;
  EXPECT_EQ(CheckSampling(p).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace millrace
