#include "tools/synth.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <cctype>
#include <cmath>
#include <csignal>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/placement_plan.h"
#include "tools/synth_blocks.h"
#include "tools/synth_shapes.h"
#include "tools/synth_spec.h"
#include "worker/model/model.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(SynthTest, EveryTinyShapeAndQuantOpens) {
  for (const char* shape : {"tiny-llama", "tiny-qwen2", "tiny-qwen3"}) {
    for (const std::string& quant : SynthQuantNames()) {
      SynthOptions options;
      options.shape = shape;
      options.quant = quant;
      options.path = ::testing::TempDir() + "/synth-open.gguf";
      ASSERT_TRUE(WriteSyntheticModel(options).ok());
      auto model = Model::Open(options.path);
      ASSERT_TRUE(model.ok()) << shape << " " << quant << ": " << model.status();
      EXPECT_EQ((*model)->vocabulary().tokens.size(), static_cast<size_t>((*model)->spec().vocab));
      EXPECT_EQ((*model)->spec().rope.frequency_factors.empty(),
                std::string(shape) != "tiny-llama");
      auto spec = SynthModelSpec(shape, quant);
      ASSERT_TRUE(spec.ok()) << spec.status();
      EXPECT_EQ(FingerprintOf(*spec), FingerprintOf((*model)->spec())) << shape << " " << quant;
      EXPECT_EQ(spec->rope.frequency_factors, (*model)->spec().rope.frequency_factors);
      EXPECT_EQ(spec->context_length, (*model)->spec().context_length);
    }
  }
}

TEST(SynthTest, SameSeedGivesTheSameBytesWhateverTheThreads) {
  SynthOptions options;
  options.shape = "tiny-llama";
  options.quant = "Q4_K_M";
  options.path = ::testing::TempDir() + "/synth-a.gguf";
  options.threads = 1;
  ASSERT_TRUE(WriteSyntheticModel(options).ok());
  const std::string one = ReadAll(options.path);
  options.threads = 3;
  ASSERT_TRUE(WriteSyntheticModel(options).ok());
  EXPECT_TRUE(one == ReadAll(options.path));
  options.seed = 1;
  ASSERT_TRUE(WriteSyntheticModel(options).ok());
  EXPECT_FALSE(one == ReadAll(options.path));
}

TEST(SynthTest, ShapesAndQuantsOfTheBenchmarksExist) {
  EXPECT_THAT(SynthShapeNames(), testing::IsSupersetOf({"llama-3.1-8b", "llama-3.1-70b"}));
  EXPECT_THAT(SynthQuantNames(), testing::IsSupersetOf({"Q4_K_M", "Q8_0", "F16"}));
}

TEST(SynthTest, UnknownNamesListTheKnownOnes) {
  SynthOptions options;
  options.shape = "llama-9";
  options.quant = "Q4_K_M";
  absl::Status status = WriteSyntheticModel(options);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("llama-3.1-70b"));
  options.shape = "tiny-llama";
  options.quant = "Q9";
  EXPECT_THAT(std::string(WriteSyntheticModel(options).message()), HasSubstr("Q3_K_M"));
}

TEST(SynthTest, FailureLeavesNoPartialFile) {
  SynthOptions options;
  options.shape = "tiny-llama";
  options.quant = "F16";
  options.path = ::testing::TempDir() + "/synth-is-a-folder";
  mkdir(options.path.c_str(), 0755);  // the finished file cannot take this name
  EXPECT_FALSE(WriteSyntheticModel(options).ok());
  struct stat info {};
  EXPECT_NE(stat((options.path + ".partial").c_str(), &info), 0);
}

// A limit on file size stands for a full disk: both refuse the reservation.
TEST(SynthTest, NoRoomIsResourceExhaustedAndLeavesNothing) {
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  rlimit small = old;
  small.rlim_cur = 64 << 10;
  auto* handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  SynthOptions options;
  options.shape = "tiny-llama";
  options.quant = "F16";
  options.path = ::testing::TempDir() + "/synth-no-room.gguf";
  const absl::Status status = WriteSyntheticModel(options);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  struct stat info {};
  EXPECT_NE(stat((options.path + ".partial").c_str(), &info), 0);
  EXPECT_NE(stat(options.path.c_str(), &info), 0);
}

// The mixture rule against files that the field's own quantiser made.
TEST(SynthTest, TypeMixtureIsThatOfTheQuantisedQuills) {
  const std::string folder = "../shared/models/";
  struct stat info {};
  if (stat(folder.c_str(), &info) != 0) GTEST_SKIP() << folder << " is absent";
  for (const SynthQuant& quant : SynthQuants()) {
    std::string name(quant.name);
    for (char& c : name) c = static_cast<char>(std::tolower(c));
    const std::string path = folder + "quill-7m-" + name + ".gguf";
    if (stat(path.c_str(), &info) != 0) continue;
    auto model = Model::Open(path);
    ASSERT_TRUE(model.ok()) << model.status();
    const ModelSpec& spec = (*model)->spec();
    for (const TensorSpec& t : spec.tensors) {
      const DType expected = SynthTensorType(
          quant, t.role, t.layer, static_cast<int>(spec.layers.size()),
          spec.layers[0].heads / spec.layers[0].kv_heads, spec.tied_output, t.cols());
      EXPECT_EQ(DTypeName(t.dtype), DTypeName(expected)) << path << " " << t.name;
    }
  }
}

TEST(SynthTest, RandomFloatsHaveTheStatedSpread) {
  std::vector<float> values(1 << 16);
  FillRandomBlocks(DType::kF32, 1.0, 0.25, 7,
                   absl::MakeSpan(reinterpret_cast<std::byte*>(values.data()), values.size() * 4));
  double sum = 0, squares = 0;
  for (float v : values) sum += v;
  const double mean = sum / static_cast<double>(values.size());
  for (float v : values) squares += (v - mean) * (v - mean);
  EXPECT_NEAR(mean, 1.0, 0.01);
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(values.size())), 0.25, 0.01);
}

TEST(SynthTest, HalfBitsRoundsToNearestEven) {
  EXPECT_EQ(HalfBits(1.0f), 0x3c00);
  EXPECT_EQ(HalfBits(-2.0f), 0xc000);
  EXPECT_EQ(HalfBits(65504.0f), 0x7bff);
  EXPECT_EQ(HalfBits(65520.0f), 0x7c00);
  EXPECT_EQ(HalfBits(5.9604645e-8f), 0x0001);
  EXPECT_EQ(HalfBits(6.1035156e-5f), 0x0400);
  EXPECT_EQ(HalfBits(1.0f + 1.0f / 2048), 0x3c00);
  EXPECT_EQ(HalfBits(1.0f + 3.0f / 2048), 0x3c02);
}

}  // namespace
}  // namespace millrace
