#include "tools/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "proto/stored_types.h"
#include "tests/planner/precision_testing.h"
#include "tools/text_windows.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

TEST(CalibrationTest, GroupsAreRolesByThirdsInTheLowestTypeThatAllTake) {
  const ModelSpec file = F16Model(6, 512, 768, 300);
  const std::vector<GroupToMeasure> groups = GroupsToMeasure(file);
  EXPECT_EQ(groups.size(), 7u * 3 + 2);
  int64_t weights = 0;
  std::set<std::string> names;
  for (const GroupToMeasure& g : groups) {
    EXPECT_EQ(g.group.dtype, DType::kQ4_K);
    weights += g.group.weights;
    for (const StoredType& t : g.types) {
      EXPECT_EQ(t.dtype, g.group.dtype);
      EXPECT_TRUE(names.insert(t.tensor).second) << t.tensor;
    }
    if (g.group.group.role == TensorRole::kAttnV && g.group.group.third == 1) {
      EXPECT_EQ(g.types, (std::vector<StoredType>{{"blk.2.attn_v.weight", DType::kQ4_K},
                                                  {"blk.3.attn_v.weight", DType::kQ4_K}}));
      EXPECT_EQ(g.group.weights, 2 * 256 * 512);
    }
  }
  EXPECT_EQ(names.size(), 6u * 7 + 2);
  // Down's rows of 800 values fill no super-block.
  for (const GroupToMeasure& g : GroupsToMeasure(F16Model(3, 512, 800, 300))) {
    const bool down = g.group.group.role == TensorRole::kFfnDown;
    EXPECT_EQ(g.group.dtype, down ? DType::kQ8_0 : DType::kQ4_K);
  }
}

TEST(CalibrationTest, DivergenceIsHalfTheMeanSquare) {
  EXPECT_DOUBLE_EQ(DivergenceOf({-1, -2}, {-1, -2}), 0);
  EXPECT_DOUBLE_EQ(DivergenceOf({-1, -2, -3, -4}, {-1.5, -2, -2, -4}), (0.25 + 1) / 8);
}

TEST(CalibrationTest, MeasuresEveryGroupAgainstTheFile) {
  const ModelSpec file = F16Model(3, 512, 768, 300);
  int done = 0;
  const auto measured = Measure(
      file,
      [&](const std::vector<StoredType>& types, DType kv) -> absl::StatusOr<std::vector<float>> {
        const float change = kv == DType::kQ8_0 ? 0.5f : 0.1f * static_cast<float>(types.size());
        return std::vector<float>{-1.0f - change, -2.0f + change};
      },
      [&](int now, int all) {
        EXPECT_EQ(now, ++done);
        EXPECT_EQ(all, 25);
      });
  ASSERT_TRUE(measured.ok()) << measured.status();
  EXPECT_EQ(done, 25);
  EXPECT_EQ(measured->scored, 2);
  EXPECT_DOUBLE_EQ(measured->kv_q8_0, 0.125);
  for (const MeasuredGroup& g : measured->groups) EXPECT_NEAR(g.divergence, 0.005, 1e-6);
  const auto failed = Measure(
      file, [](const auto&, DType) { return absl::DataLossError("broken"); }, [](int, int) {});
  EXPECT_THAT(std::string(failed.status().message()), HasSubstr("broken"));
}

TEST(CalibrationTest, AQuantisedModelHasNothingToMeasure) {
  ModelSpec file = F16Model(3, 512, 768, 300);
  for (TensorSpec& t : file.tensors) {
    if (t.shape.size() == 2) t.dtype = DType::kQ4_K;
  }
  const auto measured = Measure(
      file, [](const auto&, DType) { return absl::InternalError("asked"); }, [](int, int) {});
  EXPECT_EQ(measured.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(SensitivityFileTest, WhatIsWrittenIsReadAsDensities) {
  const ModelSpec file = F16Model(3, 512, 768, 300);
  SensitivityFile out;
  out.model_fingerprint = FingerprintOf(file);
  out.kv_q8_0 = 3e-5;
  for (GroupToMeasure& g : GroupsToMeasure(file)) {
    g.group.divergence = 1e-9 * static_cast<double>(g.group.weights);
    out.groups.push_back(g.group);
  }
  const std::string path = ::testing::TempDir() + "/quill.sensitivity.json";
  std::ofstream(path) << ToJson(out);
  const auto read = ReadSensitivities(path, file);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->origin, path);
  EXPECT_DOUBLE_EQ(read->kv_q8_0, 3e-5);
  ASSERT_EQ(read->density.size(), out.groups.size());
  for (const auto& [_, density] : read->density) {
    EXPECT_NEAR(density, 1e-9 / QuantizationError(DType::kQ4_K), 1e-15);
  }
  EXPECT_EQ(ReadSensitivities(path, F16Model(4, 512, 768, 300)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(SensitivityPathOf("a/b.gguf"), "a/b.gguf.sensitivity.json");
  EXPECT_EQ(SensitivityPathOf("a/folder//"), "a/folder.sensitivity.json");
  EXPECT_EQ(SensitivityPathOf(""), "");
}

}  // namespace
}  // namespace millrace
