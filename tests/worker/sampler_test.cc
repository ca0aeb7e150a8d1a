#include "worker/sampler.h"

#include <algorithm>
#include <cmath>
#include <random>
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

// What a device gives: all of the vocabulary penalised and sorted, the k best of it.
std::vector<Candidate> BestOf(const std::vector<float>& logits, const SamplingParams& p,
                              const std::vector<TokenId>& recent, int k) {
  std::vector<Candidate> all;
  const std::vector<TokenId> penalised = PenalisedTokens(p, recent);
  for (size_t i = 0; i < logits.size(); ++i) {
    const TokenId token = static_cast<TokenId>(i);
    float v = logits[i];
    if (std::find(penalised.begin(), penalised.end(), token) != penalised.end()) {
      v = v > 0 ? v / p.repetition_penalty : v * p.repetition_penalty;
    }
    all.push_back({token, v, logits[i]});
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  all.resize(std::min(all.size(), static_cast<size_t>(k)));
  return all;
}

TEST(SamplerTest, CandidatesGiveWhatTheWholeVocabularyGives) {
  std::mt19937_64 rng(5);
  std::normal_distribution<float> normal(0, 3);
  for (int trial = 0; trial < 2000; ++trial) {
    SamplingParams p;
    p.temperature = trial % 5 == 0 ? 0.0f : 0.25f * static_cast<float>(trial % 7 + 1);
    p.top_k = 1 + static_cast<int>(rng() % kMaxCandidates);
    p.top_p = trial % 3 == 0 ? 1.0f : 0.9f;
    p.min_p = trial % 4 == 0 ? 0.0f : 0.02f;
    p.repetition_penalty = trial % 2 == 0 ? 1.0f : 1.3f;
    p.repetition_window = static_cast<int>(rng() % 40);
    p.seed = rng();
    std::vector<float> logits(1 + rng() % 300);
    for (float& v : logits) {
      v = normal(rng);
      if (trial % 6 < 3) v = std::round(v);  // ties, zeros of both signs
    }
    std::vector<TokenId> recent(rng() % 60);
    for (TokenId& t : recent) t = static_cast<TokenId>(rng() % logits.size());
    const std::vector<Candidate> best = BestOf(logits, p, recent, p.top_k);
    const Sampled want = Sample(logits, p, recent, static_cast<uint64_t>(trial));
    const Sampled got =
        SampleFromCandidates(best, LogSumExp(logits), p, static_cast<uint64_t>(trial));
    EXPECT_EQ(got.token, want.token) << trial;
    EXPECT_EQ(got.log_prob, want.log_prob) << trial;
    EXPECT_EQ(want.log_prob, static_cast<float>(LogProbability(logits, want.token))) << trial;
  }
}

TEST(SamplerTest, PenalisedTokensAreDistinctAndInTheWindow) {
  SamplingParams p;
  EXPECT_TRUE(PenalisedTokens(p, {1, 2}).empty());
  p.repetition_penalty = 1.1f;
  p.repetition_window = 4;
  EXPECT_EQ(PenalisedTokens(p, {9, 7, 3, 7, 5}), (std::vector<TokenId>{3, 5, 7}));
  EXPECT_EQ(PenalisedTokens(p, {}), std::vector<TokenId>{});
}

TEST(SamplerTest, RefusesParametersOutOfRange) {
  SamplingParams p;
  EXPECT_TRUE(CheckSampling(p).ok());
  p.top_p = 0;
  EXPECT_EQ(CheckSampling(p).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace millrace
