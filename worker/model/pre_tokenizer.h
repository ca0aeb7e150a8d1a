// PreTokenizer: cuts text into the pieces that byte-level BPE merges inside of. Each kind is one or
// more regular expressions (the publishers' own, from their tokenizer.json files), applied in order:
// every expression cuts the pieces that the one before left.
#ifndef MILLRACE_WORKER_MODEL_PRE_TOKENIZER_H_
#define MILLRACE_WORKER_MODEL_PRE_TOKENIZER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace millrace {

// Immutable after Create; thread-safe.
class PreTokenizer {
 public:
  // Unimplemented names the kind and lists those known.
  static absl::StatusOr<PreTokenizer> Create(const std::string& kind);
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  // Pieces in order, views of `text`, their concatenation is `text`. Bytes that are not UTF-8 come
  // as pieces of their own, a run each.
  std::vector<absl::string_view> Split(absl::string_view text) const;

 private:
  struct Expression;
  PreTokenizer();
  std::vector<std::unique_ptr<Expression>> expressions_;
};

// The length of the longest prefix of `text` that is valid UTF-8 (RFC 3629).
size_t ValidUtf8Prefix(absl::string_view text);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_PRE_TOKENIZER_H_
