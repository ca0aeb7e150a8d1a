#include <array>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "worker/model/merge_list.h"
#include "worker/model/pre_tokenizer.h"
#include "worker/model/special_tokens.h"
#include "worker/model/tokenizer_kinds.h"

namespace millrace {
namespace {

// GPT-2's alphabet: every byte as a printable character, so that vocabularies are text. Printable
// Latin-1 bytes stand for themselves; the other 68 are U+0100 on, in order.
struct ByteAlphabet {
  std::array<std::string, 256> to_text;
  std::unordered_map<std::string, char> to_byte;

  ByteAlphabet() {
    int next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      const int code = printable ? b : next++;
      std::string text;
      if (code < 0x80) {
        text = static_cast<char>(code);
      } else {
        text = {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
      }
      to_byte[text] = static_cast<char>(b);
      to_text[b] = text;
    }
  }
};

const ByteAlphabet& Alphabet() {
  static const auto* alphabet = new ByteAlphabet();
  return *alphabet;
}

// Splits text of the alphabet into its characters.
std::vector<absl::string_view> Characters(absl::string_view text) {
  std::vector<absl::string_view> out;
  for (size_t i = 0; i < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const size_t length = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    out.push_back(text.substr(i, length));
    i += length;
  }
  return out;
}

class BpeTokenizer : public Tokenizer {
 public:
  BpeTokenizer(const Vocabulary& v, PreTokenizer pre)
      : pre_(std::move(pre)), special_(v), vocabulary_(v) {
    for (size_t i = 0; i < v.tokens.size(); ++i) {
      ids_.emplace(v.tokens[i], static_cast<TokenId>(i));
    }
    for (size_t i = 0; i < v.merges.size(); ++i) {
      ranks_.emplace(absl::StrCat(v.merges[i].first, " ", v.merges[i].second),
                     static_cast<int>(i));
    }
    vocabulary_.merges.clear();  // held as ranks_
    bytes_.reserve(v.tokens.size());
    for (size_t i = 0; i < v.tokens.size(); ++i) bytes_.push_back(BytesOf(i));
    for (TokenId t : v.end_of_generation) ends_.push_back(t);
  }

  std::vector<TokenId> Encode(absl::string_view text, const EncodeOptions& options) const override {
    std::vector<TokenId> out;
    if (options.add_bos && vocabulary_.bos >= 0) out.push_back(vocabulary_.bos);
    for (const TextPart& part : special_.Split(text, options.parse_special)) {
      if (part.token >= 0) {
        out.push_back(part.token);
        continue;
      }
      for (absl::string_view piece : pre_.Split(part.text)) EncodePiece(piece, out);
    }
    return out;
  }

  std::string TokenBytes(TokenId token, bool with_special) const override {
    if (token < 0 || static_cast<size_t>(token) >= bytes_.size()) return "";
    if (vocabulary_.types[token] == TokenType::kControl) {
      return with_special ? vocabulary_.tokens[token] : "";
    }
    return bytes_[token];
  }

  bool IsEndOfGeneration(TokenId token) const override {
    for (TokenId t : ends_) {
      if (t == token) return true;
    }
    return false;
  }
  TokenId bos() const override { return vocabulary_.bos; }
  bool adds_bos() const override { return vocabulary_.add_bos && vocabulary_.bos >= 0; }
  bool strips_leading_space() const override { return false; }

 private:
  std::string BytesOf(size_t token) const {
    if (vocabulary_.types[token] == TokenType::kUserDefined) return vocabulary_.tokens[token];
    std::string bytes;
    for (absl::string_view c : Characters(vocabulary_.tokens[token])) {
      const auto it = Alphabet().to_byte.find(std::string(c));
      if (it != Alphabet().to_byte.end()) {
        bytes += it->second;
      } else {
        absl::StrAppend(&bytes, c);
      }
    }
    return bytes;
  }

  void EncodePiece(absl::string_view piece, std::vector<TokenId>& out) const {
    std::string text;
    for (unsigned char b : piece) text += Alphabet().to_text[b];
    if (vocabulary_.ignore_merges) {
      const auto whole = ids_.find(text);
      if (whole != ids_.end()) {
        out.push_back(whole->second);
        return;
      }
    }
    std::string key;
    auto priority = [&](absl::string_view a, absl::string_view b) -> std::optional<double> {
      key.assign(a.data(), a.size());
      key += ' ';
      key.append(b.data(), b.size());
      const auto it = ranks_.find(key);
      if (it == ranks_.end()) return std::nullopt;
      return -static_cast<double>(it->second);
    };
    for (absl::string_view symbol : MergeSymbols(Characters(text), priority)) {
      const auto it = ids_.find(symbol);
      if (it != ids_.end()) {
        out.push_back(it->second);
        continue;
      }
      // A merge whose result is no token: its characters one by one.
      for (absl::string_view c : Characters(symbol)) {
        const auto single = ids_.find(c);
        if (single != ids_.end()) {
          out.push_back(single->second);
        } else if (vocabulary_.unknown >= 0) {
          out.push_back(vocabulary_.unknown);
        }
      }
    }
  }

  const PreTokenizer pre_;
  const SpecialTokens special_;
  Vocabulary vocabulary_;
  absl::flat_hash_map<std::string, TokenId> ids_;
  absl::flat_hash_map<std::string, int> ranks_;  // "left right" to rank
  std::vector<std::string> bytes_;
  std::vector<TokenId> ends_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> MakeBpeTokenizer(const Vocabulary& vocabulary) {
  MILLRACE_ASSIGN_OR_RETURN(PreTokenizer pre, PreTokenizer::Create(vocabulary.pre_tokenizer));
  return std::make_unique<const BpeTokenizer>(vocabulary, std::move(pre));
}

}  // namespace millrace
