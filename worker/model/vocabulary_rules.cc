#include "worker/model/vocabulary_rules.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

constexpr std::array<absl::string_view, 16> kEndNames = {"<|eot_id|>",
                                                         "<|im_end|>",
                                                         "<|end_of_text|>",
                                                         "<|endoftext|>",
                                                         "<|eom_id|>",
                                                         "</s>",
                                                         "<|end|>",
                                                         "<|return|>",
                                                         "<|call|>",
                                                         "<end_of_turn>",
                                                         "<EOT>",
                                                         "[EOT]",
                                                         "[EOS]",
                                                         "<|end_of_turn|>",
                                                         "<｜end▁of▁sentence｜>",
                                                         "<end_of_utterance>"};

}  // namespace

std::optional<std::pair<std::string, std::string>> SplitMerge(absl::string_view merge) {
  const size_t space = merge.size() < 3 ? absl::string_view::npos : merge.find(' ', 1);
  if (space == absl::string_view::npos || space + 1 == merge.size()) return std::nullopt;
  return std::pair(std::string(merge.substr(0, space)), std::string(merge.substr(space + 1)));
}

std::string CanonicalPreTokenizer(absl::string_view name) {
  if (name == "llama3" || name == "llama-v3") return "llama-bpe";
  if (name == "deepseek-r1-qwen" || name == "megrez") return "qwen2";
  if (name == "phi-2" || name == "roberta-bpe") return "gpt-2";
  return std::string(name);
}

bool AddsBosByConvention(const Vocabulary& vocabulary) {
  if (vocabulary.kind == VocabularyKind::kSentencePiece) return true;
  return vocabulary.pre_tokenizer == "llama-bpe" || vocabulary.pre_tokenizer == "tekken";
}

bool IgnoresMergesByConvention(const Vocabulary& vocabulary) {
  return vocabulary.kind == VocabularyKind::kByteLevelBpe &&
         (vocabulary.pre_tokenizer == "llama-bpe" || vocabulary.pre_tokenizer == "tekken");
}

void CollectEndOfGeneration(const std::vector<TokenId>& ids, Vocabulary& vocabulary) {
  std::vector<TokenId>& out = vocabulary.end_of_generation;
  for (TokenId id : ids) {
    if (id >= 0) out.push_back(id);
  }
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (vocabulary.types[i] != TokenType::kControl) continue;
    if (std::find(kEndNames.begin(), kEndNames.end(), vocabulary.tokens[i]) != kEndNames.end()) {
      out.push_back(static_cast<TokenId>(i));
    }
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
}

absl::Status PadVocabulary(const std::string& source, int64_t rows, Vocabulary& vocabulary) {
  if (vocabulary.kind == VocabularyKind::kNone) return absl::OkStatus();
  const int64_t tokens = static_cast<int64_t>(vocabulary.tokens.size());
  if (tokens > rows) {
    return absl::DataLossError(absl::StrCat(source, ": the vocabulary has ", tokens,
                                            " tokens, but the token embedding only ", rows,
                                            " rows"));
  }
  for (int64_t i = tokens; i < rows; ++i) {
    vocabulary.tokens.push_back(absl::StrCat("[PAD", i, "]"));
    vocabulary.types.push_back(TokenType::kUnused);
    if (vocabulary.kind == VocabularyKind::kSentencePiece) vocabulary.scores.push_back(-1e9f);
  }
  return absl::OkStatus();
}

}  // namespace millrace
