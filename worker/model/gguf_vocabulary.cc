#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/status_macros.h"
#include "worker/model/gguf_spec.h"
#include "worker/model/vocabulary_rules.h"

namespace millrace {
namespace {

absl::Status ReadTokens(const GgufMetadata& metadata, Vocabulary& vocabulary) {
  MILLRACE_ASSIGN_OR_RETURN(auto tokens, metadata.Strings("tokenizer.ggml.tokens"));
  if (!tokens) return metadata.Error("tokenizer.ggml.tokens", "is missing");
  if (tokens->empty()) return metadata.Error("tokenizer.ggml.tokens", "is empty");
  vocabulary.tokens.reserve(tokens->size());
  for (absl::string_view token : *tokens) vocabulary.tokens.emplace_back(token);

  constexpr char kTypes[] = "tokenizer.ggml.token_type";
  MILLRACE_ASSIGN_OR_RETURN(auto types, metadata.Integers(kTypes));
  vocabulary.types.assign(vocabulary.tokens.size(), TokenType::kNormal);
  if (!types) return absl::OkStatus();
  if (types->size() != vocabulary.tokens.size()) {
    return metadata.Error(kTypes, absl::StrCat("has ", types->size(), " elements, but there are ",
                                               vocabulary.tokens.size(), " tokens"));
  }
  for (size_t i = 0; i < types->size(); ++i) {
    const int64_t type = (*types)[i];
    // 0 is "undefined": some converters leave it for ordinary tokens.
    if (type < 0 || type > 6) {
      return metadata.Error(kTypes, absl::StrCat("token ", i, " has type ", type, ", not 0 to 6"));
    }
    vocabulary.types[i] = type == 0 ? TokenType::kNormal : static_cast<TokenType>(type);
  }
  return absl::OkStatus();
}

absl::Status ReadScores(const GgufMetadata& metadata, Vocabulary& vocabulary) {
  constexpr char kScores[] = "tokenizer.ggml.scores";
  MILLRACE_ASSIGN_OR_RETURN(auto scores, metadata.Floats(kScores));
  if (!scores)
    return metadata.Error(kScores, "is missing, and a SentencePiece vocabulary needs it");
  if (scores->size() != vocabulary.tokens.size()) {
    return metadata.Error(kScores, absl::StrCat("has ", scores->size(), " elements, but there are ",
                                                vocabulary.tokens.size(), " tokens"));
  }
  vocabulary.scores = *std::move(scores);
  return absl::OkStatus();
}

absl::Status ReadMerges(const GgufMetadata& metadata, Vocabulary& vocabulary) {
  constexpr char kMerges[] = "tokenizer.ggml.merges";
  MILLRACE_ASSIGN_OR_RETURN(auto merges, metadata.Strings(kMerges));
  if (!merges) return metadata.Error(kMerges, "is missing, and a BPE vocabulary needs it");
  vocabulary.merges.reserve(merges->size());
  for (size_t i = 0; i < merges->size(); ++i) {
    auto pair = SplitMerge((*merges)[i]);
    if (!pair) {
      return metadata.Error(kMerges, absl::StrCat("merge ", i, ", \"", (*merges)[i],
                                                  "\", is not two pieces and a space"));
    }
    vocabulary.merges.push_back(*std::move(pair));
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenId> ReadId(const GgufMetadata& metadata, absl::string_view key,
                               const Vocabulary& vocabulary) {
  const int64_t count = static_cast<int64_t>(vocabulary.tokens.size());
  // -1 and its unsigned twin say "none".
  MILLRACE_ASSIGN_OR_RETURN(std::optional<int64_t> id, metadata.Integer(key, -1, 0xffffffffLL));
  if (!id || *id == -1 || *id == 0xffffffffLL) return -1;
  if (*id >= count) {
    return metadata.Error(key, absl::StrCat(*id, " is outside the vocabulary of ", count));
  }
  return static_cast<TokenId>(*id);
}

absl::Status ReadSpecialIds(const GgufMetadata& metadata, Vocabulary& vocabulary) {
  auto read = [&](absl::string_view name) {
    return ReadId(metadata, absl::StrCat("tokenizer.ggml.", name), vocabulary);
  };
  MILLRACE_ASSIGN_OR_RETURN(vocabulary.bos, read("bos_token_id"));
  MILLRACE_ASSIGN_OR_RETURN(vocabulary.eos, read("eos_token_id"));
  MILLRACE_ASSIGN_OR_RETURN(vocabulary.unknown, read("unknown_token_id"));
  MILLRACE_ASSIGN_OR_RETURN(vocabulary.padding, read("padding_token_id"));
  MILLRACE_ASSIGN_OR_RETURN(TokenId eot, read("eot_token_id"));
  MILLRACE_ASSIGN_OR_RETURN(TokenId eom, read("eom_token_id"));
  CollectEndOfGeneration({vocabulary.eos, eot, eom}, vocabulary);
  return absl::OkStatus();
}

absl::Status ReadFlags(const GgufMetadata& metadata, Vocabulary& vocabulary) {
  MILLRACE_ASSIGN_OR_RETURN(auto add_bos, metadata.Bool("tokenizer.ggml.add_bos_token"));
  MILLRACE_ASSIGN_OR_RETURN(auto add_eos, metadata.Bool("tokenizer.ggml.add_eos_token"));
  MILLRACE_ASSIGN_OR_RETURN(auto prefix, metadata.Bool("tokenizer.ggml.add_space_prefix"));
  MILLRACE_ASSIGN_OR_RETURN(auto chat, metadata.String("tokenizer.chat_template"));
  vocabulary.add_bos = add_bos.value_or(AddsBosByConvention(vocabulary));
  vocabulary.add_eos = add_eos.value_or(false);
  vocabulary.add_space_prefix = prefix.value_or(true);
  vocabulary.ignore_merges = IgnoresMergesByConvention(vocabulary);
  vocabulary.chat_template = chat.value_or("");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Vocabulary> BuildGgufVocabulary(const GgufMetadata& metadata) {
  Vocabulary vocabulary;
  MILLRACE_ASSIGN_OR_RETURN(std::optional<std::string> model,
                            metadata.String("tokenizer.ggml.model"));
  if (!model || *model == "none" || *model == "no_vocab") return vocabulary;
  if (*model == "gpt2") {
    vocabulary.kind = VocabularyKind::kByteLevelBpe;
  } else if (*model == "llama") {
    vocabulary.kind = VocabularyKind::kSentencePiece;
  } else {
    return absl::UnimplementedError(
        absl::StrCat(metadata.file(), ": key 'tokenizer.ggml.model': '", *model,
                     "' is not supported, only gpt2 (byte-level BPE) and llama (SentencePiece)"));
  }
  MILLRACE_RETURN_IF_ERROR(ReadTokens(metadata, vocabulary));
  if (vocabulary.kind == VocabularyKind::kSentencePiece) {
    MILLRACE_RETURN_IF_ERROR(ReadScores(metadata, vocabulary));
  } else {
    MILLRACE_RETURN_IF_ERROR(ReadMerges(metadata, vocabulary));
    MILLRACE_ASSIGN_OR_RETURN(auto pre, metadata.String("tokenizer.ggml.pre"));
    vocabulary.pre_tokenizer = CanonicalPreTokenizer(pre.value_or("default"));
  }
  MILLRACE_RETURN_IF_ERROR(ReadSpecialIds(metadata, vocabulary));
  MILLRACE_RETURN_IF_ERROR(ReadFlags(metadata, vocabulary));
  return vocabulary;
}

}  // namespace millrace
