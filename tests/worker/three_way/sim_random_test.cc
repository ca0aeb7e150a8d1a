// Hundreds of random mixes of homes, routes, rings and devices on the simulated device: every logit
// is that of the fully resident run, bit for bit. Where blocks are split between CPU and device, sums
// are taken in another order: such a plan's logits are within a tolerance of the resident run's, and on
// devices of any speed and ring bit for bit the same.
#include <gtest/gtest.h>

#include <filesystem>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/stored_types.h"
#include "tests/worker/three_way/random_plan.h"
#include "tests/worker/three_way/script.h"
#include "tests/worker/three_way/sim_stages.h"

namespace millrace {
namespace {

constexpr uint64_t kSeed = 20251125;
constexpr char kQuantised[] = "../shared/models/quill-7m-q4_k_m.gguf";

class SimRandomTest : public ::testing::Test {
 protected:
  int64_t Random(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(rng_);
  }
  bool Chance(int one_in) { return Random(1, one_in) == 1; }

  SimBackendSpec RandomSpec() {
    SimBackendSpec spec;
    const auto rate = [&] { return Bandwidth::GBPerSecond(static_cast<double>(Random(1, 400))); };
    spec.hbm = rate() * 5;
    spec.link = rate();
    if (Chance(2)) spec.place = rate();
    if (Chance(2)) spec.dram = rate();
    spec.chunk = Bytes(1024 * Random(1, 300));
    spec.stages = static_cast<int>(Random(1, 5));
    spec.slots = Chance(2) ? 64 : static_cast<int>(Random(1, 6));
    if (Chance(3)) spec.max_queued_copies = static_cast<int>(Random(1, 6));
    if (Chance(6)) spec.drive = WeightStreamOptions::Drive::kThread;
    if (Chance(3)) {
      // A slow disk, of which one read fails.
      spec.make_source = [disk = rate(),
                          takes = static_cast<int>(Random(0, 300))](SimStreamDevice& device) {
        auto source = std::make_unique<SimChunkSource>(&device, disk);
        source->FailAfter(takes);
        return source;
      };
    }
    return spec;
  }

  // One or two stages. `held`: the model's spec, or as it is held.
  PlacementPlan RandomPlan(const Model& model, const ModelSpec& held, const Script& script,
                           DType kv) {
    std::vector<int> cuts;
    if (Chance(4)) cuts = {static_cast<int>(Random(1, std::ssize(BlocksOf(held)) - 1))};
    PlacementPlan plan = ResidentPlan(held, script, kv, cuts, {"gpu0", "gpu0#1"});
    MoveToHost(rng_, held, plan, !model.PathOf(0).empty() && !convert_, Chance(2));
    return plan;
  }

  // Some tensors in other types.
  ModelSpec RandomlyHeld(const ModelSpec& file) {
    std::vector<StoredType> types;
    for (const TensorSpec& t : file.tensors) {
      const DType dtype = Chance(3) ? kQuantizeTypes[static_cast<size_t>(Random(1, 3))] : DType::kQ8_0;
      if (Chance(3) && CanBeHeldAs(t, dtype)) types.push_back({t.name, dtype});
    }
    return *HeldModel(file, types);
  }

  void CheckPlan(const std::shared_ptr<const Model>& model, const Script& script,
                 const PlacementPlan& plan, const Transcript& resident) {
    if (!HasSplitBlocks(plan)) return CheckRun(model, script, plan, RandomSpec(), resident);
    const auto stages = MakeSimStages(model, plan, {});
    ASSERT_TRUE(stages.ok()) << stages.status();
    const auto split = RunScript(*stages->first, script, &resident);
    ASSERT_TRUE(split.ok()) << split.status();
    const bool narrow = plan.kv_type == DType::kBF16 || plan.kv_type == DType::kQ8_0;
    EXPECT_EQ(Difference(resident, *split, narrow ? 0.3f : tolerance_), "");
    CheckRun(model, script, plan, RandomSpec(), *split, &resident);
  }

  // Bit for bit.
  void CheckRun(const std::shared_ptr<const Model>& model, const Script& script,
                const PlacementPlan& plan, const SimBackendSpec& spec, const Transcript& expected,
                const Transcript* follow = nullptr) {
    const auto stages = MakeSimStages(model, plan, spec);
    ASSERT_TRUE(stages.ok()) << stages.status();
    const auto got = RunScript(*stages->first, script, follow, 2);
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(Difference(expected, *got), "");
    for (SimBackend* backend : stages->backends) {
      EXPECT_EQ(backend->device().wrong_reads(), 0);
      EXPECT_EQ(backend->device().ring_size() > Bytes(0), backend->stream() != nullptr);
    }
  }

  void CheckModel(const std::string& reference, absl::Duration limit) {
    const std::shared_ptr<const Model> model = *Model::Open(reference);
    const absl::Time begin = absl::Now();
    constexpr DType kKvTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0};
    int plans = 0, split = 0;
    for (; plans < 400 && absl::Now() - begin < limit && !HasFailure();) {
      const Script script = RandomScript(rng_, model->spec().vocab);
      const ModelSpec held = convert_ ? RandomlyHeld(model->spec()) : model->spec();
      const DType kv = kKvTypes[Random(0, 3)];
      const PlacementPlan resident = ResidentPlan(held, script, kv);
      const auto stages = MakeSimStages(model, resident, {});
      ASSERT_TRUE(stages.ok()) << stages.status();
      const auto expected = RunScript(*stages->first, script);
      ASSERT_TRUE(expected.ok()) << expected.status();
      for (int i = 0; i < 10 && !HasFailure(); ++i, ++plans) {
        const PlacementPlan plan = RandomPlan(*model, held, script, kv);
        split += HasSplitBlocks(plan);
        SCOPED_TRACE(absl::StrCat("plan ", plans, ": ", Describe(plan)));
        CheckPlan(model, script, plan, *expected);
      }
    }
    std::cout << plans << " plans, " << split << " of them with split blocks, seed " << kSeed << "\n";
  }

  std::mt19937_64 rng_{kSeed};
  // Of split blocks' logits. Quantised weights meet activations rounded to eight bits, where the last
  // bit of a sum may decide.
  float tolerance_ = 2e-3f;
  bool convert_ = false;
};

TEST_F(SimRandomTest, DemoModel) { CheckModel("", absl::Seconds(25)); }

// Some blocks are read from this file for every pass.
TEST_F(SimRandomTest, DemoModelFromItsFile) {
  CheckModel("deploy/models/quill-7m-f16.gguf", absl::Seconds(15));
}

TEST_F(SimRandomTest, QuantisedModel) {
  if (!std::filesystem::exists(kQuantised)) GTEST_SKIP() << kQuantised << " is not here";
  tolerance_ = 0.3f;
  CheckModel(kQuantised, absl::Seconds(15));
}

// Resident, streamed and computed by the CPU: tensors that no file holds.
TEST_F(SimRandomTest, DemoModelInOtherTypesThanItsFile) {
  convert_ = true;
  tolerance_ = 0.3f;
  CheckModel("deploy/models/quill-7m-f16.gguf", absl::Seconds(15));
}

}  // namespace
}  // namespace millrace
