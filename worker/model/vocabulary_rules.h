// Rules that GGUF files and Hugging Face folders share when a Vocabulary is filled.
#ifndef MILLRACE_WORKER_MODEL_VOCABULARY_RULES_H_
#define MILLRACE_WORKER_MODEL_VOCABULARY_RULES_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "worker/model/vocabulary.h"

namespace millrace {

// "a b" -> {"a", "b"}; the split is at the first space after the first byte. nullopt otherwise.
std::optional<std::pair<std::string, std::string>> SplitMerge(absl::string_view merge);

// Names that files use for the same rule: "llama3" -> "llama-bpe". Others come back unchanged.
std::string CanonicalPreTokenizer(absl::string_view name);

// What holds when a file does not say. SentencePiece, llama-bpe and tekken put BOS first.
bool AddsBosByConvention(const Vocabulary& vocabulary);
bool IgnoresMergesByConvention(const Vocabulary& vocabulary);

// Fills end_of_generation from `ids` (-1 is skipped) and from control tokens whose name says that
// they end a turn, ascending and without repeats.
void CollectEndOfGeneration(const std::vector<TokenId>& ids, Vocabulary& vocabulary);

// Makes the vocabulary as long as the embedding has rows: rows without a token get an unused
// "[PADn]". DataLoss when there are more tokens than rows.
absl::Status PadVocabulary(const std::string& source, int64_t rows, Vocabulary& vocabulary);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_VOCABULARY_RULES_H_
