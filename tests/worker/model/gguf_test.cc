// GGUF details: value types, shards, architectures, rope variants.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/status_macros.h"
#include "tests/worker/model/raw_gguf.h"
#include "worker/model/gguf_file.h"
#include "worker/model/gguf_model.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<std::shared_ptr<const Model>> OpenRaw(const std::string& bytes) {
  MILLRACE_ASSIGN_OR_RETURN(
      GgufModelFiles files,
      OpenGguf(ReadMemory(
          "test.gguf",
          absl::MakeConstSpan(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()))));
  return OpenGgufModel("test.gguf", std::move(files));
}

TEST(GgufTest, ReadsEveryValueType) {
  RawGguf g;
  g.Set("u8", GgufType::kUint8, Raw<uint8_t>(200));
  g.Set("i8", GgufType::kInt8, Raw<int8_t>(-100));
  g.Set("u16", GgufType::kUint16, Raw<uint16_t>(60000));
  g.Set("i16", GgufType::kInt16, Raw<int16_t>(-30000));
  g.Set("u32", GgufType::kUint32, Raw<uint32_t>(4000000000u));
  g.Set("i32", GgufType::kInt32, Raw<int32_t>(-2000000000));
  g.Set("f32", GgufType::kFloat32, Raw(1.5f));
  g.Set("bool", GgufType::kBool, Raw<uint8_t>(1));
  g.SetText("text", "héllo");
  g.Set("u64", GgufType::kUint64, Raw<uint64_t>(1ull << 40));
  g.Set("i64", GgufType::kInt64, Raw<int64_t>(-(1ll << 40)));
  g.Set("f64", GgufType::kFloat64, Raw(2.25));
  g.Set("ints", GgufType::kArray, RawArray<int16_t>(GgufType::kInt16, {3, -4}));
  g.Set("floats", GgufType::kArray, RawArray<double>(GgufType::kFloat64, {0.5, 4}));
  g.Set("texts", GgufType::kArray, RawStrings({"x", "", "yz"}));
  // [[1, 2], []] of uint8
  g.Set("nested", GgufType::kArray,
        Raw<uint32_t>(9) + Raw<uint64_t>(2) + RawArray<uint8_t>(GgufType::kUint8, {1, 2}) +
            RawArray<uint8_t>(GgufType::kUint8, {}));
  const std::string bytes = g.Bytes();
  auto reader = ReadMemory(
      "t", absl::MakeConstSpan(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()));
  auto file = ParseGguf(*reader);
  ASSERT_TRUE(file.ok()) << file.status();
  const GgufMetadata& m = file->metadata;
  auto integer = [&](const char* key) { return **m.Integer(key, INT64_MIN, INT64_MAX); };
  EXPECT_EQ(integer("u8"), 200);
  EXPECT_EQ(integer("i8"), -100);
  EXPECT_EQ(integer("u16"), 60000);
  EXPECT_EQ(integer("i16"), -30000);
  EXPECT_EQ(integer("u32"), 4000000000);
  EXPECT_EQ(integer("i32"), -2000000000);
  EXPECT_EQ(integer("u64"), 1ll << 40);
  EXPECT_EQ(integer("i64"), -(1ll << 40));
  EXPECT_EQ(**m.Float("f32"), 1.5);
  EXPECT_EQ(**m.Float("f64"), 2.25);
  EXPECT_EQ(**m.Bool("bool"), true);
  EXPECT_EQ(**m.String("text"), "héllo");
  EXPECT_THAT(**m.Integers("ints"), ElementsAre(3, -4));
  EXPECT_THAT(**m.Floats("floats"), ElementsAre(0.5f, 4.0f));
  EXPECT_THAT(**m.Strings("texts"), ElementsAre("x", "", "yz"));
  const auto& nested = std::get<GgufArray>(m.Find("nested")->data);
  EXPECT_EQ(nested.count, 2u);
  EXPECT_EQ(nested.element, GgufType::kArray);
  EXPECT_FALSE(m.Integer("absent", 0, 1)->has_value());
}

TEST(GgufTest, Version2AndOtherAlignmentsOpen) {
  RawGguf g = TinyLlama();
  g.version = 2;
  EXPECT_TRUE(OpenRaw(g.Bytes()).ok());
  g.SetU32("general.alignment", 8);
  g.alignment = 8;
  EXPECT_TRUE(OpenRaw(g.Bytes()).ok());
}

TEST(GgufTest, HeadAndFeedForwardArraysGiveUnequalLayers) {
  RawGguf g = TinyLlama();
  g.Set("llama.feed_forward_length", GgufType::kArray,
        RawArray<uint32_t>(GgufType::kUint32, {12, 10}));
  g.SetU32("llama.attention.key_length", 4);
  g.Tensor("blk.1.ffn_gate.weight").dims = {8, 10};
  g.Tensor("blk.1.ffn_up.weight").dims = {8, 10};
  g.Tensor("blk.1.ffn_down.weight").dims = {10, 8};
  auto model = OpenRaw(g.Bytes());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->spec().layers[0].d_ff, 12);
  EXPECT_EQ((*model)->spec().layers[1].d_ff, 10);
}

TEST(GgufTest, ReadsRopeVariantsAndUntiedOutput) {
  RawGguf g = TinyLlama();
  g.AddTensor("rope_freqs.weight", {2});
  g.AddTensor("output.weight", {8, 10});
  g.SetText("llama.rope.scaling.type", "linear");
  g.SetF32("llama.rope.scaling.factor", 4.0f);
  auto model = OpenRaw(g.Bytes());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT((*model)->spec().rope.frequency_factors, ElementsAre(0.5f, 0.5f));
  EXPECT_EQ((*model)->spec().rope.linear_factor, 4.0f);
  EXPECT_FALSE((*model)->spec().tied_output);

  RawGguf old = TinyLlama();
  old.SetF32("llama.rope.scale_linear", 2.0f);
  auto legacy = OpenRaw(old.Bytes());
  ASSERT_TRUE(legacy.ok()) << legacy.status();
  EXPECT_EQ((*legacy)->spec().rope.linear_factor, 2.0f);
}

TEST(GgufTest, SlidingWindowCapsTheContext) {
  RawGguf g = TinyLlama();
  g.SetU32("llama.attention.sliding_window", 32);
  auto model = OpenRaw(g.Bytes());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->spec().context_length, 32);
}

// Writes TinyLlama as two shards and lets `damage` spoil the second.
class ShardTest : public ::testing::Test {
 protected:
  std::string Path(int shard) const { return ShardPath({stem_, 1, 2}, shard); }
  void Write(const std::function<void(RawGguf&, RawGguf&)>& damage) {
    const RawGguf whole = TinyLlama();
    RawGguf first = whole, second;
    first.tensors.clear();
    first.data_bytes = 0;
    for (const RawEntry& t : whole.tensors) {
      (first.tensors.size() < 8 ? first : second).AddTensor(t.name, t.dims);
    }
    for (int i = 0; i < 2; ++i) {
      RawGguf& g = i == 0 ? first : second;
      g.Set("split.no", GgufType::kUint16, Raw<uint16_t>(i));
      g.Set("split.count", GgufType::kUint16, Raw<uint16_t>(2));
      g.Set("split.tensors.count", GgufType::kInt32, Raw<int32_t>(20));
    }
    damage(first, second);
    std::ofstream(Path(1), std::ios::binary) << first.Bytes();
    std::ofstream(Path(2), std::ios::binary) << second.Bytes();
  }
  absl::Status Damaged(const std::function<void(RawGguf&, RawGguf&)>& damage) {
    Write(damage);
    return Model::Open(Path(1)).status();
  }

  const std::string stem_ = ::testing::TempDir() + "/shard-" +
                            ::testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(ShardTest, AnyShardOpensAll) {
  Write([](RawGguf&, RawGguf&) {});
  for (int shard : {1, 2}) {
    auto model = Model::Open(Path(shard));
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ((*model)->spec().tensors.size(), 20u);
    ASSERT_EQ((*model)->spec().files.size(), 2u);
    EXPECT_EQ((*model)->spec().tensors.back().file, 1);
    float first = 0;
    std::memcpy(&first, (*model)->TensorBytes(19).data(), 4);
    EXPECT_EQ(first, 0.5f);
  }
}

TEST_F(ShardTest, MissingShardIsNotFound) {
  Write([](RawGguf&, RawGguf&) {});
  ASSERT_EQ(std::remove(Path(2).c_str()), 0);
  const absl::Status status = Model::Open(Path(1)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("shard 2 of 2"));
}

TEST_F(ShardTest, WrongNumbersCountsAndDuplicatesAreNamed) {
  auto expect = [&](const char* text, const std::function<void(RawGguf&, RawGguf&)>& damage) {
    const absl::Status status = Damaged(damage);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  };
  // The second file is the first one again.
  expect("split.no", [](RawGguf& a, RawGguf& b) { b = a; });
  expect("split.no", [](RawGguf&, RawGguf& b) { b.Remove("split.no"); });
  expect("split.count",
         [](RawGguf&, RawGguf& b) { b.Set("split.count", GgufType::kUint16, Raw<uint16_t>(3)); });
  expect("split.count", [](RawGguf& a, RawGguf&) { a.Remove("split.count"); });
  expect("split.tensors.count", [](RawGguf&, RawGguf& b) {
    b.Set("split.tensors.count", GgufType::kInt32, Raw<int32_t>(21));
  });
  expect("already in shard 1",
         [](RawGguf& a, RawGguf& b) { b.tensors[0].name = a.tensors[0].name; });
}

}  // namespace
}  // namespace millrace
