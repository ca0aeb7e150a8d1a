#include <array>
#include <cstdio>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_replace.h"
#include "worker/model/merge_list.h"
#include "worker/model/pre_tokenizer.h"
#include "worker/model/special_tokens.h"
#include "worker/model/tokenizer_kinds.h"

namespace millrace {
namespace {

constexpr char kSpace[] = "\xe2\x96\x81";  // U+2581, how SentencePiece writes a space

// SentencePiece as Llama 2 uses it: characters merged by the score of the joined piece, unknown
// characters as <0xNN> bytes (Kudo and Richardson, arXiv:1808.06226).
class SpmTokenizer : public Tokenizer {
 public:
  explicit SpmTokenizer(const Vocabulary& v) : special_(v), vocabulary_(v) {
    byte_tokens_.fill(-1);
    for (size_t i = 0; i < v.tokens.size(); ++i) {
      ids_.emplace(v.tokens[i], static_cast<TokenId>(i));
      unsigned byte = 0;
      if (v.tokens[i].size() == 6 && std::sscanf(v.tokens[i].c_str(), "<0x%02X>", &byte) == 1) {
        byte_tokens_[byte] = static_cast<TokenId>(i);
        if (vocabulary_.types[i] == TokenType::kNormal) vocabulary_.types[i] = TokenType::kByte;
      }
    }
  }

  std::vector<TokenId> Encode(absl::string_view text, const EncodeOptions& options) const override {
    std::vector<TokenId> out;
    if (options.add_bos && vocabulary_.bos >= 0) out.push_back(vocabulary_.bos);
    bool after_special = true;  // the start of the text counts as such
    for (const TextPart& part : special_.Split(text, options.parse_special)) {
      if (part.token >= 0) {
        out.push_back(part.token);
        after_special = true;
        continue;
      }
      std::string plain(part.text);
      if (vocabulary_.add_space_prefix && after_special) plain = " " + plain;
      after_special = false;
      EncodePlain(absl::StrReplaceAll(plain, {{" ", kSpace}}), out);
    }
    return out;
  }

  std::string TokenBytes(TokenId token, bool with_special) const override {
    if (token < 0 || static_cast<size_t>(token) >= vocabulary_.tokens.size()) return "";
    const std::string& text = vocabulary_.tokens[token];
    switch (vocabulary_.types[token]) {
      case TokenType::kControl: return with_special ? text : "";
      case TokenType::kByte: {
        unsigned byte = 0;
        std::sscanf(text.c_str(), "<0x%02X>", &byte);
        return std::string(1, static_cast<char>(byte));
      }
      case TokenType::kUnknown: return with_special ? text : "\xe2\x96\x85";
      default: return absl::StrReplaceAll(text, {{kSpace, " "}});
    }
  }

  bool IsEndOfGeneration(TokenId token) const override {
    for (TokenId t : vocabulary_.end_of_generation) {
      if (t == token) return true;
    }
    return false;
  }
  TokenId bos() const override { return vocabulary_.bos; }
  bool adds_bos() const override { return vocabulary_.add_bos && vocabulary_.bos >= 0; }
  bool strips_leading_space() const override { return vocabulary_.add_space_prefix; }

 private:
  void EncodePlain(absl::string_view text, std::vector<TokenId>& out) const {
    std::vector<absl::string_view> symbols;
    for (size_t i = 0; i < text.size();) {
      const unsigned char c = static_cast<unsigned char>(text[i]);
      size_t length = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
      // A byte that begins no valid character stands alone.
      if (length > text.size() - i || ValidUtf8Prefix(text.substr(i, length)) != length) length = 1;
      symbols.push_back(text.substr(i, length));
      i += length;
    }
    std::string key;
    auto priority = [&](absl::string_view a, absl::string_view b) -> std::optional<double> {
      key.assign(a.data(), a.size());
      key.append(b.data(), b.size());
      const auto it = ids_.find(key);
      if (it == ids_.end()) return std::nullopt;
      return vocabulary_.scores[it->second];
    };
    for (absl::string_view piece : MergeSymbols(std::move(symbols), priority)) {
      const auto it = ids_.find(piece);
      if (it != ids_.end()) {
        out.push_back(it->second);
        continue;
      }
      for (unsigned char b : piece) {
        const TokenId token = byte_tokens_[b] >= 0 ? byte_tokens_[b] : vocabulary_.unknown;
        if (token >= 0) out.push_back(token);
      }
    }
  }

  const SpecialTokens special_;
  Vocabulary vocabulary_;
  absl::flat_hash_map<std::string, TokenId> ids_;
  std::array<TokenId, 256> byte_tokens_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> MakeSpmTokenizer(const Vocabulary& vocabulary) {
  if (vocabulary.scores.size() != vocabulary.tokens.size()) {
    return absl::InvalidArgumentError("the SentencePiece vocabulary has no score for each token");
  }
  return std::make_unique<const SpmTokenizer>(vocabulary);
}

}  // namespace millrace
