// Vocabulary: a tokenizer's data as plain values, filled from GGUF metadata or tokenizer.json.
#ifndef MILLRACE_WORKER_MODEL_VOCABULARY_H_
#define MILLRACE_WORKER_MODEL_VOCABULARY_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "proto/ids.h"

namespace millrace {

enum class VocabularyKind : uint8_t {
  kNone,           // the file holds no tokenizer
  kByteLevelBpe,   // GGUF tokenizer.ggml.model = "gpt2"
  kSentencePiece,  // GGUF tokenizer.ggml.model = "llama": scores, spaces as U+2581, <0xNN> bytes
};

// GGUF's tokenizer.ggml.token_type values.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct Vocabulary {
  VocabularyKind kind = VocabularyKind::kNone;
  std::string pre_tokenizer;  // BPE: "llama-bpe", "qwen2", "gpt-2", ...
  std::vector<std::string>
      tokens;                 // [vocab] as stored: byte-level BPE tokens in GPT-2's byte alphabet
  std::vector<float> scores;  // [vocab] SentencePiece; empty for BPE
  std::vector<TokenType> types;                             // [vocab]
  std::vector<std::pair<std::string, std::string>> merges;  // BPE, best first
  TokenId bos = -1, eos = -1, unknown = -1, padding = -1;   // -1: none
  std::vector<TokenId> end_of_generation;  // eos and every other token that ends a turn (eot, eom)
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = true;  // SentencePiece: a space before the text
  bool ignore_merges = false;    // BPE: a word that is itself a token is taken whole (Llama 3)
  std::string chat_template;     // Jinja, may be empty
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_VOCABULARY_H_
