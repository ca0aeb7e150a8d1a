#include "planner/precision_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>

#include "kernels/matmul.h"
#include "kernels/quantize.h"
#include "proto/stored_types.h"
#include "tests/planner/precision_testing.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

PrecisionQuestion QuestionOf(ModelSpec file) {
  PrecisionQuestion q;
  q.sensitivities = DefaultSensitivities(file);
  q.file = std::move(file);
  return q;
}

ModelSpec Held(const PrecisionQuestion& q, const PrecisionChoice& choice) {
  const auto held = HeldModel(q.file, choice.types);
  EXPECT_TRUE(held.ok()) << held.status();
  return held.value_or(q.file);
}

DType TypeOf(const ModelSpec& model, TensorRole role, int layer) {
  return model.tensors[static_cast<size_t>(model.FindTensor(role, layer))].dtype;
}

double LossOf(const PrecisionQuestion& q, const ModelSpec& held) {
  double loss = 0;
  for (const TensorSpec& t : held.tensors) {
    if (t.file_dtype) {
      loss += q.sensitivities.Loss(t, static_cast<int>(held.layers.size()), t.dtype);
    }
  }
  return loss;
}

ModelSpec Uniform(const ModelSpec& file, DType dtype) {
  std::vector<StoredType> types;
  for (const TensorSpec& t : file.tensors) {
    if (CanBeHeldAs(t, dtype)) types.push_back({t.name, dtype});
  }
  return *HeldModel(file, types);
}

TEST(PrecisionChoiceTest, HoldsEveryBudgetAndLosesLessTheMoreThereIs) {
  const PrecisionQuestion q = QuestionOf(F16Model(12, 512, 1024, 2000));
  const PrecisionRange range = *PrecisionRangeOf(q);
  EXPECT_EQ(range.most, q.file.weight_bytes());
  EXPECT_EQ(range.least, Uniform(q.file, DType::kQ4_K).weight_bytes());
  double before = std::numeric_limits<double>::infinity();
  for (int percent = 0; percent <= 100; percent += 5) {
    const Bytes budget = range.least + Bytes((range.most - range.least).count() * percent / 100);
    const PrecisionChoice choice = *ChoosePrecision(q, budget);
    const ModelSpec held = Held(q, choice);
    EXPECT_LE(held.weight_bytes(), budget);
    EXPECT_EQ(held.weight_bytes(), choice.bytes);
    EXPECT_NEAR(LossOf(q, held), choice.loss, 1e-12);
    EXPECT_LE(choice.loss, before) << percent;
    before = choice.loss;
  }
  EXPECT_EQ(before, 0);
  EXPECT_TRUE(ChoosePrecision(q, range.most)->types.empty());
  EXPECT_EQ(ChoosePrecision(q, 1_B)->bytes, range.least);
}

TEST(PrecisionChoiceTest, LosesLessThanEveryUniformTypeOfItsSize) {
  std::mt19937 rng(1);
  for (int round = 0; round < 20; ++round) {
    PrecisionQuestion q =
        QuestionOf(F16Model(1 + static_cast<int>(rng() % 9), 256,
                            256 * (1 + static_cast<int>(rng() % 4)), 500, rng() % 2 == 0));
    for (auto& [_, density] : q.sensitivities.density) {
      density *= std::exp(std::normal_distribution<double>(0, 1)(rng));
    }
    for (DType dtype : kQuantizeTypes) {
      const ModelSpec uniform = Uniform(q.file, dtype);
      const PrecisionChoice choice = *ChoosePrecision(q, uniform.weight_bytes());
      EXPECT_LE(choice.bytes, uniform.weight_bytes());
      EXPECT_LE(choice.loss, LossOf(q, uniform) * (1 + 1e-9));
    }
  }
}

// Every combination of a model of one layer, whose gate and up go together.
double LeastLoss(const PrecisionQuestion& q, Bytes budget) {
  std::vector<std::vector<const TensorSpec*>> items;
  Bytes fixed;
  for (const TensorSpec& t : q.file.tensors) {
    if (t.shape.size() != 2) {
      fixed += t.size;
    } else if (t.role == TensorRole::kFfnUp) {
      items.back().push_back(&t);
    } else {
      items.push_back({&t});
    }
  }
  std::vector<std::pair<Bytes, double>> sums = {{fixed, 0.0}};
  for (const auto& item : items) {
    std::vector<std::pair<Bytes, double>> next;
    for (int option = -1; option < 4; ++option) {
      Bytes bytes;
      double loss = 0;
      for (const TensorSpec* t : item) {
        const DType dtype = option < 0 ? t->dtype : kQuantizeTypes[static_cast<size_t>(option)];
        bytes += t->rows() * RowBytes(dtype, t->cols());
        loss += q.sensitivities.Loss(*t, 1, dtype);
      }
      for (const auto& [b, l] : sums) {
        if (b + bytes <= budget) next.emplace_back(b + bytes, l + loss);
      }
    }
    sums = std::move(next);
  }
  double least = std::numeric_limits<double>::infinity();
  for (const auto& [_, loss] : sums) least = std::min(least, loss);
  return least;
}

TEST(PrecisionChoiceTest, IsExactBetweenTheStepsOfOneTensor) {
  std::mt19937 rng(2);
  const PrecisionQuestion q = QuestionOf(F16Model(1, 512, 768, 300));
  const PrecisionRange range = *PrecisionRangeOf(q);
  Bytes largest;  // that one step changes
  for (const TensorSpec& t : q.file.tensors) largest = std::max(largest, 2 * t.size);
  int exact = 0;
  for (int i = 0; i < 30; ++i) {
    const int64_t spread = (range.most - range.least).count();
    const Bytes budget = range.least + Bytes(static_cast<int64_t>(rng()) % spread);
    const double loss = ChoosePrecision(q, budget)->loss, least = LeastLoss(q, budget);
    EXPECT_GE(loss, least * (1 - 1e-9));
    EXPECT_LE(loss, LeastLoss(q, budget - largest) * (1 + 1e-9));
    exact += loss <= least * (1 + 1e-9);
  }
  EXPECT_GE(exact, 10);
}

TEST(PrecisionChoiceTest, SensitiveTensorsKeepMoreBits) {
  PrecisionQuestion q = QuestionOf(F16Model(9, 512, 512, 500));
  for (int third = 0; third < 3; ++third) {
    q.sensitivities.density[{TensorRole::kAttnQ, third}] *= 1e3;
    q.sensitivities.density[{TensorRole::kFfnDown, third}] *= 1e-3;
  }
  const PrecisionRange range = *PrecisionRangeOf(q);
  const ModelSpec held =
      Held(q, *ChoosePrecision(q, range.least + (range.most - range.least + 4_B)));
  EXPECT_TRUE(StoredTypesOf(held, BlocksOf(held)[1]).empty());
  const Bytes third = range.least + Bytes((range.most - range.least).count() / 4);
  const ModelSpec low = Held(q, *ChoosePrecision(q, third));
  for (int layer = 0; layer < 9; ++layer) {
    EXPECT_EQ(TypeOf(low, TensorRole::kFfnDown, layer), DType::kQ4_K);
    EXPECT_LE(TypeOf(low, TensorRole::kAttnQ, layer), DType::kQ8_0);
    EXPECT_EQ(TypeOf(low, TensorRole::kFfnGate, layer), TypeOf(low, TensorRole::kFfnUp, layer));
  }
}

TEST(PrecisionChoiceTest, FloorsHoldAndMustMeanSomething) {
  PrecisionQuestion q = QuestionOf(F16Model(6, 512, 1024, 500));
  q.floors = {
      {"blk.*.attn_v", DType::kQ8_0}, {"output.weight", DType::kF16}, {"blk.2.*", DType::kQ5_K}};
  const ModelSpec held = Held(q, *ChoosePrecision(q, 1_B));
  EXPECT_EQ(TypeOf(held, TensorRole::kOutput, -1), DType::kF16);
  EXPECT_EQ(TypeOf(held, TensorRole::kTokenEmbedding, -1), DType::kQ4_K);
  for (int layer = 0; layer < 6; ++layer) {
    EXPECT_EQ(TypeOf(held, TensorRole::kAttnV, layer), DType::kQ8_0);
    EXPECT_EQ(TypeOf(held, TensorRole::kFfnUp, layer), layer == 2 ? DType::kQ5_K : DType::kQ4_K);
  }
  q.floors = {{"blk.*.attention", DType::kQ8_0}};
  const absl::Status status = ChoosePrecision(q, 1_B).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'blk.*.attention=q8_0' matches no tensor"));
}

TEST(PrecisionChoiceTest, WhatTheFileHasQuantisedStays) {
  PrecisionQuestion q = QuestionOf(F16Model(4, 512, 1024, 500));
  for (TensorSpec& t : q.file.tensors) {
    if (t.role != TensorRole::kFfnDown) continue;
    t.dtype = DType::kQ6_K;
    t.size = t.rows() * RowBytes(t.dtype, t.cols());
  }
  const PrecisionChoice choice = *ChoosePrecision(q, 1_B);
  EXPECT_FALSE(choice.types.empty());
  for (const StoredType& type : choice.types) {
    EXPECT_THAT(type.tensor, ::testing::Not(HasSubstr("ffn_down")));
  }
  PrecisionQuestion all = QuestionOf(Uniform(F16Model(4, 512, 1024, 500), DType::kQ4_K));
  for (TensorSpec& t : all.file.tensors) t.file_dtype.reset();
  EXPECT_TRUE(ChoosePrecision(all, 1_B)->types.empty());
}

TEST(PrecisionChoiceTest, RowsThatFillNoSuperBlockTakeQ8) {
  const PrecisionQuestion q = QuestionOf(F16Model(2, 640, 640, 500));
  const PrecisionChoice choice = *ChoosePrecision(q, 1_B);
  EXPECT_FALSE(choice.types.empty());
  for (const StoredType& type : choice.types) EXPECT_EQ(type.dtype, DType::kQ8_0);
}

TEST(PrecisionChoiceTest, CachesAreOneCandidateMore) {
  PrecisionQuestion q = QuestionOf(F16Model(4, 512, 1024, 500));
  q.kv_cells = 4096;
  const PrecisionRange kept = *PrecisionRangeOf(q);
  EXPECT_EQ(ChoosePrecision(q, 1_B)->kv_type, DType::kF16);
  q.may_lower_kv = true;
  q.sensitivities.kv_q8_0 = 0;  // costs nothing: goes first
  const PrecisionRange range = *PrecisionRangeOf(q);
  EXPECT_EQ(range.most, kept.most);
  const Bytes saved = kept.least - range.least;
  EXPECT_EQ(saved, 4096 * 4 *
                       (KvBytesPerToken(q.file.layers[0], DType::kF16) -
                        KvBytesPerToken(q.file.layers[0], DType::kQ8_0)));
  PrecisionChoice choice = *ChoosePrecision(q, range.most - saved);
  EXPECT_EQ(choice.kv_type, DType::kQ8_0);
  EXPECT_TRUE(choice.types.empty());
  q.sensitivities.kv_q8_0 = 1e3;  // costs most: goes last
  choice = *ChoosePrecision(q, range.most - saved);
  EXPECT_EQ(choice.kv_type, DType::kF16);
  EXPECT_FALSE(choice.types.empty());
  q.kv_type = DType::kBF16;  // chosen by somebody
  EXPECT_EQ(ChoosePrecision(q, 1_B)->kv_type, DType::kBF16);
}

// The table of errors is what the quantisers do to gaussian weights.
TEST(SensitivitiesTest, ErrorsAreThoseOfTheQuantisers) {
  constexpr int64_t kRows = 64, kCols = 1024;
  std::mt19937_64 rng(3);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> x(kRows * kCols), y(kCols);
  for (float& v : x) v = normal(rng);
  ThreadPool pool(1);
  for (DType dtype : kQuantizeTypes) {
    const int64_t row = RowBytes(dtype, kCols).count();
    std::vector<uint8_t> bytes(static_cast<size_t>(kRows * row));
    ASSERT_TRUE(
        Quantize({x.data(), DType::kF32, kRows, kCols}, dtype, "x", bytes.data(), pool).ok());
    double off = 0, all = 0;
    for (int64_t r = 0; r < kRows; ++r) {
      DequantizeRow(dtype, bytes.data() + r * row, kCols, y.data());
      for (int64_t c = 0; c < kCols; ++c) {
        const double v = x[static_cast<size_t>(r * kCols + c)];
        off += (v - y[static_cast<size_t>(c)]) * (v - y[static_cast<size_t>(c)]);
        all += v * v;
      }
    }
    EXPECT_NEAR(off / all, QuantizationError(dtype), 0.1 * QuantizationError(dtype))
        << DTypeName(dtype);
  }
  EXPECT_EQ(QuantizationError(DType::kBF16), 0);
}

TEST(SensitivitiesTest, EveryMatrixHasADefault) {
  for (bool tied : {false, true}) {
    const ModelSpec model = F16Model(7, 512, 1024, 500, tied);
    const Sensitivities s = DefaultSensitivities(model);
    for (const TensorSpec& t : model.tensors) {
      if (t.shape.size() != 2) continue;
      EXPECT_FALSE(RoleName(t.role).empty()) << t.name;
      EXPECT_GT(s.Loss(t, 7, DType::kQ4_K), s.Loss(t, 7, DType::kQ6_K)) << t.name;
    }
  }
}

}  // namespace
}  // namespace millrace
