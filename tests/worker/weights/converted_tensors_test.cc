// Tensors held in other types than the file's: alone, and in whole stages of the demo model.
#include "worker/weights/converted_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/quantize.h"
#include "proto/stored_types.h"
#include "tests/fakes/plans.h"
#include "worker/engine.h"
#include "worker/local_stages.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

int IndexOf(const Model& model, const std::string& name) {
  const std::vector<TensorSpec>& tensors = model.spec().tensors;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

std::vector<uint8_t> Quantized(const Model& model, int tensor, DType dtype) {
  const TensorSpec& spec = model.spec().tensors[static_cast<size_t>(tensor)];
  std::vector<uint8_t> out(
      static_cast<size_t>((spec.rows() * RowBytes(dtype, spec.cols())).count()));
  ThreadPool pool(1);
  const WeightView view = {model.TensorBytes(tensor).data(), spec.dtype, spec.rows(), spec.cols()};
  EXPECT_TRUE(Quantize(view, dtype, spec.name, out.data(), pool).ok());
  return out;
}

bool Holds(const Model& model, int tensor, const std::vector<uint8_t>& bytes) {
  const absl::Span<const std::byte> held = model.TensorBytes(tensor);
  return held.size() == bytes.size() && std::memcmp(held.data(), bytes.data(), bytes.size()) == 0;
}

TEST(ConvertedTensorsTest, ConvertsWhatIsAskedForAndNothingElse) {
  const std::shared_ptr<const Model> file = *Model::Open("");
  const auto made = ConvertedTensors::Create(
      file, {{"blk.1.attn_v.weight", DType::kQ6_K}, {"blk.1.ffn_down.weight", DType::kQ8_0}}, 2);
  ASSERT_TRUE(made.ok()) << made.status();
  ConvertedTensors& converted = **made;
  const Model& held = *converted.model();
  const int v = IndexOf(held, "blk.1.attn_v.weight"), down = IndexOf(held, "blk.1.ffn_down.weight");
  const int other = IndexOf(held, "blk.1.attn_q.weight");
  EXPECT_EQ(FingerprintOf(held.spec()), FingerprintOf(file->spec()));
  EXPECT_EQ(held.spec().tensors[static_cast<size_t>(v)].dtype, DType::kQ6_K);
  EXPECT_EQ(held.TensorBytes(other).data(), file->TensorBytes(other).data());
  EXPECT_TRUE(held.TensorBytes(v).empty());

  Bytes told;
  ASSERT_TRUE(converted.Convert({v, other}, [&](Bytes b) { told += b; }).ok());
  EXPECT_EQ(told, held.spec().tensors[static_cast<size_t>(v)].size);
  EXPECT_TRUE(Holds(held, v, Quantized(*file, v, DType::kQ6_K)));
  EXPECT_TRUE(held.TensorBytes(down).empty());
  ASSERT_TRUE(converted.Convert({v, down}, nullptr).ok());
  EXPECT_TRUE(Holds(held, down, Quantized(*file, down, DType::kQ8_0)));
  EXPECT_EQ(held.PathOf(down), "");
  converted.Drop({v});
  EXPECT_TRUE(held.TensorBytes(v).empty());
  EXPECT_FALSE(held.TensorBytes(down).empty());
  converted.Finish();
  ASSERT_TRUE(converted.Convert({v}, nullptr).ok());
  EXPECT_TRUE(Holds(held, v, Quantized(*file, v, DType::kQ6_K)));
}

TEST(ConvertedTensorsTest, WithoutTypesItIsTheFile) {
  const std::shared_ptr<const Model> file = *Model::Open("");
  EXPECT_EQ((*ConvertedTensors::Create(file, {}, 1))->model(), file);
}

// ---- stages ----

// Every matrix in one type.
std::vector<StoredType> AllAs(const ModelSpec& model, DType dtype) {
  std::vector<StoredType> types;
  for (const TensorSpec& t : model.tensors) {
    if (CanBeHeldAs(t, dtype)) types.push_back({t.name, dtype});
  }
  return types;
}

PlacementPlan PlanHolding(const ModelSpec& file, const std::vector<StoredType>& types,
                          std::vector<int> cuts) {
  PlacementPlan plan = PlanWithCuts(file, std::move(cuts), 64);
  const ModelSpec held = *HeldModel(file, types);
  const std::vector<Block> blocks = BlocksOf(held);
  for (size_t b = 0; b < blocks.size(); ++b) {
    BlockPlacement placement;
    placement.block = static_cast<int>(b);
    placement.name = BlockName(blocks[b]);
    placement.home = Home::kHost;
    placement.stored_types = StoredTypesOf(held, blocks[b]);
    plan.blocks.push_back(placement);
  }
  return plan;
}

std::vector<float> LogitsOf(const std::shared_ptr<const Model>& model, const PlacementPlan& plan) {
  StageOptions stage;
  stage.threads = 2;
  auto first = CreateLocalStages(model, plan, stage);
  EXPECT_TRUE(first.ok()) << first.status();
  EngineOptions options;
  options.context = plan.context;
  options.max_pass_tokens = plan.max_pass_tokens;
  auto engine = Engine::Create(model, *std::move(first), options);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return *(*engine)->Logits({4094, 10, 20, 30, 40, 50, 60});
}

double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max<double>(worst, std::fabs(a[i] - b[i]));
  return worst;
}

TEST(ConvertedStagesTest, RunAsIfTheFileWereSo) {
  const std::shared_ptr<const Model> file = *Model::Open("");
  const std::vector<float> kept = LogitsOf(file, PlanWithCuts(file->spec(), {}, 64));
  double before = 0;
  for (DType dtype : kQuantizeTypes) {
    const std::vector<StoredType> types = AllAs(file->spec(), dtype);
    EXPECT_EQ(types.size(), 57u);  // seven in each of eight layers, and the table
    // A model that holds all of it before stages see it.
    auto converted = *ConvertedTensors::Create(file, types, 2);
    std::vector<int> all(file->spec().tensors.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
    ASSERT_TRUE(converted->Convert(all, nullptr).ok());
    const std::vector<float> wanted =
        LogitsOf(converted->model(), PlanWithCuts(file->spec(), {}, 64));
    EXPECT_EQ(LogitsOf(file, PlanHolding(file->spec(), types, {})), wanted) << DTypeName(dtype);
    EXPECT_EQ(LogitsOf(file, PlanHolding(file->spec(), types, {6, 11})), wanted);
    const double difference = LargestDifference(wanted, kept);
    EXPECT_GT(difference, before) << DTypeName(dtype);
    EXPECT_LT(difference, 3.0) << DTypeName(dtype);
    before = difference;
  }
}

TEST(ConvertedStagesTest, TakeTheMemoryOfTheTypesThatTheyHold) {
  const std::shared_ptr<const Model> file = *Model::Open("");
  const auto resident = [&](const PlacementPlan& plan, Bytes& told) {
    StageOptions options;
    options.threads = 1;
    Bytes before;
    options.on_load_progress = [&](Bytes done, Bytes total) {
      EXPECT_GE(done, before);
      EXPECT_LE(done, total);
      before = done;
      told = total;
    };
    return (*CreateLocalStages(file, plan, options))->resident_bytes();
  };
  Bytes told_f16, told_q4;
  const Bytes f16 = resident(PlanHolding(file->spec(), {}, {}), told_f16);
  const std::vector<StoredType> types = AllAs(file->spec(), DType::kQ4_K);
  const Bytes q4 = resident(PlanHolding(file->spec(), types, {}), told_q4);
  const Bytes held = HeldModel(file->spec(), types)->weight_bytes();
  EXPECT_EQ(f16 - q4, file->spec().weight_bytes() - held);
  EXPECT_GE(told_q4, held);  // in whole pages
  EXPECT_LT(told_q4, held + 128_KiB);
}

TEST(ConvertedStagesTest, RefuseWhatThePlanCannotMean) {
  const std::shared_ptr<const Model> file = *Model::Open("");
  const auto refusal = [&](const std::function<void(PlacementPlan&)>& spoil) {
    PlacementPlan plan = PlanHolding(file->spec(), {}, {});
    spoil(plan);
    return std::string(StageRunner::Create(file, plan, 0, nullptr, {}).status().message());
  };
  EXPECT_THAT(refusal([](PlacementPlan& p) {
                p.blocks[3].stored_types = {{"blk.9.attn_q.weight", DType::kQ8_0}};
              }),
              HasSubstr("no such tensor"));
  EXPECT_THAT(refusal([](PlacementPlan& p) {
                p.blocks[1].stored_types = {{"blk.0.attn_norm.weight", DType::kQ8_0}};
              }),
              HasSubstr("blk.0.attn_norm.weight of f32 [1, 256] cannot be held as q8_0"));
  EXPECT_THAT(refusal([](PlacementPlan& p) {
                p.blocks[1].stored_types = {{"blk.0.attn_q.weight", DType::kQ4_0}};
              }),
              HasSubstr("cannot be held as q4_0"));
  EXPECT_THAT(refusal([](PlacementPlan& p) {
                p.blocks[0].stored_types = {{"token_embd.weight", DType::kQ8_0}};
                p.blocks[17].stored_types = {{"token_embd.weight", DType::kQ6_K}};
              }),
              HasSubstr("both q8_0 and q6_K"));
  EXPECT_THAT(refusal([](PlacementPlan& p) {
                p.blocks[2].home = Home::kDisk;
                p.blocks[2].stored_types = {{"blk.0.ffn_up.weight", DType::kQ6_K}};
              }),
              HasSubstr("to stay on disk and to be held as q6_K"));
}

TEST(StoredTypesTest, NothingQuantisedIsQuantisedAgain) {
  TensorSpec tensor;
  tensor.shape = {16, 512};
  for (DType source : kAllDTypes) {
    tensor.dtype = source;
    EXPECT_EQ(CanBeHeldAs(tensor, DType::kQ4_K), !Info(source).quantized) << DTypeName(source);
  }
  tensor.dtype = DType::kBF16;
  tensor.shape = {16, 96};
  EXPECT_TRUE(CanBeHeldAs(tensor, DType::kQ8_0));
  EXPECT_FALSE(CanBeHeldAs(tensor, DType::kQ6_K));
}

}  // namespace
}  // namespace millrace
