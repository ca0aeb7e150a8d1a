#include "worker/model/tokenizer.h"

#include "absl/strings/str_cat.h"
#include "worker/model/pre_tokenizer.h"
#include "worker/model/tokenizer_kinds.h"

namespace millrace {
namespace {

constexpr char kReplacement[] = "\xef\xbf\xbd";  // U+FFFD

// True when `bytes` may still become a valid character: a proper prefix of one.
bool MayComplete(absl::string_view bytes) {
  if (bytes.empty() || bytes.size() > 3) return false;
  const unsigned char c = static_cast<unsigned char>(bytes[0]);
  const size_t length = c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3
                        : c >= 0xf0 && c < 0xf5                           ? 4
                                                                          : 0;
  if (length <= bytes.size()) return false;
  if (bytes.size() == 1) return true;
  // Some continuation must make the second byte valid: try the widest completions.
  std::string whole(bytes);
  while (whole.size() < length) whole += '\x80';
  return ValidUtf8Prefix(whole) == length;
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Create(const Vocabulary& vocabulary) {
  if (vocabulary.types.size() != vocabulary.tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the vocabulary has ", vocabulary.tokens.size(),
                                                   " tokens but ", vocabulary.types.size(),
                                                   " token types"));
  }
  switch (vocabulary.kind) {
    case VocabularyKind::kByteLevelBpe: return MakeBpeTokenizer(vocabulary);
    case VocabularyKind::kSentencePiece: return MakeSpmTokenizer(vocabulary);
    case VocabularyKind::kNone: break;
  }
  return absl::UnimplementedError("the model file holds no tokenizer");
}

std::string Tokenizer::Decode(absl::Span<const TokenId> tokens) const {
  StreamDecoder decoder(this, false);
  std::string text;
  for (TokenId t : tokens) text += decoder.Push(t);
  return text + decoder.Finish();
}

StreamDecoder::StreamDecoder(const Tokenizer* tokenizer, bool continues_text)
    : tokenizer_(tokenizer), at_start_(!continues_text && tokenizer->strips_leading_space()) {}

std::string StreamDecoder::Push(TokenId token) {
  std::string bytes = tokenizer_->TokenBytes(token);
  if (at_start_ && !bytes.empty()) {
    if (bytes[0] == ' ') bytes.erase(0, 1);
    at_start_ = false;
  }
  held_ += bytes;
  std::string out;
  absl::string_view rest = held_;
  while (!rest.empty()) {
    const size_t valid = ValidUtf8Prefix(rest);
    absl::StrAppend(&out, rest.substr(0, valid));
    rest.remove_prefix(valid);
    if (rest.empty() || MayComplete(rest)) break;
    out += kReplacement;
    rest.remove_prefix(1);
  }
  held_ = std::string(rest);
  return out;
}

std::string StreamDecoder::Finish() {
  std::string out;
  for (size_t i = 0; i < held_.size(); ++i) out += kReplacement;
  held_.clear();
  return out;
}

}  // namespace millrace
