// Tokenizer: text to tokens and back, for byte-level BPE and SentencePiece vocabularies.
#ifndef MILLRACE_WORKER_MODEL_TOKENIZER_H_
#define MILLRACE_WORKER_MODEL_TOKENIZER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/model/vocabulary.h"

namespace millrace {

struct EncodeOptions {
  bool add_bos = false;       // put BOS first if the vocabulary has one
  bool parse_special = true;  // control tokens written in the text ("<|eot_id|>") become that token
};

// Immutable after Create; thread-safe.
class Tokenizer {
 public:
  // Unimplemented names a pre-tokenizer that is not known; InvalidArgument a broken vocabulary.
  // The vocabulary is copied into indexes; it need not outlive the tokenizer.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Create(const Vocabulary& vocabulary);
  virtual ~Tokenizer() = default;

  // Never fails on any bytes: invalid UTF-8 is tokenised byte by byte. The empty text gives no
  // tokens (or BOS alone).
  virtual std::vector<TokenId> Encode(absl::string_view text,
                                      const EncodeOptions& options) const = 0;

  // The bytes one token stands for; control tokens give nothing unless `with_special`. May be part
  // of a UTF-8 character: see StreamDecoder. `token` out of range gives "".
  virtual std::string TokenBytes(TokenId token, bool with_special = false) const = 0;

  // Whole text of a sequence (SentencePiece: the space that Encode put before it is dropped).
  std::string Decode(absl::Span<const TokenId> tokens) const;

  virtual bool IsEndOfGeneration(TokenId token) const = 0;
  virtual TokenId bos() const = 0;  // -1: none
  virtual bool adds_bos() const = 0;
  // SentencePiece vocabularies that put a space before the text drop it from the first piece.
  virtual bool strips_leading_space() const = 0;
};

// Turns a stream of tokens into text without ever emitting half a UTF-8 character: incomplete bytes
// are held until they are completed or proven invalid (then U+FFFD). Not thread-safe.
class StreamDecoder {
 public:
  // `tokenizer` outlives the decoder. `continues_text`: the tokens follow a prompt, so a leading
  // space is kept.
  StreamDecoder(const Tokenizer* tokenizer, bool continues_text);
  std::string Push(TokenId token);  // text completed by this token, possibly empty
  std::string Finish();             // what is still held, invalid bytes as U+FFFD

 private:
  const Tokenizer* tokenizer_;
  bool at_start_;
  std::string held_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_TOKENIZER_H_
