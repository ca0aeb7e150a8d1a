// Specs from a config.json alone: the same tensors as the shapes whose published configuration it
// is, and errors that name file and field.
#include "tools/config_spec.h"

#include <cctype>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "proto/convert.h"
#include "proto/placement_plan.h"
#include "tools/synth.h"
#include "tools/synth_spec.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Json = nlohmann::json;

Json Llama8b() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", 4096},
          {"num_hidden_layers", 32},
          {"num_attention_heads", 32},
          {"num_key_value_heads", 8},
          {"intermediate_size", 14336},
          {"vocab_size", 128256},
          {"max_position_embeddings", 131072},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 500000.0},
          {"attention_bias", false},
          {"tie_word_embeddings", false},
          {"rope_scaling",
           {{"rope_type", "llama3"},
            {"factor", 8.0},
            {"low_freq_factor", 1.0},
            {"high_freq_factor", 4.0},
            {"original_max_position_embeddings", 8192}}}};
}

Json Qwen2_7b() {
  return {{"architectures", {"Qwen2ForCausalLM"}},
          {"model_type", "qwen2"},
          {"hidden_size", 3584},
          {"num_hidden_layers", 28},
          {"num_attention_heads", 28},
          {"num_key_value_heads", 4},
          {"intermediate_size", 18944},
          {"vocab_size", 152064},
          {"max_position_embeddings", 32768},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 1000000.0},
          {"use_sliding_window", false},
          {"sliding_window", 131072},
          {"tie_word_embeddings", false}};
}

Json Qwen3_8b() {
  return {{"architectures", {"Qwen3ForCausalLM"}},
          {"model_type", "qwen3"},
          {"hidden_size", 4096},
          {"num_hidden_layers", 36},
          {"num_attention_heads", 32},
          {"num_key_value_heads", 8},
          {"head_dim", 128},
          {"intermediate_size", 12288},
          {"vocab_size", 151936},
          {"max_position_embeddings", 40960},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 1000000},
          {"attention_bias", false},
          {"tie_word_embeddings", false}};
}

Json Llama3b() {
  Json config = Llama8b();
  config.update({{"hidden_size", 3072},
                 {"num_hidden_layers", 28},
                 {"num_attention_heads", 24},
                 {"head_dim", 128},
                 {"intermediate_size", 8192},
                 {"tie_word_embeddings", true}});
  config["rope_scaling"]["factor"] = 32.0;
  return config;
}

std::string Write(const std::string& text) {
  const std::string path = ::testing::TempDir() + "/config.json";
  std::ofstream(path) << text;
  return path;
}

struct Published {
  std::string shape;
  Json config;
};

class ConfigSpecTest : public ::testing::TestWithParam<Published> {};

TEST_P(ConfigSpecTest, IsTheSpecOfTheShapeInEveryQuant) {
  const std::string path = Write(GetParam().config.dump());
  for (const std::string& quant : SynthQuantNames()) {
    absl::StatusOr<ModelSpec> got = SpecFromConfig(path, quant);
    ASSERT_TRUE(got.ok()) << quant << ": " << got.status();
    absl::StatusOr<ModelSpec> want = SynthModelSpec(GetParam().shape, quant);
    ASSERT_TRUE(want.ok());
    EXPECT_EQ(FingerprintOf(*got), FingerprintOf(*want)) << quant;
    got->name = want->name;
    got->files = want->files;  // named after the model
    EXPECT_EQ(ToProto(*got).ShortDebugString(), ToProto(*want).ShortDebugString()) << quant;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ConfigSpecTest,
                         ::testing::Values(Published{"llama-3.1-8b", Llama8b()},
                                           Published{"llama-3.2-3b", Llama3b()},
                                           Published{"qwen2.5-7b", Qwen2_7b()},
                                           Published{"qwen3-8b", Qwen3_8b()}),
                         [](const auto& param) {
                           std::string name;
                           for (char c : param.param.shape) name += std::isalnum(c) ? c : '_';
                           return name;
                         });

absl::Status StatusOf(const std::string& text, const std::string& quant = "Q4_K_M") {
  return SpecFromConfig(Write(text), quant).status();
}

TEST(ConfigSpecErrorTest, MissingFieldsAreNamedWithTheFile) {
  for (const char* field : {"model_type", "hidden_size", "num_hidden_layers", "num_attention_heads",
                            "intermediate_size", "vocab_size", "max_position_embeddings"}) {
    Json config = Llama8b();
    config.erase(field);
    const absl::Status status = StatusOf(config.dump());
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << field;
    EXPECT_THAT(status.message(), AllOf(HasSubstr("config.json"), HasSubstr(field)));
  }
}

TEST(ConfigSpecErrorTest, FieldsOfTheWrongTypeOrRangeAreNamed) {
  const std::vector<std::pair<std::string, Json>> wrong = {
      {"hidden_size", "4096"},
      {"num_hidden_layers", 0},
      {"num_hidden_layers", 1 << 20},
      {"vocab_size", -1},
      {"vocab_size", 1.5},
      {"intermediate_size", nullptr},
      {"architectures", "Llama"},
      {"tie_word_embeddings", "yes"},
  };
  for (const auto& [field, value] : wrong) {
    Json config = Llama8b();
    config[field] = value;
    const absl::Status status = StatusOf(config.dump());
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << field << " " << value;
    EXPECT_THAT(status.message(), AllOf(HasSubstr("config.json"), HasSubstr(field)));
  }
}

TEST(ConfigSpecErrorTest, WhatIsNotComputedIsNamed) {
  const std::vector<std::pair<std::string, Json>> wrong = {
      {"model_type", "mamba"},
      {"architectures", {"LlamaForSequenceClassification"}},
      {"attention_bias", true},
      {"quantization_config", {{"bits", 4}}},
  };
  for (const auto& [field, value] : wrong) {
    Json config = Llama8b();
    config[field] = value;
    const absl::Status status = StatusOf(config.dump());
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << field << ": " << status;
    EXPECT_THAT(status.message(), AllOf(HasSubstr("config.json"), HasSubstr(field)));
  }
}

TEST(ConfigSpecErrorTest, TextCutShortMissingFilesAndUnknownQuantsAreNamed) {
  const std::string text = Llama8b().dump();
  EXPECT_THAT(StatusOf(text.substr(0, text.size() / 2)).message(), HasSubstr("config.json"));
  EXPECT_THAT(StatusOf("[]").message(), HasSubstr("config.json"));
  EXPECT_EQ(SpecFromConfig("no/such/config.json", "Q8_0").status().code(),
            absl::StatusCode::kNotFound);
  const absl::Status quant = StatusOf(text, "Q9_X");
  EXPECT_EQ(quant.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(quant.message(), AllOf(HasSubstr("Q9_X"), HasSubstr("Q4_K_M")));
}

TEST(ConfigSpecErrorTest, TheFolderOfTheFileWillDo) {
  const std::string path = Write(Qwen3_8b().dump());
  const std::string folder = path.substr(0, path.find_last_of('/'));
  absl::StatusOr<ModelSpec> spec = SpecFromConfig(folder, "Q8_0");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(MayHoldConfig(folder));
  EXPECT_TRUE(MayHoldConfig(path));
  EXPECT_FALSE(MayHoldConfig("model.gguf"));
}

}  // namespace
}  // namespace millrace
