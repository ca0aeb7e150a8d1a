// GGUF files that are wrong in one way each: every one gives an error that names file and field.
#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/model/raw_gguf.h"
#include "worker/model/gguf_model.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

// Copied to memory of exactly its size, so that the address sanitizer sees every byte past the end.
absl::Status OpenBytes(const std::string& bytes) {
  std::unique_ptr<std::byte[]> exact(new std::byte[bytes.size()]);
  std::memcpy(exact.get(), bytes.data(), bytes.size());
  auto files = OpenGguf(ReadMemory("bad.gguf", absl::MakeConstSpan(exact.get(), bytes.size())));
  if (!files.ok()) return files.status();
  return OpenGgufModel("bad.gguf", *std::move(files)).status();
}

struct Case {
  std::string name;
  std::function<void(RawGguf&)> damage;
  std::string expected;  // in the message
  absl::StatusCode code = absl::StatusCode::kDataLoss;
};

constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

std::vector<Case> HeaderCases() {
  return {
      {"WrongMagic", [](RawGguf& g) { g.magic = "GGML"; }, "magic"},
      {"BigEndianMagic", [](RawGguf& g) { g.magic = "FUGG"; }, "big-endian"},
      {"BigEndianVersion", [](RawGguf& g) { g.version = 3u << 24; }, "big-endian"},
      {"Version0", [](RawGguf& g) { g.version = 0; }, "version 0"},
      {"Version1", [](RawGguf& g) { g.version = 1; }, "version 1"},
      {"Version4", [](RawGguf& g) { g.version = 4; }, "version 4"},
      {"HugeTensorCount", [](RawGguf& g) { g.stated_tensors = kHuge; }, "tensor count"},
      {"LargeTensorCount", [](RawGguf& g) { g.stated_tensors = 1 << 20; }, "tensor count"},
      {"OneTensorTooMany", [](RawGguf& g) { g.stated_tensors = g.tensors.size() + 1; },
       "of tensor 20"},
      {"HugeKeyCount", [](RawGguf& g) { g.stated_keys = kHuge; }, "metadata count"},
      {"LargeKeyCount", [](RawGguf& g) { g.stated_keys = 1 << 20; }, "metadata count"},
      {"OneKeyTooMany", [](RawGguf& g) { g.stated_keys = g.keys.size() + 1; }, "name of tensor 0"},
      {"OneKeyTooFew", [](RawGguf& g) { g.stated_keys = g.keys.size() - 1; },
       "tensor 'tokenizer.ggml.eos_token_id'"},
  };
}

std::vector<Case> MetadataCases() {
  auto array = [](uint32_t type, uint64_t count) { return Raw(type) + Raw(count); };
  return {
      {"EmptyKeyName", [](RawGguf& g) { g.keys[3].name = ""; }, "name of metadata key 3"},
      {"LongKeyName", [](RawGguf& g) { g.keys[3].name = std::string(70000, 'x'); },
       "name of metadata key 3"},
      {"DuplicateKey", [](RawGguf& g) { g.keys.push_back(g.keys[0]); },
       "'general.architecture': appears twice"},
      {"UnknownValueType", [](RawGguf& g) { g.keys[2].type = 13; }, "value type 13"},
      {"HugeValueType", [](RawGguf& g) { g.keys[2].type = 0xffffffff; }, "value type 4294967295"},
      {"StringLengthOverflow",
       [](RawGguf& g) { g.Set("general.name", GgufType::kString, Raw(kHuge)); },
       "key 'general.name'"},
      {"StringLengthPastEnd",
       [](RawGguf& g) { g.Set("general.name", GgufType::kString, Raw<uint64_t>(1 << 30)); },
       "key 'general.name'"},
      {"BoolOf2",
       [](RawGguf& g) { g.Set("tokenizer.ggml.add_bos_token", GgufType::kBool, "\x02"); },
       "key 'tokenizer.ggml.add_bos_token'"},
      {"ArrayCountOverflow",
       [array](RawGguf& g) { g.Set("extra", GgufType::kArray, array(4, kHuge)); }, "key 'extra'"},
      {"ArrayProductOverflow",
       [array](RawGguf& g) { g.Set("extra", GgufType::kArray, array(12, kHuge / 8 + 2)); },
       "key 'extra'"},
      {"ArrayCountPastEnd",
       [array](RawGguf& g) { g.Set("extra", GgufType::kArray, array(0, 1 << 30)); }, "key 'extra'"},
      {"StringArrayCountLies",
       [array](RawGguf& g) { g.Set("extra", GgufType::kArray, array(8, 1 << 28)); }, "key 'extra'"},
      {"StringArrayElementPastEnd",
       [array](RawGguf& g) {
         g.Set("extra", GgufType::kArray, array(8, 1) + Raw<uint64_t>(1ull << 40));
       },
       "key 'extra'"},
      {"ArrayOfUnknownType",
       [array](RawGguf& g) { g.Set("extra", GgufType::kArray, array(99, 1)); },
       "array element type 99"},
      {"ArraysTooDeep",
       [array](RawGguf& g) {
         std::string nested;
         for (int i = 0; i < 200; ++i) nested += array(9, 1);
         g.Set("extra", GgufType::kArray, nested + array(0, 0));
       },
       "nested deeper"},
      {"NestedArrayCountLies",
       [array](RawGguf& g) { g.Set("extra", GgufType::kArray, array(9, 2) + array(4, kHuge)); },
       "key 'extra'"},
      {"AlignmentOfWrongType", [](RawGguf& g) { g.SetText("general.alignment", "32"); },
       "general.alignment"},
      {"AlignmentZero", [](RawGguf& g) { g.SetU32("general.alignment", 0); }, "general.alignment"},
      {"AlignmentNotPowerOfTwo", [](RawGguf& g) { g.SetU32("general.alignment", 48); },
       "general.alignment"},
      {"AlignmentHuge", [](RawGguf& g) { g.SetU32("general.alignment", 0x80000000); },
       "general.alignment"},
  };
}

std::vector<Case> TensorCases() {
  return {
      {"EmptyTensorName", [](RawGguf& g) { g.tensors[2].name = ""; }, "name of tensor 2"},
      {"DuplicateTensor", [](RawGguf& g) { g.tensors[3].name = "blk.0.attn_q.weight"; },
       "'blk.0.attn_q.weight': appears twice"},
      {"NoDimensions", [](RawGguf& g) { g.tensors[1].dims = {}; }, "has 0 dimensions"},
      {"FiveDimensions",
       [](RawGguf& g) {
         g.tensors[1].dims = {8, 1, 1, 1, 1};
       },
       "has 5 dimensions"},
      {"ZeroDimension",
       [](RawGguf& g) {
         g.tensors[0].dims = {8, 0};
       },
       "dimension 1 is 0"},
      {"DimensionPast63Bits",
       [](RawGguf& g) {
         g.tensors[0].dims = {8, 1ull << 63};
       },
       "dimension 1 is"},
      {"DimensionProductOverflows",
       [](RawGguf& g) {
         g.tensors[0].dims = {1ull << 33, 1ull << 33};
       },
       "product"},
      {"DimensionProductOverflowsToZero",
       [](RawGguf& g) {
         g.tensors[0].dims = {1ull << 32, 1ull << 32, 1ull << 32};
       },
       "product"},
      {"ByteSizeOverflows",
       [](RawGguf& g) {
         g.tensors[0].dims = {1ull << 31, 1ull << 31};
       },
       "size in bytes overflows"},
      {"TensorLargerThanFile",
       [](RawGguf& g) {
         g.tensors[0].dims = {8, 1 << 20};
       },
       "'token_embd.weight'"},
      {"UnsupportedType", [](RawGguf& g) { g.tensors[2].type = 23; }, "iq4_xs", kUnimplemented},
      {"RemovedType", [](RawGguf& g) { g.tensors[2].type = 4; }, "'blk.0.attn_q.weight'",
       kUnimplemented},
      {"UnknownType", [](RawGguf& g) { g.tensors[2].type = 0xffffffff; }, "4294967295",
       kUnimplemented},
      {"RowNotWholeBlocks", [](RawGguf& g) { g.tensors[2].type = 12; }, "not whole blocks of q4_K"},
      {"OffsetUnaligned", [](RawGguf& g) { g.tensors[1].offset += 4; }, "alignment"},
      {"OffsetPastEnd", [](RawGguf& g) { g.tensors[1].offset = 1 << 20; }, "pass the end"},
      {"OffsetAddOverflows", [](RawGguf& g) { g.tensors[1].offset = kHuge / 2 - 31; },
       "'blk.0.attn_norm.weight'"},
      {"OffsetPast63Bits", [](RawGguf& g) { g.tensors[1].offset = kHuge - 31; }, "out of range"},
      {"TensorsOverlap", [](RawGguf& g) { g.tensors[3].offset = g.tensors[2].offset + 32; },
       "overlaps"},
      {"SameOffsetTwice", [](RawGguf& g) { g.tensors[3].offset = g.tensors[2].offset; },
       "overlaps"},
      {"NoTensors", [](RawGguf& g) { g.tensors.clear(); }, "no tensors"},
      {"MissingEmbedding", [](RawGguf& g) { g.tensors.erase(g.tensors.begin()); },
       "'token_embd.weight': is missing"},
      {"MissingLayerTensor", [](RawGguf& g) { g.tensors.erase(g.tensors.begin() + 12); },
       "'blk.1.attn_k.weight': is missing"},
      {"MissingOutputNorm", [](RawGguf& g) { g.tensors.pop_back(); },
       "'output_norm.weight': is missing"},
      {"WrongShape",
       [](RawGguf& g) {
         g.Tensor("blk.1.attn_k.weight").dims = {4, 8};
       },
       "has shape [8, 4], expected [4, 8]"},
      {"WrongRank", [](RawGguf& g) { g.Tensor("blk.1.attn_k.weight").dims = {32}; },
       "'blk.1.attn_k.weight': has shape [32]"},
      {"EmbeddingOfRank1", [](RawGguf& g) { g.tensors[0].dims = {80}; },
       "'token_embd.weight': has shape"},
      {"TensorOfLayerPastTheLast",
       [](RawGguf& g) {
         g.AddTensor("blk.2.attn_q.weight", {8, 8});
       },
       "layer 2"},
      {"Experts",
       [](RawGguf& g) {
         g.AddTensor("blk.0.ffn_gate_exps.weight", {8, 12, 4});
       },
       "ffn_gate_exps", kUnimplemented},
      {"FeedForwardBias", [](RawGguf& g) { g.AddTensor("blk.0.ffn_up.bias", {12}); }, "ffn_up.bias",
       kUnimplemented},
      {"QueryNormInLlama",
       [](RawGguf& g) {
         g.AddTensor("blk.0.attn_q_norm.weight", {4});
         g.AddTensor("blk.0.attn_k_norm.weight", {4});
       },
       "attn_q_norm", kUnimplemented},
      {"RopeFactorsOfWrongLength", [](RawGguf& g) { g.AddTensor("rope_freqs.weight", {3}); },
       "rope_freqs.weight"},
      {"LongRopeFactors", [](RawGguf& g) { g.AddTensor("rope_factors_long.weight", {2}); },
       "rope_factors_long", kUnimplemented},
  };
}

std::vector<Case> ModelCases() {
  std::vector<Case> cases = {
      {"NoArchitecture", [](RawGguf& g) { g.Remove("general.architecture"); },
       "general.architecture"},
      {"ArchitectureIsANumber", [](RawGguf& g) { g.SetU32("general.architecture", 7); },
       "general.architecture"},
      {"UnknownArchitecture", [](RawGguf& g) { g.SetText("general.architecture", "mamba"); },
       "knows llama, qwen2, qwen3", kUnimplemented},
      {"ZeroLayers", [](RawGguf& g) { g.SetU32("llama.block_count", 0); }, "llama.block_count"},
      {"HugeLayers", [](RawGguf& g) { g.SetU32("llama.block_count", 0xffffffff); },
       "llama.block_count"},
      {"NegativeLayers",
       [](RawGguf& g) { g.Set("llama.block_count", GgufType::kInt32, Raw<int32_t>(-2)); },
       "llama.block_count"},
      {"LayersPast63Bits",
       [](RawGguf& g) { g.Set("llama.block_count", GgufType::kUint64, Raw(kHuge)); },
       "llama.block_count"},
      {"LayersIsAString", [](RawGguf& g) { g.SetText("llama.block_count", "2"); },
       "llama.block_count"},
      {"MoreLayersThanTensors", [](RawGguf& g) { g.SetU32("llama.block_count", 3); }, "blk.2."},
      {"HugeWidth", [](RawGguf& g) { g.SetU32("llama.embedding_length", 0x7fffffff); },
       "llama.embedding_length"},
      {"HeadsDoNotDivideWidth", [](RawGguf& g) { g.SetU32("llama.attention.head_count", 3); },
       "llama.attention.head_count"},
      {"HeadsNotMultipleOfKvHeads",
       [](RawGguf& g) {
         g.SetU32("llama.attention.head_count", 4);
         g.SetU32("llama.attention.head_count_kv", 3);
         g.SetU32("llama.rope.dimension_count", 2);
       },
       "not a multiple of the 3"},
      {"MoreKvHeadsThanHeads", [](RawGguf& g) { g.SetU32("llama.attention.head_count_kv", 4); },
       "key-value head count"},
      {"HeadArrayOfWrongLength",
       [](RawGguf& g) {
         g.Set("llama.attention.head_count", GgufType::kArray,
               RawArray<int32_t>(GgufType::kInt32, {2, 2, 2}));
       },
       "llama.attention.head_count"},
      {"HeadArrayOfStrings",
       [](RawGguf& g) {
         g.Set("llama.attention.head_count", GgufType::kArray, RawStrings({"2", "2"}));
       },
       "llama.attention.head_count"},
      {"FeedForwardArrayWithZero",
       [](RawGguf& g) {
         g.Set("llama.feed_forward_length", GgufType::kArray,
               RawArray<uint32_t>(GgufType::kUint32, {12, 0}));
       },
       "llama.feed_forward_length"},
      {"ValueLengthDiffers",
       [](RawGguf& g) {
         g.SetU32("llama.attention.key_length", 4);
         g.SetU32("llama.attention.value_length", 8);
       },
       "llama.attention.value_length", kUnimplemented},
      {"EpsilonIsNan",
       [](RawGguf& g) {
         g.SetF32("llama.attention.layer_norm_rms_epsilon",
                  std::numeric_limits<float>::quiet_NaN());
       },
       "layer_norm_rms_epsilon"},
      {"EpsilonIsNegative",
       [](RawGguf& g) { g.SetF32("llama.attention.layer_norm_rms_epsilon", -1.0f); }, "epsilon"},
      {"RopeBaseZero", [](RawGguf& g) { g.SetF32("llama.rope.freq_base", 0.0f); }, "rope base"},
      {"RopeDimsOdd", [](RawGguf& g) { g.SetU32("llama.rope.dimension_count", 3); },
       "rope dimension count"},
      {"RopeDimsPastHead", [](RawGguf& g) { g.SetU32("llama.rope.dimension_count", 6); },
       "rope dimension count"},
      {"Yarn",
       [](RawGguf& g) {
         g.SetText("llama.rope.scaling.type", "yarn");
         g.SetF32("llama.rope.scaling.factor", 4.0f);
       },
       "yarn", kUnimplemented},
      {"LinearFactorZero",
       [](RawGguf& g) {
         g.SetText("llama.rope.scaling.type", "linear");
         g.SetF32("llama.rope.scaling.factor", 0.0f);
       },
       "rope scaling factor"},
      {"ExpertCount", [](RawGguf& g) { g.SetU32("llama.expert_count", 8); }, "llama.expert_count",
       kUnimplemented},
      {"ZeroContext", [](RawGguf& g) { g.SetU32("llama.context_length", 0); },
       "llama.context_length"},
      {"SplitWithoutName",
       [](RawGguf& g) { g.Set("split.count", GgufType::kUint16, Raw<uint16_t>(2)); },
       "split.count"},
  };
  for (const char* key : {"llama.block_count", "llama.context_length", "llama.embedding_length",
                          "llama.feed_forward_length", "llama.attention.head_count",
                          "llama.attention.layer_norm_rms_epsilon"}) {
    std::string name = std::string("Missing_") + key;
    std::replace(name.begin(), name.end(), '.', '_');
    cases.push_back(
        {name, [key](RawGguf& g) { g.Remove(key); }, std::string("'") + key + "': is missing"});
  }
  return cases;
}

std::vector<Case> VocabularyCases() {
  auto strings = [](RawGguf& g, const char* key, std::vector<std::string> values) {
    g.Set(key, GgufType::kArray, RawStrings(values));
  };
  return {
      {"UnknownTokenizer", [](RawGguf& g) { g.SetText("tokenizer.ggml.model", "bert"); }, "bert",
       kUnimplemented},
      {"TokenizerModelIsANumber", [](RawGguf& g) { g.SetU32("tokenizer.ggml.model", 1); },
       "tokenizer.ggml.model"},
      {"MissingTokens", [](RawGguf& g) { g.Remove("tokenizer.ggml.tokens"); },
       "tokenizer.ggml.tokens"},
      {"NoTokens", [strings](RawGguf& g) { strings(g, "tokenizer.ggml.tokens", {}); },
       "tokenizer.ggml.tokens"},
      {"TokensAreNumbers",
       [](RawGguf& g) {
         g.Set("tokenizer.ggml.tokens", GgufType::kArray,
               RawArray<int32_t>(GgufType::kInt32, {1, 2}));
       },
       "tokenizer.ggml.tokens"},
      {"TokensIsAString", [](RawGguf& g) { g.SetText("tokenizer.ggml.tokens", "abc"); },
       "tokenizer.ggml.tokens"},
      {"MoreTokensThanRows",
       [strings](RawGguf& g) {
         strings(g, "tokenizer.ggml.tokens", std::vector<std::string>(11, "x"));
         g.Remove("tokenizer.ggml.token_type");
       },
       "11 tokens"},
      {"FewerTypesThanTokens",
       [](RawGguf& g) {
         g.Set("tokenizer.ggml.token_type", GgufType::kArray,
               RawArray<int32_t>(GgufType::kInt32, {1, 1}));
       },
       "tokenizer.ggml.token_type"},
      {"TokenTypeOutOfRange",
       [](RawGguf& g) {
         g.Set("tokenizer.ggml.token_type", GgufType::kArray,
               RawArray<int32_t>(GgufType::kInt32, {1, 1, 1, 1, 1, 1, 1, 1, 3, 7}));
       },
       "token 9 has type 7"},
      {"MissingMerges", [](RawGguf& g) { g.Remove("tokenizer.ggml.merges"); },
       "tokenizer.ggml.merges"},
      {"MergeWithoutSpace",
       [strings](RawGguf& g) {
         strings(g, "tokenizer.ggml.merges", {"a b", "cd"});
       },
       "merge 1"},
      {"MissingScores", [](RawGguf& g) { g.SetText("tokenizer.ggml.model", "llama"); },
       "tokenizer.ggml.scores"},
      {"FewerScoresThanTokens",
       [](RawGguf& g) {
         g.SetText("tokenizer.ggml.model", "llama");
         g.Set("tokenizer.ggml.scores", GgufType::kArray,
               RawArray<float>(GgufType::kFloat32, {0, 1}));
       },
       "tokenizer.ggml.scores"},
      {"BosOutOfRange", [](RawGguf& g) { g.SetU32("tokenizer.ggml.bos_token_id", 10); },
       "tokenizer.ggml.bos_token_id"},
      {"EosNegative",
       [](RawGguf& g) { g.Set("tokenizer.ggml.eos_token_id", GgufType::kInt32, Raw<int32_t>(-5)); },
       "tokenizer.ggml.eos_token_id"},
      {"ChatTemplateIsANumber", [](RawGguf& g) { g.SetU32("tokenizer.chat_template", 1); },
       "tokenizer.chat_template"},
  };
}

std::vector<Case> AllCases() {
  std::vector<Case> all;
  for (auto part :
       {HeaderCases(), MetadataCases(), TensorCases(), ModelCases(), VocabularyCases()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

TEST(MalformedGgufTest, TheUndamagedFileOpens) { EXPECT_TRUE(OpenBytes(TinyLlama().Bytes()).ok()); }

TEST(MalformedGgufTest, AtLeastFiftyKinds) {
  std::set<std::string> names;
  for (const Case& c : AllCases()) EXPECT_TRUE(names.insert(c.name).second) << c.name;
  EXPECT_GE(names.size(), 50u);
}

class MalformedGgufCase : public ::testing::TestWithParam<Case> {};

TEST_P(MalformedGgufCase, GivesAnErrorThatNamesFileAndField) {
  RawGguf file = TinyLlama();
  GetParam().damage(file);
  const absl::Status status = OpenBytes(file.Bytes());
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("bad.gguf"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().expected));
}

INSTANTIATE_TEST_SUITE_P(All, MalformedGgufCase, ::testing::ValuesIn(AllCases()),
                         [](const auto& test) { return test.param.name; });

TEST(MalformedGgufTest, TruncatedAnywhereIsAnError) {
  const std::string whole = TinyLlama().Bytes();
  // The last tensor's padding may go; nothing before it.
  const size_t needed = whole.size();
  for (size_t length = 0; length < needed; ++length) {
    const absl::Status status = OpenBytes(whole.substr(0, length));
    ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << length << ": " << status;
    ASSERT_THAT(std::string(status.message()), HasSubstr("bad.gguf")) << length;
  }
}

TEST(MalformedGgufTest, AnyByteChangedNeverCrashes) {
  const std::string whole = TinyLlama().Bytes();
  int opened = 0, refused = 0;
  for (size_t i = 0; i < whole.size(); ++i) {
    for (uint8_t change : {0x01, 0x80, 0xff}) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ change);
      (OpenBytes(damaged).ok() ? opened : refused)++;
    }
  }
  EXPECT_GT(opened, 0);  // weights, names
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace millrace
