// Opening whole models: the demo model, the quantised quills, the Hugging Face folder.
#include "worker/model/model.h"

#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

const char kModels[] = "../shared/models/";

bool Exists(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0;
}

void ExpectQuill(const ModelSpec& spec) {
  EXPECT_EQ(spec.architecture, "llama");
  EXPECT_EQ(spec.vocab, 4096);
  EXPECT_EQ(spec.d_model, 256);
  EXPECT_EQ(spec.context_length, 2048);
  EXPECT_FLOAT_EQ(spec.norm_epsilon, 1e-5f);
  EXPECT_TRUE(spec.tied_output);
  EXPECT_EQ(spec.rope.dims, 64);
  EXPECT_EQ(spec.rope.base, 10000.0f);
  ASSERT_EQ(spec.layers.size(), 8u);
  EXPECT_EQ(spec.layers[7].heads, 4);
  EXPECT_EQ(spec.layers[7].kv_heads, 2);
  EXPECT_EQ(spec.layers[7].head_dim, 64);
  EXPECT_EQ(spec.layers[7].d_ff, 768);
  EXPECT_EQ(spec.tensors.size(), 74u);
}

TEST(ModelTest, EmptyReferenceOpensTheEmbeddedModel) {
  auto model = Model::Open("");
  ASSERT_TRUE(model.ok()) << model.status();
  ExpectQuill((*model)->spec());
  EXPECT_EQ((*model)->spec().rope.style, RopeStyle::kInterleaved);
  EXPECT_EQ((*model)->spec().name, "Quill 7M");
  const Vocabulary& v = (*model)->vocabulary();
  EXPECT_EQ(v.kind, VocabularyKind::kByteLevelBpe);
  EXPECT_EQ(v.pre_tokenizer, "llama-bpe");
  EXPECT_EQ(v.tokens.size(), 4096u);
  EXPECT_EQ(v.merges.size(), 3838u);
  EXPECT_EQ(v.merges[0], (std::pair<std::string, std::string>("Ġ", "t")));
  EXPECT_EQ(v.bos, 4094);
  EXPECT_EQ(v.eos, 4095);
  EXPECT_EQ(v.end_of_generation, std::vector<TokenId>{4095});
  EXPECT_TRUE(v.add_bos);
  EXPECT_TRUE(v.ignore_merges);
  EXPECT_THAT(v.chat_template, HasSubstr("ASSISTANT:"));
}

TEST(ModelTest, OpensEveryQuantisedQuill) {
  if (!Exists(kModels)) GTEST_SKIP() << kModels << " is absent";
  for (const char* name : {"f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_0", "q4_k_m", "q4_1",
                           "q4_0", "q3_k_m", "q2_k"}) {
    const std::string path = std::string(kModels) + "quill-7m-" + name + ".gguf";
    auto model = Model::Open(path);
    ASSERT_TRUE(model.ok()) << model.status();
    ExpectQuill((*model)->spec());
    EXPECT_EQ((*model)->spec().parameters(), 7344384) << path;
    EXPECT_EQ((*model)->vocabulary().tokens.size(), 4096u);
  }
}

// Row r of a GGUF llama q or k is row PermutedRow(r) of the Hugging Face one: GGUF interleaves the
// halves of each head.
int64_t PermutedRow(int64_t row, int head_dim) {
  const int64_t head = row / head_dim, in_head = row % head_dim;
  return head * head_dim + (in_head % 2) * (head_dim / 2) + in_head / 2;
}

// Each F16 or F32 element as a float.
std::vector<float> Floats(const Model& model, int index) {
  const TensorSpec& t = model.spec().tensors[index];
  const auto bytes = model.TensorBytes(index);
  std::vector<float> out(t.rows() * t.cols());
  for (size_t i = 0; i < out.size(); ++i) {
    if (t.dtype == DType::kF32) {
      std::memcpy(&out[i], bytes.data() + 4 * i, 4);
    } else {
      _Float16 half;
      std::memcpy(&half, bytes.data() + 2 * i, 2);
      out[i] = static_cast<float>(half);
    }
  }
  return out;
}

TEST(ModelTest, HuggingFaceFolderIsTheSameModelAsTheGguf) {
  const std::string archive = std::string(kModels) + "quill-7m-hf.tar";
  if (!Exists(archive)) GTEST_SKIP() << archive << " is absent";
  const std::string folder = ::testing::TempDir() + "/quill-7m-hf-test";
  const std::string extract = "mkdir -p " + folder + " && tar xf " + archive + " -C " + folder;
  ASSERT_EQ(std::system(extract.c_str()), 0);
  auto hf = Model::Open(folder);
  ASSERT_TRUE(hf.ok()) << hf.status();
  auto gguf = Model::Open("");
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  ExpectQuill((*hf)->spec());
  EXPECT_EQ((*hf)->spec().rope.style, RopeStyle::kHalfSplit);
  EXPECT_TRUE((*hf)->spec().rope.frequency_factors.empty());

  const Vocabulary& a = (*hf)->vocabulary();
  const Vocabulary& b = (*gguf)->vocabulary();
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.pre_tokenizer, b.pre_tokenizer);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.types, b.types);
  EXPECT_EQ(a.merges, b.merges);
  EXPECT_EQ(a.bos, b.bos);
  EXPECT_EQ(a.eos, b.eos);
  EXPECT_EQ(a.end_of_generation, b.end_of_generation);
  EXPECT_EQ(a.add_bos, b.add_bos);
  EXPECT_EQ(a.ignore_merges, b.ignore_merges);
  EXPECT_EQ(a.chat_template, b.chat_template);

  for (size_t i = 0; i < (*gguf)->spec().tensors.size(); ++i) {
    const TensorSpec& g = (*gguf)->spec().tensors[i];
    const int other = (*hf)->spec().FindTensor(g.role, g.layer);
    ASSERT_GE(other, 0) << g.name;
    ASSERT_EQ((*hf)->spec().tensors[other].shape, g.shape) << g.name;
    const std::vector<float> left = Floats(**gguf, static_cast<int>(i));
    const std::vector<float> right = Floats(**hf, other);
    const bool rotated = g.role == TensorRole::kAttnQ || g.role == TensorRole::kAttnK;
    int64_t different = 0;
    for (int64_t r = 0; r < g.rows(); ++r) {
      const int64_t from = rotated ? PermutedRow(r, 64) : r;
      for (int64_t c = 0; c < g.cols(); ++c) {
        different += left[r * g.cols() + c] != right[from * g.cols() + c];
      }
    }
    EXPECT_EQ(different, 0) << g.name;
  }
}

TEST(ModelTest, FolderWithoutConfigSaysWhatItMissed) {
  auto model = Model::Open("tests");
  EXPECT_EQ(model.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("config.json"));
}

TEST(ModelTest, MissingFileIsNotFoundAndNamed) {
  auto model = Model::Open("no/such/model.gguf");
  EXPECT_EQ(model.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("no/such/model.gguf"));
}

TEST(ModelTest, FileInsideHuggingFaceFolderSaysToGiveTheFolder) {
  auto model = Model::Open("some/model.safetensors");
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("give the folder"));
}

TEST(ReadVocabularyTest, ReadsVocabulariesWithoutTensors) {
  const std::string folder = "../shared/tokenizers/";
  if (!Exists(folder)) GTEST_SKIP() << folder << " is absent";
  struct Case {
    const char* name;
    VocabularyKind kind;
    size_t tokens, merges;
    bool add_bos;
  };
  for (const Case& c : {Case{"llama-bpe", VocabularyKind::kByteLevelBpe, 128256, 280147, true},
                        Case{"qwen2", VocabularyKind::kByteLevelBpe, 151936, 151387, false},
                        Case{"gpt-2", VocabularyKind::kByteLevelBpe, 50257, 50000, false},
                        Case{"deepseek-llm", VocabularyKind::kByteLevelBpe, 102400, 99757, true},
                        Case{"starcoder", VocabularyKind::kByteLevelBpe, 49152, 48872, false},
                        Case{"llama-spm", VocabularyKind::kSentencePiece, 32000, 0, true}}) {
    auto v = ReadVocabulary(folder + "ggml-vocab-" + c.name + ".gguf");
    ASSERT_TRUE(v.ok()) << v.status();
    EXPECT_EQ(v->kind, c.kind) << c.name;
    EXPECT_EQ(v->tokens.size(), c.tokens) << c.name;
    EXPECT_EQ(v->types.size(), c.tokens) << c.name;
    EXPECT_EQ(v->merges.size(), c.merges) << c.name;
    EXPECT_EQ(v->add_bos, c.add_bos) << c.name;
    EXPECT_EQ(v->scores.size(), c.kind == VocabularyKind::kSentencePiece ? c.tokens : 0u);
    EXPECT_EQ(v->pre_tokenizer, c.kind == VocabularyKind::kByteLevelBpe ? c.name : "");
  }
}

TEST(ReadVocabularyTest, ModelOpenOfVocabularySaysThatThereAreNoTensors) {
  const std::string path = "../shared/tokenizers/ggml-vocab-llama-spm.gguf";
  if (!Exists(path)) GTEST_SKIP() << path << " is absent";
  auto model = Model::Open(path);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("no tensors"));
}

}  // namespace
}  // namespace millrace
