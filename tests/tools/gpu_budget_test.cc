// A GPU's budget as the driver counts it: a synthetic model of several hundred MiB is loaded and run
// in a budget of exactly what its plan predicts, while another thread asks the driver how much of the
// device is taken. Other processes must not allocate on the device meanwhile. Needs a GPU.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/cuda/driver_memory.h"
#include "planner/solver.h"
#include "tools/local_runtime.h"
#include "tools/synth.h"
#include "worker/engine.h"
#include "worker/local_stages.h"

namespace millrace {
namespace {

constexpr int kContext = 5000, kSlots = 2;

// Asks the driver again and again from a thread of its own.
class Watcher {
 public:
  Watcher(std::string pci, Bytes free_before)
      : pci_(std::move(pci)), free_before_(free_before), thread_([this] { Loop(); }) {}
  ~Watcher() { Stop(); }

  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  // After Stop.
  Bytes peak() const { return free_before_ - least_free_; }
  int polls() const { return polls_; }

 private:
  void Loop() {
    while (!stop_) {
      const std::optional<Bytes> free = cuda::DriverFreeMemory(pci_);
      if (free.has_value()) {
        least_free_ = std::min(least_free_, *free);
        ++polls_;
      }
      absl::SleepFor(absl::Milliseconds(1));
    }
  }

  const std::string pci_;
  const Bytes free_before_;
  Bytes least_free_ = free_before_;
  int polls_ = 0;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class GpuBudgetTest : public ::testing::Test {
 protected:
  struct Gpu {
    std::string pci;
    Bytes free_before;  // before this process had a context there
  };

  // Once for all tests: a context, once made, stays.
  static void SetUpTestSuite() {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
    for (int i = 0; i < count; ++i) {
      char pci[32] = {};
      if (cudaDeviceGetPCIBusId(pci, sizeof(pci), i) != cudaSuccess) continue;
      const std::optional<Bytes> free = cuda::DriverFreeMemory(pci);
      if (free.has_value()) gpus_[absl::StrCat("gpu", i)] = {pci, *free};
    }
    if (gpus_.empty()) return;
    path_ = ::testing::TempDir() + "/millrace-gpu-budget.gguf";
    SynthOptions synth;
    synth.shape = "llama-3.2-1b";
    synth.quant = "Q4_K_M";
    synth.path = path_;
    ASSERT_TRUE(WriteSyntheticModel(synth).ok());
    auto model = Model::Open(path_);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *model;
  }
  static void TearDownTestSuite() {
    model_ = nullptr;
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove(path_, ignored);
  }

  void SetUp() override {
    if (gpus_.empty()) GTEST_SKIP() << "no GPU, or no driver library to count its memory with";
    ASSERT_NE(model_, nullptr);
  }

  static PlacementProblem Problem(const std::string& devices) {
    RuntimeRequest request;
    request.model = path_;
    request.budget.devices = devices;
    request.budget.context = kContext;
    request.budget.slots = kSlots;
    auto problem = LocalProblem(model_->spec(), model_->PathOf(0), request);
    EXPECT_TRUE(problem.ok()) << problem.status();
    return *std::move(problem);
  }

  static PlacementPlan Plan(const PlacementProblem& problem) {
    auto solved = Solve(problem);
    EXPECT_TRUE(solved.ok()) << solved.status();
    EXPECT_TRUE(solved->plan.has_value()) << solved->infeasible->summary;
    return *std::move(solved->plan);
  }

  static Bytes Used(const PlacementPlan& plan, Purpose purpose) {
    Bytes sum;
    for (const LedgerEntry& e : plan.ledger) {
      if (e.purpose == purpose) sum += e.bytes;
    }
    return sum;
  }

  // The plan again with no byte more than it says that it takes.
  static PlacementPlan Tighten(PlacementProblem problem, const PlacementPlan& plan) {
    for (const LedgerTotal& t : plan.totals) {
      for (DeviceSpec& d : problem.cluster.hosts[0].devices) {
        if (d.id.value() == t.memory && t.used > Bytes(0)) d.budget = t.used;
      }
    }
    return Plan(problem);
  }

  // Both devices are needed: each has room for little more than half of weights and cache.
  static PlacementPlan SplitInTwo(const std::string& devices) {
    const PlacementPlan whole = Plan(Problem("gpu0"));
    const Bytes shared = Used(whole, Purpose::kWeights) + Used(whole, Purpose::kKvCache);
    const Bytes each = Used(whole, Purpose::kActivations) + Bytes(shared.count() * 6 / 10);
    PlacementProblem problem = Problem(devices);
    for (DeviceSpec& d : problem.cluster.hosts[0].devices) d.budget = d.overhead + each;
    const PlacementPlan plan = Tighten(problem, Plan(problem));
    EXPECT_EQ(plan.stages.size(), 2u);
    return plan;
  }

  static void Use(Engine& engine, int max_pass_tokens) {
    std::vector<std::thread> clients;
    for (int i = 0; i < kSlots; ++i) {
      clients.emplace_back([&engine, i, max_pass_tokens] {
        std::mt19937 rng(static_cast<unsigned>(i));
        GenerateRequest request;
        for (int t = 0; t < 2 * max_pass_tokens + 100; ++t) {
          request.tokens.push_back(static_cast<TokenId>(rng() % 100'000));
        }
        request.max_tokens = 64;
        request.ignore_end_of_generation = true;
        request.sampling.top_k = i == 0 ? 40 : 0;
        const auto summary = engine.Generate(request, nullptr);
        ASSERT_TRUE(summary.ok()) << summary.status();
        EXPECT_EQ(summary->tokens.size(), 64u);
      });
    }
    for (std::thread& t : clients) t.join();
    std::vector<TokenId> tokens(static_cast<size_t>(max_pass_tokens), 7);
    EXPECT_TRUE(engine.Logits(tokens).ok());
    EXPECT_TRUE(engine.LogProbs(tokens, 1).ok());
  }

  // Loads and uses the plan; no GPU may ever have more taken than the plan predicts for it.
  static void Check(const PlacementPlan& plan) {
    ASSERT_LE(2 * plan.max_pass_tokens + 200, plan.context);
    std::map<std::string, Bytes> predicted, budget;  // by hardware device
    for (const LedgerTotal& t : plan.totals) {
      const std::string hardware = t.memory.substr(0, t.memory.find('#'));
      if (!gpus_.contains(hardware) || t.used == Bytes(0)) continue;
      predicted[hardware] += t.used;
      budget[hardware] += t.budget;
    }
    ASSERT_FALSE(predicted.empty());
    std::map<std::string, std::unique_ptr<Watcher>> watchers;
    for (const auto& [name, _] : predicted) {
      watchers[name] = std::make_unique<Watcher>(gpus_[name].pci, gpus_[name].free_before);
    }
    {
      auto first = CreateLocalStages(model_, plan, {});
      ASSERT_TRUE(first.ok()) << first.status();
      EngineOptions options;
      options.slots = plan.slots;
      options.context = plan.context;
      options.max_pass_tokens = plan.max_pass_tokens;
      auto engine = Engine::Create(model_, *std::move(first), options);
      ASSERT_TRUE(engine.ok()) << engine.status();
      Use(**engine, plan.max_pass_tokens);
    }
    for (const auto& [name, watcher] : watchers) {
      watcher->Stop();
      std::printf("%s: budget %s, predicted %s, at most %s taken in %d polls\n", name.c_str(),
                  FormatBytes(budget[name]).c_str(), FormatBytes(predicted[name]).c_str(),
                  FormatBytes(watcher->peak()).c_str(), watcher->polls());
      EXPECT_GT(watcher->polls(), 20);
      EXPECT_LE(watcher->peak(), budget[name]) << name << ": the budget was passed";
      EXPECT_LE(watcher->peak(), predicted[name]) << name << ": the plan predicted too little";
      EXPECT_GT(watcher->peak(), Bytes(predicted[name].count() / 2)) << name << " was not watched";
    }
  }

  static std::map<std::string, Gpu> gpus_;
  static std::string path_;
  static std::shared_ptr<const Model> model_;
};
std::map<std::string, GpuBudgetTest::Gpu> GpuBudgetTest::gpus_;
std::string GpuBudgetTest::path_;
std::shared_ptr<const Model> GpuBudgetTest::model_;

// First: a context, once opened on gpu0, stays.
TEST_F(GpuBudgetTest, ADeviceThatIsNotPlannedOnIsLeftAlone) {
  if (!gpus_.contains("gpu0") || !gpus_.contains("gpu1")) GTEST_SKIP() << "there is one GPU only";
  Watcher other(gpus_["gpu0"].pci, gpus_["gpu0"].free_before);
  const PlacementProblem problem = Problem("gpu1");
  Check(Tighten(problem, Plan(problem)));
  other.Stop();
  EXPECT_LT(other.peak(), 64_MiB) << "a context takes more";
}

TEST_F(GpuBudgetTest, OneDevice) {
  const PlacementProblem problem = Problem("gpu0");
  Check(Tighten(problem, Plan(problem)));
}

TEST_F(GpuBudgetTest, TwoLogicalDevicesOfOneGpu) { Check(SplitInTwo("gpu0,gpu0")); }

TEST_F(GpuBudgetTest, TwoGpus) {
  if (!gpus_.contains("gpu1")) GTEST_SKIP() << "there is one GPU only";
  Check(SplitInTwo("gpu0,gpu1"));
}

}  // namespace
}  // namespace millrace
