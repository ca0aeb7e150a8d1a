// SpecialTokens: finds control and user-defined tokens written out in a text.
#ifndef MILLRACE_WORKER_MODEL_SPECIAL_TOKENS_H_
#define MILLRACE_WORKER_MODEL_SPECIAL_TOKENS_H_

#include <string>
#include <unordered_map>
#include <vector>

#include "absl/strings/string_view.h"
#include "worker/model/vocabulary.h"

namespace millrace {

// A stretch of text: either one token, or plain text still to be encoded.
struct TextPart {
  TokenId token = -1;  // -1: plain
  absl::string_view text;
};

// Immutable; thread-safe.
class SpecialTokens {
 public:
  explicit SpecialTokens(const Vocabulary& vocabulary);

  // Leftmost, longest match first. Control tokens count only with `parse_control`; user-defined ones
  // always do.
  std::vector<TextPart> Split(absl::string_view text, bool parse_control) const;

 private:
  struct Entry {
    TokenId token;
    bool control;
  };
  std::unordered_map<std::string, Entry> entries_;
  std::vector<size_t> lengths_;       // of entries, longest first
  bool starts_[256] = {};             // first bytes of entries
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_SPECIAL_TOKENS_H_
