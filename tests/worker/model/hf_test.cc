// Hugging Face folders: config.json, safetensors, tokenizer.json, each on its own.
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/model/raw_gguf.h"
#include "worker/model/hf_config.h"
#include "worker/model/hf_tokenizer.h"
#include "worker/model/rope_scaling.h"
#include "worker/model/safetensors.h"

namespace millrace {
namespace {

using ::nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

json LlamaConfig() {
  return {{"model_type", "llama"},
          {"hidden_size", 512},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 8},
          {"num_key_value_heads", 2},
          {"intermediate_size", 1024},
          {"max_position_embeddings", 131072},
          {"rms_norm_eps", 1e-5},
          {"hidden_act", "silu"}};
}

absl::StatusOr<HfConfig> Read(const json& config) {
  return ReadHfConfig(JsonFields("config.json", config));
}

TEST(HfConfigTest, ReadsBothFormsOfRopeParametersAlike) {
  const json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
  json old_form = LlamaConfig();
  old_form["rope_theta"] = 500000.0;
  old_form["rope_scaling"] = scaling;
  json new_form = LlamaConfig();
  new_form["rope_parameters"] = scaling;
  new_form["rope_parameters"]["rope_theta"] = 500000.0;
  auto a = Read(old_form);
  auto b = Read(new_form);
  ASSERT_TRUE(a.ok()) << a.status();
  ASSERT_TRUE(b.ok()) << b.status();
  EXPECT_EQ(a->spec.rope.base, 500000.0f);
  EXPECT_EQ(b->spec.rope.base, 500000.0f);
  EXPECT_EQ(a->spec.rope.frequency_factors.size(), 32u);
  EXPECT_EQ(a->spec.rope.frequency_factors, b->spec.rope.frequency_factors);
  EXPECT_EQ(a->spec.rope.style, RopeStyle::kHalfSplit);
}

TEST(RopeScalingTest, Llama3KeepsFastFrequenciesAndDividesSlowOnes) {
  const std::vector<float> f = Llama3FrequencyFactors(500000.0, 128, {8, 1, 4, 8192});
  ASSERT_EQ(f.size(), 64u);
  EXPECT_EQ(f.front(), 1.0f);
  EXPECT_EQ(f.back(), 8.0f);
  EXPECT_TRUE(std::is_sorted(f.begin(), f.end()));
  // Pair 32: wavelength 2 pi sqrt(500000) = 4442.9, so 1.8438 turns; smooth 0.28128.
  EXPECT_NEAR(f[32], 1.0 / ((1 - 0.28128) / 8 + 0.28128), 1e-3);
}

TEST(HfConfigTest, MistralWindowCapsTheContext) {
  json config = LlamaConfig();
  config["model_type"] = "mistral";
  config["sliding_window"] = 4096;
  EXPECT_EQ(Read(config)->spec.context_length, 4096);
  EXPECT_EQ(Read(config)->spec.architecture, "llama");
  config["model_type"] = "qwen2";  // counts only when it is switched on
  EXPECT_EQ(Read(config)->spec.context_length, 131072);
  config["use_sliding_window"] = true;
  EXPECT_EQ(Read(config)->spec.context_length, 4096);
  config["sliding_window"] = nullptr;
  EXPECT_EQ(Read(config)->spec.context_length, 131072);
}

TEST(HfConfigTest, RefusesWhatItCannotComputeByName) {
  auto expect = [](const char* key, json value, absl::StatusCode code, const char* text) {
    json config = LlamaConfig();
    config[key] = std::move(value);
    const absl::Status status = Read(config).status();
    EXPECT_EQ(status.code(), code) << key << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
    EXPECT_THAT(std::string(status.message()), HasSubstr("config.json"));
  };
  const auto unimplemented = absl::StatusCode::kUnimplemented;
  const auto data_loss = absl::StatusCode::kDataLoss;
  expect("model_type", "gemma3", unimplemented, "knows llama, qwen2, qwen3");
  expect("hidden_act", "gelu", unimplemented, "hidden_act");
  expect("mlp_bias", true, unimplemented, "mlp_bias");
  expect("rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}, unimplemented, "yarn");
  expect("rope_parameters", {{"rope_type", "dynamic"}, {"factor", 4.0}}, unimplemented, "dynamic");
  expect("quantization_config", json::object(), unimplemented, "quantization_config");
  expect("rope_scaling", {{"rope_type", "llama3"}}, data_loss, "rope_scaling.factor");
  expect("hidden_size", -1, data_loss, "hidden_size");
  expect("hidden_size", "512", data_loss, "hidden_size");
  expect("hidden_size", 1e300, data_loss, "hidden_size");
  expect("num_hidden_layers", 18446744073709551615u, data_loss, "num_hidden_layers");
  expect("num_attention_heads", 7, data_loss, "num_attention_heads");
  expect("num_key_value_heads", 3, data_loss, "not a multiple of the 3");
  expect("head_dim", 0, data_loss, "head_dim");
  expect("max_position_embeddings", nullptr, data_loss, "max_position_embeddings");
}

// --- safetensors ---

std::string Safetensors(const std::string& header, size_t data_bytes) {
  return Raw<uint64_t>(header.size()) + header + std::string(data_bytes, '\0');
}

absl::Status Parse(const std::string& bytes) {
  auto reader = ReadMemory(
      "x.safetensors",
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()));
  return ParseSafetensors(*reader).status();
}

std::string Pad(std::string header) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return header;
}

TEST(SafetensorsTest, MalformedFilesAreNamed) {
  const std::string good = Pad(R"({"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},)"
                               R"("b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}})");
  ASSERT_TRUE(Parse(Safetensors(good, 16)).ok()) << Parse(Safetensors(good, 16));
  for (size_t length = 0; length < 8 + good.size() + 16; ++length) {
    EXPECT_FALSE(Parse(Safetensors(good, 16).substr(0, length)).ok()) << length;
  }
  auto expect = [](const std::string& header, size_t data, const char* text) {
    const absl::Status status = Parse(Safetensors(Pad(header), data));
    EXPECT_FALSE(status.ok()) << header;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text)) << header;
    EXPECT_THAT(std::string(status.message()), HasSubstr("x.safetensors"));
  };
  auto entry = [](const std::string& dtype, const std::string& shape, const std::string& range) {
    return R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + range +
           "}}";
  };
  EXPECT_THAT(std::string(Parse(Raw<uint64_t>(1ull << 60) + "{}").message()),
              HasSubstr("header length"));
  expect("[1]", 0, "JSON object");
  expect("{\"a\":", 0, "not valid JSON");
  expect(R"({"a":3})", 0, "tensor 'a'");
  expect(entry("I64", "[1]", "[0,8]"), 8, "'I64' is not supported");
  expect(entry("F8_E4M3", "[8]", "[0,8]"), 8, "F8_E4M3");
  expect(entry("F32", "[2]", "[0,4]"), 4, "data_offsets");
  expect(entry("F32", "[2]", "[8,0]"), 8, "data_offsets");
  expect(entry("F32", "[2]", "[0]"), 8, "data_offsets");
  expect(entry("F32", "[2]", "[0,-8]"), 8, "data_offsets");
  expect(entry("F32", "[2]", "[0,8]"), 4, "passes the end");
  expect(entry("F32", "[2]", "[8,16]"), 16, "after a gap");
  expect(entry("F32", "[1]", "[0,4]"), 8, "belong to none");
  expect(entry("F32", "[4294967296,4294967296]", "[0,0]"), 0, "overflows");
  expect(entry("F32", "[0]", "[0,0]"), 0, "dimension of 0");
  expect(entry("F32", "[1.5]", "[0,4]"), 4, "shape");
  expect(entry("F32", "[]", "[0,4]"), 4, "shape");
  expect(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
         R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
         4, "inside another");
  expect(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
         R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
         4, "'a' appears twice");
}

TEST(SafetensorsTest, IndexAndShardsAreCrossChecked) {
  const std::string folder = ::testing::TempDir() + "/sharded-safetensors";
  mkdir(folder.c_str(), 0755);
  auto write = [&](const std::string& name, const std::string& bytes) {
    std::ofstream(folder + "/" + name, std::ios::binary) << bytes;
  };
  auto shard = [](const std::string& tensor) {
    return Safetensors(
        Pad(R"({")" + tensor + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})"), 4);
  };
  auto index = [&](const json& map) {
    write("model.safetensors.index.json", json{{"weight_map", map}}.dump());
    return OpenSafetensors(folder);
  };
  write("one.safetensors", shard("a"));
  write("two.safetensors", shard("b"));
  auto good = index({{"a", "one.safetensors"}, {"b", "two.safetensors"}});
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(good->files.size(), 2u);
  EXPECT_EQ(good->tensors[1].file, 1);
  auto expect = [&](const json& map, const char* text) {
    auto opened = index(map);
    EXPECT_FALSE(opened.ok()) << map;
    EXPECT_THAT(std::string(opened.status().message()), HasSubstr(text));
  };
  expect({{"a", "two.safetensors"}, {"b", "one.safetensors"}}, "does not list it in this shard");
  expect({{"a", "one.safetensors"}, {"b", "one.safetensors"}}, "1 of the 2");
  expect({{"a", "three.safetensors"}}, "three.safetensors");
  expect({{"a", "../one.safetensors"}}, "not a .safetensors file name");
  expect({{"a", 1}}, "not a file name");
}

// --- tokenizer.json ---

json Bytes(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", use_regex}};
}
json Split(const std::string& regex) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}
json Sequence(std::vector<json> steps) { return {{"type", "Sequence"}, {"pretokenizers", steps}}; }
json Digits(bool individual) { return {{"type", "Digits"}, {"individual_digits", individual}}; }

TEST(HfPreTokenizerTest, RecognisesTheFamilies) {
  const std::string words = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)";
  const std::string rest = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  auto name = [](const json& pre) { return RecognisePreTokenizer(pre).value_or("?"); };
  EXPECT_EQ(name(Sequence({Split(words + R"(\p{N}{1,3})" + rest), Bytes(false)})), "llama-bpe");
  EXPECT_EQ(name(Sequence({Split(words + R"(\p{N})" + rest), Bytes(false)})), "qwen2");
  EXPECT_EQ(name(Bytes(true)), "gpt-2");
  EXPECT_EQ(name(Sequence({Digits(true), Bytes(true)})), "starcoder");
  EXPECT_EQ(name(Sequence({{{"type", "Punctuation"}, {"behavior", "Contiguous"}},
                           Bytes(true),
                           Digits(false),
                           Split("[0-9][0-9][0-9]")})),
            "falcon");
  EXPECT_EQ(name(Sequence({Split("[\r\n]"), Split(R"(\s?\p{L}+)"), Split(R"(\s?\p{P}+)"),
                           Split("[一-龥ࠀ-一가-퟿]+"), Digits(true), Bytes(false)})),
            "deepseek-coder");
  EXPECT_EQ(name(Sequence({Split(words + R"(\p{N}{1,2})" + rest), Bytes(false)})), "?");
  const absl::Status status = RecognisePreTokenizer(Split("[abc]")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("split [abc]"));
}

class HfTokenizerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "/hf-tokenizer-" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    mkdir(folder_.c_str(), 0755);
  }
  void Write(const std::string& name, const json& content) {
    std::ofstream(folder_ + "/" + name) << content.dump();
  }
  std::string folder_;
};

TEST_F(HfTokenizerTest, SentencePieceScoresFollowTheMerges) {
  Write("tokenizer.json",
        {{"added_tokens",
          {{{"id", 0}, {"content", "<unk>"}, {"special", true}},
           {{"id", 1}, {"content", "<s>"}, {"special", true}},
           {{"id", 2}, {"content", "</s>"}, {"special", true}}}},
         {"normalizer",
          {{"type", "Sequence"},
           {"normalizers",
            {{{"type", "Prepend"}, {"prepend", "▁"}},
             {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}}},
         {"pre_tokenizer", nullptr},
         {"model",
          {{"type", "BPE"},
           {"byte_fallback", true},
           {"unk_token", "<unk>"},
           {"vocab",
            {{"<unk>", 0},
             {"<s>", 1},
             {"</s>", 2},
             {"<0x0A>", 3},
             {"a", 4},
             {"b", 5},
             {"ab", 6},
             {"aab", 7}}},
           {"merges", {"a b", "a ab"}}}}});
  Write("tokenizer_config.json", {{"bos_token", {{"content", "<s>"}}}, {"eos_token", "</s>"}});
  auto v = ReadHfVocabulary(folder_);
  ASSERT_TRUE(v.ok()) << v.status();
  EXPECT_EQ(v->kind, VocabularyKind::kSentencePiece);
  EXPECT_THAT(v->types, ElementsAre(TokenType::kUnknown, TokenType::kControl, TokenType::kControl,
                                    TokenType::kByte, TokenType::kNormal, TokenType::kNormal,
                                    TokenType::kNormal, TokenType::kNormal));
  EXPECT_EQ(v->scores[6], 0.0f);
  EXPECT_EQ(v->scores[7], -1.0f);
  EXPECT_LT(v->scores[4], v->scores[7]);
  EXPECT_TRUE(v->add_space_prefix);
  EXPECT_TRUE(v->add_bos);
  EXPECT_EQ(v->bos, 1);
  EXPECT_EQ(v->unknown, 0);
  EXPECT_THAT(v->end_of_generation, ElementsAre(2));
}

TEST_F(HfTokenizerTest, ByteLevelReadsBothMergeFormsAndHoles) {
  json tokenizer = {{"added_tokens",
                     {{{"id", 4}, {"content", "<|im_end|>"}, {"special", true}},
                      {{"id", 6}, {"content", "<tool>"}, {"special", false}}}},
                    {"pre_tokenizer", Bytes(true)},
                    {"model",
                     {{"type", "BPE"},
                      {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}, {"c", 3}}},
                      {"merges", {"a b", json::array({"ab", "c"})}}}}};
  Write("tokenizer.json", tokenizer);
  Write("generation_config.json", {{"eos_token_id", {4, 3}}});
  auto v = ReadHfVocabulary(folder_);
  ASSERT_TRUE(v.ok()) << v.status();
  EXPECT_EQ(v->pre_tokenizer, "gpt-2");
  EXPECT_THAT(v->merges, ElementsAre(std::pair("a", "b"), std::pair("ab", "c")));
  EXPECT_EQ(v->types[4], TokenType::kControl);
  EXPECT_EQ(v->types[5], TokenType::kUnused);
  EXPECT_EQ(v->types[6], TokenType::kUserDefined);
  EXPECT_FALSE(v->add_bos);
  EXPECT_THAT(v->end_of_generation, ElementsAre(3, 4));

  auto expect = [&](const std::function<void(json&)>& damage, const char* text) {
    json bad = tokenizer;
    damage(bad);
    Write("tokenizer.json", bad);
    const absl::Status status = ReadHfVocabulary(folder_).status();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
    EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json"));
  };
  expect([](json& t) { t["model"]["type"] = "Unigram"; }, "Unigram");
  expect([](json& t) { t["model"]["vocab"]["x"] = 1; }, "both have id 1");
  expect([](json& t) { t["model"]["vocab"]["x"] = -1; }, "out of range");
  expect([](json& t) { t["model"]["vocab"]["x"] = 9000000; }, "ids reach");
  expect([](json& t) { t["model"]["vocab"]["x"] = "1"; }, "no integer id");
  expect([](json& t) { t["model"]["merges"] = {"ab"}; }, "merges");
  expect([](json& t) { t["model"].erase("merges"); }, "merges");
  expect([](json& t) { t.erase("model"); }, "'model': is missing");
  expect([](json& t) { t["pre_tokenizer"] = nullptr; }, "pre_tokenizer");
  expect([](json& t) { t["added_tokens"] = {{{"id", 1}}}; }, "content");
}

}  // namespace
}  // namespace millrace
