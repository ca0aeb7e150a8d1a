#include "worker/sampler.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

// SplitMix64's finaliser (Steele, Lea, Flood 2014): two rounds over seed and index.
uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

// Uniform in [0, 1) with 53 bits.
double Uniform(uint64_t seed, uint64_t index) {
  const uint64_t bits = Mix(Mix(seed + 0x9e3779b97f4a7c15ull) + (index + 1) * 0x9e3779b97f4a7c15ull);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

bool Better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// Divides positive and multiplies negative logits of tokens seen recently (Keskar et al., CTRL).
void Penalise(std::vector<Candidate>& all, const SamplingParams& p,
              absl::Span<const TokenId> recent) {
  for (TokenId t : PenalisedTokens(p, recent)) {
    if (t < 0 || static_cast<size_t>(t) >= all.size()) continue;
    float& logit = all[static_cast<size_t>(t)].logit;
    logit = logit > 0 ? logit / p.repetition_penalty : logit * p.repetition_penalty;
  }
}

// Keeps the best `top_k`, or all where that is off, best first.
void KeepBest(std::vector<Candidate>& all, int top_k) {
  const bool whole = top_k <= 0 || static_cast<size_t>(top_k) >= all.size();
  if (!whole) {
    std::nth_element(all.begin(), all.begin() + top_k, all.end(), Better);
    all.resize(static_cast<size_t>(top_k));
  }
  std::sort(all.begin(), all.end(), Better);
}

// What top-p and min-p leave of sorted candidates.
absl::Span<const Candidate> Truncate(absl::Span<const Candidate> all, const SamplingParams& p) {
  const double peak = all.front().logit;
  if (p.top_p < 1.0f) {
    double total = 0;
    for (const Candidate& c : all) total += std::exp(c.logit - peak);
    double sum = 0;
    size_t keep = 0;
    while (keep < all.size() && sum < p.top_p * total) sum += std::exp(all[keep++].logit - peak);
    all = all.first(std::max<size_t>(1, keep));
  }
  if (p.min_p > 0) {
    size_t keep = 1;
    while (keep < all.size() && std::exp(all[keep].logit - peak) >= p.min_p) ++keep;
    all = all.first(keep);
  }
  return all;
}

// Draws one of sorted candidates that are all allowed.
const Candidate& Draw(absl::Span<const Candidate> all, const SamplingParams& params,
                      uint64_t index) {
  const double peak = all.front().logit;
  std::vector<double> weights;
  double total = 0;
  for (const Candidate& c : all) {
    weights.push_back(std::exp((c.logit - peak) / params.temperature));
    total += weights.back();
  }
  double left = Uniform(params.seed, index) * total;
  size_t chosen = 0;
  while (chosen + 1 < all.size() && left >= weights[chosen]) left -= weights[chosen++];
  return all[chosen];
}

}  // namespace

double LogSumExp(absl::Span<const float> logits) {
  const float peak = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float v : logits) sum += std::exp(static_cast<double>(v) - peak);
  return peak + std::log(sum);
}

double LogProbability(absl::Span<const float> logits, TokenId token) {
  return logits[static_cast<size_t>(token)] - LogSumExp(logits);
}

std::vector<TokenId> PenalisedTokens(const SamplingParams& p, absl::Span<const TokenId> recent) {
  if (p.repetition_penalty == 1.0f || p.repetition_window == 0) return {};
  const size_t window = std::min(recent.size(), static_cast<size_t>(p.repetition_window));
  std::vector<TokenId> seen(recent.end() - static_cast<std::ptrdiff_t>(window), recent.end());
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  return seen;
}

Sampled SampleFromCandidates(absl::Span<const Candidate> best, double log_sum_exp,
                             const SamplingParams& params, uint64_t index) {
  const Candidate& chosen =
      params.temperature <= 0 ? best.front() : Draw(Truncate(best, params), params, index);
  return {chosen.token, static_cast<float>(chosen.unmodified - log_sum_exp)};
}

Sampled Sample(absl::Span<const float> logits, const SamplingParams& params,
               absl::Span<const TokenId> recent, uint64_t index) {
  std::vector<Candidate> all(logits.size());
  for (size_t i = 0; i < all.size(); ++i) {
    all[i] = {static_cast<TokenId>(i), logits[i], logits[i]};
  }
  Penalise(all, params, recent);
  if (params.temperature <= 0) {
    all = {*std::min_element(all.begin(), all.end(), Better)};
  } else {
    KeepBest(all, params.top_k);
  }
  return SampleFromCandidates(all, LogSumExp(logits), params, index);
}

absl::Status CheckSampling(const SamplingParams& p) {
  auto bad = [](absl::string_view name, double value, absl::string_view range) {
    return absl::InvalidArgumentError(absl::StrCat(name, " is ", value, ": ", range));
  };
  if (!(p.temperature >= 0 && p.temperature <= 100)) {
    return bad("temperature", p.temperature, "0 to 100");
  }
  if (p.top_k < 0) return bad("top-k", p.top_k, "0 (off) or more");
  if (!(p.top_p > 0 && p.top_p <= 1)) return bad("top-p", p.top_p, "above 0, at most 1 (off)");
  if (!(p.min_p >= 0 && p.min_p <= 1)) return bad("min-p", p.min_p, "0 (off) to 1");
  if (!(p.repetition_penalty > 0 && p.repetition_penalty <= 100)) {
    return bad("repetition penalty", p.repetition_penalty, "above 0, 1 is off");
  }
  if (p.repetition_window < 0 || p.repetition_window > 65536) {
    return bad("repetition window", p.repetition_window, "0 (off) to 65536");
  }
  return absl::OkStatus();
}

}  // namespace millrace
