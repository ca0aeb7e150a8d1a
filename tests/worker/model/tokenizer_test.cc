#include "worker/model/tokenizer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "worker/model/model.h"
#include "worker/model/pre_tokenizer.h"

namespace millrace {
namespace {

constexpr char kCases[] = "../shared/tokenizers";

std::vector<std::string> SplitCases(const std::string& text) {
  constexpr absl::string_view kMark = "\n__ggml_vocab_test__\n";
  std::vector<std::string> cases;
  size_t at = 0;
  for (size_t mark; (mark = text.find(kMark.data(), at, kMark.size())) != std::string::npos;
       at = mark + kMark.size()) {
    cases.push_back(text.substr(at, mark - at));
  }
  return cases;
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream s;
  s << in.rdbuf();
  return s.str();
}

class VocabularyFile : public ::testing::TestWithParam<const char*> {};

TEST_P(VocabularyFile, EveryLineGivesItsTokens) {
  const std::string path = std::string(kCases) + "/ggml-vocab-" + GetParam() + ".gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not here";
  const auto vocabulary = ReadVocabulary(path);
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  const auto tokenizer = Tokenizer::Create(*vocabulary);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::vector<std::string> texts = SplitCases(ReadFile(path + ".inp"));
  std::istringstream lines(ReadFile(path + ".out"));
  ASSERT_GT(texts.size(), 20u);
  for (size_t i = 0; i < texts.size(); ++i) {
    std::string line;
    ASSERT_TRUE(std::getline(lines, line)) << "line " << i;
    std::istringstream numbers(line);
    std::vector<TokenId> expected;
    for (TokenId t; numbers >> t;) expected.push_back(t);
    EXPECT_EQ((*tokenizer)->Encode(texts[i], {false, false}), expected)
        << "text " << i << ": '" << texts[i] << "'";
    if (vocabulary->kind == VocabularyKind::kByteLevelBpe) {
      EXPECT_EQ((*tokenizer)->Decode((*tokenizer)->Encode(texts[i], {false, false})), texts[i]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, VocabularyFile,
                         ::testing::Values("llama-bpe", "qwen2", "llama-spm", "gpt-2",
                                           "deepseek-llm", "starcoder"));

using Pieces = std::vector<std::string>;
Pieces Split(const std::string& kind, const std::string& text) {
  Pieces out;
  for (absl::string_view p : PreTokenizer::Create(kind)->Split(text)) out.emplace_back(p);
  return out;
}

// Literal cases of each kind's published expression.
TEST(PreTokenizerTest, NumbersAndContractions) {
  EXPECT_EQ(Split("gpt-2", "I'll pay 12345 $"), (Pieces{"I", "'ll", " pay", " 12345", " $"}));
  EXPECT_EQ(Split("llama-bpe", "I'LL pay 12345"), (Pieces{"I", "'LL", " pay", " ", "123", "45"}));
  EXPECT_EQ(Split("qwen2", "a 123"), (Pieces{"a", " ", "1", "2", "3"}));
  EXPECT_EQ(Split("starcoder", "a 12"), (Pieces{"a", " ", "1", "2"}));
  EXPECT_EQ(Split("falcon", "x=12345!"), (Pieces{"x", "=", "123", "45", "!"}));
  EXPECT_EQ(Split("deepseek-coder", "ab 12"), (Pieces{"ab", " ", "1", "2"}));
  EXPECT_EQ(Split("deepseek-llm", "ab 12"), (Pieces{"ab", " ", "12"}));
}

TEST(PreTokenizerTest, SpacesAndNewlines) {
  EXPECT_EQ(Split("gpt-2", "a   b"), (Pieces{"a", "  ", " b"}));
  EXPECT_EQ(Split("llama-bpe", "a \n\n  b"), (Pieces{"a", " \n\n", " ", " b"}));
  EXPECT_EQ(Split("tekken", "HelloWorld  x"), (Pieces{"Hello", "World", " ", " x"}));
}

TEST(PreTokenizerTest, InvalidBytesStandAlone) {
  EXPECT_EQ(Split("gpt-2", "a\xff\xfe b"), (Pieces{"a", "\xff\xfe", " b"}));
  EXPECT_FALSE(PreTokenizer::Create("no-such-kind").ok());
}

TEST(PreTokenizerTest, LongRunsEndInTime) {
  for (const char* kind : {"gpt-2", "llama-bpe", "qwen2", "falcon", "tekken", "deepseek-llm"}) {
    for (const std::string& unit : {std::string(" "), std::string("a"), std::string("1")}) {
      std::string text, joined;
      for (int i = 0; i < 300000; ++i) text += unit;
      for (const std::string& p : Split(kind, text)) joined += p;
      EXPECT_EQ(joined, text) << kind;
    }
  }
}

class DemoTokenizer : public ::testing::Test {
 protected:
  std::unique_ptr<const Tokenizer> tokenizer_ = *Tokenizer::Create(*ReadVocabulary(""));
};

TEST_F(DemoTokenizer, RandomBytesRoundTripAndStreamInWholeCharacters) {
  std::mt19937 rng(3);
  const std::vector<std::string> alphabet = {"a", " ", "\n", "\xc3\xa9", "\xf0\x9f\xa6\x99", "Z",
                                             "\xe4\xb8\xad", "'s", "12"};
  for (int round = 0; round < 200; ++round) {
    std::string text;
    for (int i = 0; i < 30; ++i) text += alphabet[rng() % alphabet.size()];
    const std::vector<TokenId> tokens = tokenizer_->Encode(text, {false, false});
    EXPECT_EQ(tokenizer_->Decode(tokens), text);
    StreamDecoder decoder(tokenizer_.get(), true);
    std::string streamed;
    for (TokenId t : tokens) {
      const std::string piece = decoder.Push(t);
      EXPECT_EQ(ValidUtf8Prefix(piece), piece.size()) << "half a character";
      streamed += piece;
    }
    EXPECT_EQ(streamed + decoder.Finish(), text);
  }
}

TEST_F(DemoTokenizer, AnyBytesAreEncoded) {
  std::mt19937 rng(4);
  for (int round = 0; round < 200; ++round) {
    std::string bytes;
    for (int i = 0; i < 40; ++i) bytes += static_cast<char>(rng());
    std::string back;
    for (TokenId t : tokenizer_->Encode(bytes, {false, false})) back += tokenizer_->TokenBytes(t);
    EXPECT_EQ(back, bytes);
  }
}

TEST_F(DemoTokenizer, HeldBytesBecomeReplacementsAtTheEnd) {
  const std::vector<TokenId> tokens = tokenizer_->Encode("\xf0\x9f", {false, false});
  StreamDecoder decoder(tokenizer_.get(), true);
  std::string text;
  for (TokenId t : tokens) text += decoder.Push(t);
  EXPECT_EQ(text, "");
  EXPECT_EQ(decoder.Finish(), "\xef\xbf\xbd\xef\xbf\xbd");
}

}  // namespace
}  // namespace millrace
