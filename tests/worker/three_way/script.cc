#include "tests/worker/three_way/script.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

struct Running {
  size_t generation;
  int slot;
  int position = 0;             // tokens in the cache
  std::vector<TokenId> tokens;  // prompt and what came after
};

class Runs {
 public:
  Runs(StageRunner& first, const Script& script, const Transcript* follow, int retries)
      : first_(first),
        script_(script),
        follow_(follow),
        retries_(retries),
        transcript_(script.generations.size()) {
    for (int s = 0; s < script.slots; ++s) free_.push_back(s);
  }

  absl::StatusOr<Transcript> All() {
    for (uint64_t id = 1;; ++id) {
      Admit();
      if (running_.empty()) return std::move(transcript_);
      MILLRACE_RETURN_IF_ERROR(OnePass(id));
    }
  }

 private:
  void Admit() {
    while (!free_.empty() && next_ < script_.generations.size()) {
      running_.push_back({next_, free_.front(), 0, script_.generations[next_].prompt});
      free_.pop_front();
      ++next_;
    }
  }

  // The last of `r`'s rows is sampled when it is the last token there is.
  void AddRows(Running& r, int rows, Pass& pass) {
    pass.segments.push_back({r.slot, r.position, rows});
    const auto from = r.tokens.begin() + r.position;
    pass.tokens.insert(pass.tokens.end(), from, from + rows);
    r.position += rows;
    if (r.position < static_cast<int>(r.tokens.size())) return;
    OutputRequest request;
    request.row = static_cast<int>(pass.tokens.size()) - 1;
    request.sampling.temperature = 0;
    pass.outputs.push_back(request);
    request.kind = OutputRequest::Kind::kLogits;
    pass.outputs.push_back(request);
    sampled_.push_back(&r);
  }

  absl::Status OnePass(uint64_t id) {
    Pass pass;
    pass.id = id;
    sampled_.clear();
    // Whose turn it is goes round, for passes smaller than the generations are many.
    std::rotate(running_.begin(), running_.begin() + static_cast<int64_t>(id % running_.size()),
                running_.end());
    for (const bool decoding : {true, false}) {
      for (Running& r : running_) {
        const int left = static_cast<int>(r.tokens.size()) - r.position;
        const int room = script_.max_pass_tokens - static_cast<int>(pass.tokens.size());
        const bool decodes = r.position > 0 && left == 1;
        if (decodes == decoding && room > 0 && !InPass(pass, r)) {
          AddRows(r, std::min(left, room), pass);
        }
      }
    }
    auto result = first_.Run(pass, {}, absl::Now() + absl::Seconds(60));
    while (absl::IsDataLoss(result.status()) && retries_-- > 0) {
      result = first_.Run(pass, {}, absl::Now() + absl::Seconds(60));
    }
    MILLRACE_RETURN_IF_ERROR(result.status());
    return Take(*result);
  }

  static bool InPass(const Pass& pass, const Running& r) {
    return std::any_of(pass.segments.begin(), pass.segments.end(),
                       [&](const PassSegment& s) { return s.slot == r.slot; });
  }

  absl::Status Take(const PassResult& result) {
    if (result.outputs.size() != 2 * sampled_.size()) return absl::InternalError("outputs missing");
    for (size_t i = 0; i < sampled_.size(); ++i) {
      Running& r = *sampled_[i];
      std::vector<SampledRow>& rows = transcript_[r.generation];
      rows.push_back({result.outputs[2 * i].token, result.outputs[2 * i + 1].logits});
      const TokenId next =
          follow_ != nullptr ? (*follow_)[r.generation][rows.size() - 1].token : rows.back().token;
      r.tokens.push_back(next);
    }
    std::erase_if(running_, [&](const Running& r) {
      const bool done = static_cast<int>(transcript_[r.generation].size()) >=
                        script_.generations[r.generation].tokens;
      if (done) free_.push_back(r.slot);
      return done;
    });
    return absl::OkStatus();
  }

  StageRunner& first_;
  const Script& script_;
  const Transcript* const follow_;
  int retries_;
  Transcript transcript_;
  std::deque<int> free_;
  size_t next_ = 0;
  std::vector<Running> running_;
  std::vector<Running*> sampled_;  // of the pass
};

std::string Place(size_t generation, size_t row) {
  return absl::StrCat("generation ", generation, ", token ", row);
}

}  // namespace

Script RandomScript(std::mt19937_64& rng, int64_t vocab) {
  const auto random = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(rng);
  };
  constexpr int kSizes[] = {1, 2, 3, 5, 8, 9, 16, 17, 64, 65, 100};
  Script script;
  script.max_pass_tokens = kSizes[random(0, static_cast<int>(std::size(kSizes)) - 1)];
  script.slots = random(1, 4);
  const int generations = random(1, 5);
  int rows = 90;  // of all prompts, about: keeps the script short
  for (int g = 0; g < generations; ++g) {
    Script::Generation one;
    const int prompt = random(1, std::max(1, std::min(rows, 2 * script.max_pass_tokens + 5)));
    rows -= prompt;
    for (int i = 0; i < prompt; ++i) {
      one.prompt.push_back(static_cast<TokenId>(random(0, static_cast<int>(vocab) - 1)));
    }
    one.tokens = random(1, 5);
    script.generations.push_back(std::move(one));
  }
  return script;
}

absl::StatusOr<Transcript> RunScript(StageRunner& first, const Script& script,
                                     const Transcript* follow, int retries) {
  return Runs(first, script, follow, retries).All();
}

std::string Difference(const Transcript& a, const Transcript& b) {
  for (size_t g = 0; g < a.size(); ++g) {
    if (g >= b.size() || a[g].size() != b[g].size()) return absl::StrCat("length of ", g);
    for (size_t i = 0; i < a[g].size(); ++i) {
      const SampledRow &x = a[g][i], &y = b[g][i];
      if (x.token != y.token) return absl::StrCat(Place(g, i), ": ", x.token, " and ", y.token);
      if (x.logits.size() != y.logits.size() ||
          std::memcmp(x.logits.data(), y.logits.data(), x.logits.size() * sizeof(float)) != 0) {
        return absl::StrCat(Place(g, i), ": logits differ in bits");
      }
    }
  }
  return "";
}

std::string Difference(const Transcript& a, const Transcript& b, float tolerance) {
  for (size_t g = 0; g < a.size(); ++g) {
    if (g >= b.size() || a[g].size() != b[g].size()) return absl::StrCat("length of ", g);
    for (size_t i = 0; i < a[g].size(); ++i) {
      const SampledRow &x = a[g][i], &y = b[g][i];
      if (x.logits.size() != y.logits.size()) return absl::StrCat(Place(g, i), ": logits' number");
      for (size_t k = 0; k < x.logits.size(); ++k) {
        const float apart = std::abs(x.logits[k] - y.logits[k]);
        if (apart <= tolerance) continue;  // and where one is NaN not
        return absl::StrCat(Place(g, i), ", logit ", k, ": ", x.logits[k], " and ", y.logits[k]);
      }
      std::vector<float> best = x.logits;
      std::nth_element(best.begin(), best.begin() + 1, best.end(), std::greater<float>());
      const float margin = best[0] - best[1];
      if (margin > 2 * tolerance && x.token != y.token) {
        return absl::StrCat(Place(g, i), ": ", x.token, " and ", y.token, " by ", margin);
      }
    }
  }
  return "";
}

}  // namespace millrace
