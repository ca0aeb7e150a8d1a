// Sampling on a GPU against a sort of the whole vocabulary.
#include "kernels/sample_cuda.h"

#include <algorithm>
#include <limits>

#include "kernels/cuda/event.h"
#include "kernels/cuda/graph.h"
#include "proto/status_macros.h"
#include "tests/kernels/device_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace millrace {
namespace {

using cuda::SampleMode;
using cuda::SampleRequest;
using cuda::SampleResult;

// What the result of one row should be; sorted candidates as many as the request wants.
struct Expected {
  double log_sum_exp;
  float target_logit;
  std::vector<Candidate> best;
};

Expected ExpectedOf(const float* row, int64_t vocab, const SampleRequest& request,
                    const std::vector<int32_t>& recent) {
  Expected e;
  const double peak = *std::max_element(row, row + vocab);
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp(row[i] - peak);
  e.log_sum_exp = peak + std::log(sum);
  e.target_logit = request.target >= 0 && request.target < vocab ? row[request.target] : 0.0f;
  std::vector<bool> seen(static_cast<size_t>(vocab));
  for (int i = 0; i < request.recent_count; ++i) {
    const int32_t token = recent[static_cast<size_t>(request.recent_begin + i)];
    if (token >= 0 && token < vocab) seen[static_cast<size_t>(token)] = true;
  }
  for (int64_t i = 0; i < vocab; ++i) {
    float v = row[i];
    if (seen[static_cast<size_t>(i)]) v = v > 0 ? v / request.penalty : v * request.penalty;
    e.best.push_back({static_cast<int32_t>(i), v, row[i]});
  }
  const int k = request.mode == SampleMode::kNone     ? 0
                : request.mode == SampleMode::kGreedy ? 1
                                                      : std::clamp(request.k, 1, kMaxCandidates);
  const size_t keep = std::min(static_cast<size_t>(k), e.best.size());
  std::partial_sort(e.best.begin(), e.best.begin() + static_cast<std::ptrdiff_t>(keep),
                    e.best.end(), [](const Candidate& a, const Candidate& b) {
                      return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
                    });
  e.best.resize(keep);
  return e;
}

enum class Kind { kNormal, kTies, kEqual, kWide, kMasked, kAscending, kDescending };
constexpr Kind kKinds[] = {Kind::kNormal, Kind::kTies,      Kind::kEqual,     Kind::kWide,
                           Kind::kMasked, Kind::kAscending, Kind::kDescending};

class SampleCudaTest : public DeviceTest {
 protected:
  std::vector<float> Logits(Kind kind, int64_t vocab) {
    std::vector<float> v = RandomFloats(static_cast<size_t>(vocab), rng_, 4.0f);
    for (size_t i = 0; i < v.size(); ++i) {
      switch (kind) {
        case Kind::kNormal:
          break;
        case Kind::kTies:
          v[i] = std::round(v[i] / 4);
          break;  // zeros of both signs among them
        case Kind::kEqual:
          v[i] = -2.5f;
          break;
        case Kind::kWide:
          v[i] *= std::pow(10.0f, static_cast<float>(Random(-30, 30)));
          break;
        case Kind::kMasked:
          if (rng_() % 3 != 0) v[i] = -std::numeric_limits<float>::infinity();
          break;
        case Kind::kAscending:
          v[i] = static_cast<float>(i) * 1e-3f;
          break;
        case Kind::kDescending:
          v[i] = static_cast<float>(i) * -1e-3f;
          break;
      }
    }
    if (kind == Kind::kMasked) v[v.size() / 2] = 1.0f;  // one is allowed
    return v;
  }

  SampleRequest RandomRequest(int64_t vocab, std::vector<int32_t>& recent) {
    SampleRequest r;
    r.mode = static_cast<SampleMode>(Random(0, 2));
    const int32_t ks[] = {-3, 1, 2, 40, 127, 128, 4000};
    r.k = ks[rng_() % 7];
    const float penalties[] = {1.0f, 1.1f, 1.7f, 0.5f};
    r.penalty = penalties[rng_() % 4];
    r.target = static_cast<int32_t>(Random(-1, vocab));
    r.recent_begin = static_cast<int32_t>(recent.size());
    r.recent_count = static_cast<int32_t>(Random(0, 1) * Random(0, 100));
    for (int i = 0; i < r.recent_count; ++i) {
      recent.push_back(static_cast<int32_t>(Random(-2, vocab + 1)));
    }
    return r;
  }

  static void ExpectResult(const SampleResult& got, const Expected& want, const std::string& what) {
    EXPECT_LE(std::abs(got.log_sum_exp - want.log_sum_exp),
              1e-6 * std::max(1.0, std::abs(want.log_sum_exp)))
        << what << ": " << got.log_sum_exp << " for " << want.log_sum_exp;
    EXPECT_EQ(got.target_logit, want.target_logit) << what;
    ASSERT_EQ(got.count, static_cast<int32_t>(want.best.size())) << what;
    for (size_t i = 0; i < want.best.size(); ++i) {
      ASSERT_EQ(got.best[i].token, want.best[i].token) << what << ", candidate " << i;
      ASSERT_EQ(got.best[i].logit, want.best[i].logit) << what << ", candidate " << i;
      ASSERT_EQ(got.best[i].unmodified, want.best[i].unmodified) << what << ", candidate " << i;
    }
  }

  void Check(const std::vector<float>& logits, int64_t vocab,
             const std::vector<SampleRequest>& requests, const std::vector<int32_t>& recent) {
    const int64_t rows = static_cast<int64_t>(requests.size());
    const auto d_logits = Upload(logits);
    const auto d_requests = Upload(requests);
    const auto d_recent = Upload(recent);
    const auto workspace =
        Poisoned<uint8_t>(static_cast<size_t>(cuda::SampleWorkspaceBytes(rows, vocab)));
    const auto d_results = Poisoned<SampleResult>(requests.size());
    auto sample = [&] {
      return cuda::SampleRows(d_logits.as(), rows, vocab, d_requests.as(), d_recent.as(),
                              workspace.as<void>(), d_results.as(), stream());
    };
    const absl::Status status = sample();
    ASSERT_TRUE(status.ok()) << status;
    const std::vector<SampleResult> got = Download(d_results);
    for (size_t r = 0; r < requests.size(); ++r) {
      const Expected want =
          ExpectedOf(&logits[r * static_cast<size_t>(vocab)], vocab, requests[r], recent);
      ASSERT_NO_FATAL_FAILURE(ExpectResult(
          got[r], want,
          absl::StrCat("vocab ", vocab, " row ", r, " mode ", static_cast<int>(requests[r].mode),
                       " k ", requests[r].k, " penalty ", requests[r].penalty, " recent ",
                       requests[r].recent_count)));
    }
    ASSERT_TRUE(sample().ok());
    const std::vector<SampleResult> again = Download(d_results);
    EXPECT_EQ(std::memcmp(got.data(), again.data(), got.size() * sizeof(SampleResult)), 0);
    const std::vector<float> after = Download(d_logits);
    EXPECT_EQ(std::memcmp(after.data(), logits.data(), logits.size() * sizeof(float)), 0);
    (void)Download(workspace);  // checks its guard
  }
};

TEST_F(SampleCudaTest, AgreesWithSortOverVocabularies) {
  for (int64_t vocab : {1, 5, 127, 128, 129, 2047, 2048, 2049, 4100, 50257, 128256, 262144}) {
    for (int round = 0; round < 3; ++round) {
      std::vector<float> logits;
      std::vector<SampleRequest> requests;
      std::vector<int32_t> recent = {0};
      for (Kind kind : kKinds) {
        const std::vector<float> row = Logits(kind, vocab);
        logits.insert(logits.end(), row.begin(), row.end());
        requests.push_back(RandomRequest(vocab, recent));
      }
      ASSERT_NO_FATAL_FAILURE(Check(logits, vocab, requests, recent));
    }
  }
}

TEST_F(SampleCudaTest, EveryModeOverEveryKindOfLogits) {
  constexpr int64_t kVocab = 32003;
  for (Kind kind : kKinds) {
    std::vector<float> logits;
    std::vector<SampleRequest> requests;
    std::vector<int32_t> recent;
    for (int mode = 0; mode < 3; ++mode) {
      const std::vector<float> row = Logits(kind, kVocab);
      logits.insert(logits.end(), row.begin(), row.end());
      SampleRequest r;
      r.mode = static_cast<SampleMode>(mode);
      r.k = kMaxCandidates;
      r.penalty = 1.3f;
      r.recent_begin = static_cast<int32_t>(recent.size());
      r.recent_count = 200;
      // The best tokens are the recent ones, so that the penalty changes the order.
      SampleRequest plain;
      plain.mode = SampleMode::kTopK;
      plain.k = 100;
      for (const Candidate& c : ExpectedOf(row.data(), kVocab, plain, {}).best) {
        recent.push_back(c.token);
        recent.push_back(static_cast<int32_t>(Random(0, kVocab - 1)));
      }
      requests.push_back(r);
    }
    ASSERT_NO_FATAL_FAILURE(Check(logits, kVocab, requests, recent));
  }
}

TEST_F(SampleCudaTest, ManyRecentTokens) {
  constexpr int64_t kVocab = 128256;
  std::vector<int32_t> recent(65536);
  for (int32_t& t : recent) t = static_cast<int32_t>(Random(0, kVocab - 1));
  SampleRequest r;
  r.mode = SampleMode::kTopK;
  r.k = 50;
  r.penalty = 1.5f;
  r.recent_count = 65536;
  ASSERT_NO_FATAL_FAILURE(Check(Logits(Kind::kNormal, kVocab), kVocab, {r}, recent));
}

TEST_F(SampleCudaTest, OneGraphServesChangingRequests) {
  constexpr int64_t kVocab = 50257;
  constexpr size_t kRows = 4;
  const auto logits = Poisoned<float>(kRows * kVocab);
  const auto requests = Upload(std::vector<SampleRequest>(kRows));
  const auto recent = Poisoned<int32_t>(1000);
  const auto workspace =
      Poisoned<uint8_t>(static_cast<size_t>(cuda::SampleWorkspaceBytes(kRows, kVocab)));
  const auto results = Poisoned<SampleResult>(kRows);
  Overwrite(logits, Logits(Kind::kNormal, kRows * kVocab));
  auto issue = [&] {
    return cuda::SampleRows(logits.as(), kRows, kVocab, requests.as(), recent.as(),
                            workspace.as<void>(), results.as(), stream());
  };
  ASSERT_TRUE(issue().ok());
  Wait();
  auto graph = cuda::Graph::Capture(stream(), issue);
  ASSERT_TRUE(graph.ok()) << graph.status();
  for (int i = 0; i < 10; ++i) {
    const std::vector<float> values = Logits(Kind::kNormal, kRows * kVocab);
    std::vector<SampleRequest> wanted;
    std::vector<int32_t> seen = {0};
    for (size_t r = 0; r < kRows; ++r) wanted.push_back(RandomRequest(kVocab, seen));
    Overwrite(logits, values);
    Overwrite(requests, wanted);
    Overwrite(recent, seen);
    ASSERT_TRUE(graph->Launch(stream()).ok());
    const std::vector<SampleResult> got = Download(results);
    for (size_t r = 0; r < kRows; ++r) {
      const Expected want = ExpectedOf(&values[r * kVocab], kVocab, wanted[r], seen);
      ASSERT_NO_FATAL_FAILURE(ExpectResult(got[r], want, absl::StrCat("replay ", i, " row ", r)));
    }
  }
}

// Prints the time of a row; the bound only catches a different order of magnitude.
TEST_F(SampleCudaTest, TimeOfOneRow) {
  constexpr int64_t kVocab = 128256;
  constexpr int kRuns = 200;
  const auto logits = Upload(Logits(Kind::kNormal, kVocab));
  const auto recent = Upload(std::vector<int32_t>(64, 7));
  const auto workspace =
      Poisoned<uint8_t>(static_cast<size_t>(cuda::SampleWorkspaceBytes(1, kVocab)));
  const auto results = Poisoned<SampleResult>(1);
  auto start = cuda::Event::Create(device_, cuda::Event::Timing::kOn);
  auto end = cuda::Event::Create(device_, cuda::Event::Timing::kOn);
  ASSERT_TRUE(start.ok() && end.ok());
  for (SampleMode mode : {SampleMode::kNone, SampleMode::kGreedy, SampleMode::kTopK}) {
    SampleRequest request;
    request.mode = mode;
    request.k = 40;
    request.penalty = 1.1f;
    request.recent_count = 64;
    const auto requests = Upload(std::vector<SampleRequest>{request});
    auto issue = [&]() -> absl::Status {
      for (int i = 0; i < kRuns; ++i) {
        MILLRACE_RETURN_IF_ERROR(cuda::SampleRows(logits.as(), 1, kVocab, requests.as(),
                                                  recent.as(), workspace.as<void>(), results.as(),
                                                  stream()));
      }
      return absl::OkStatus();
    };
    ASSERT_TRUE(issue().ok());
    Wait();
    auto graph = cuda::Graph::Capture(stream(), issue);
    ASSERT_TRUE(graph.ok()) << graph.status();
    ASSERT_TRUE(graph->Launch(stream()).ok());
    ASSERT_TRUE(start->Record(stream()).ok());
    ASSERT_TRUE(graph->Launch(stream()).ok());
    ASSERT_TRUE(end->Record(stream()).ok());
    Wait();
    const auto took = end->Since(*start);
    ASSERT_TRUE(took.ok()) << took.status();
    const double each = absl::ToDoubleMicroseconds(*took) / kRuns;
    std::printf("mode %d: %.2f us for one row of %lld\n", static_cast<int>(mode), each,
                static_cast<long long>(kVocab));
    EXPECT_LT(each, 400);
  }
}

}  // namespace
}  // namespace millrace
