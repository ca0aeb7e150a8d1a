#include "worker/model/special_tokens.h"

#include <algorithm>
#include <functional>
#include <set>

namespace millrace {

SpecialTokens::SpecialTokens(const Vocabulary& vocabulary) {
  std::set<size_t, std::greater<>> lengths;
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const TokenType type = vocabulary.types[i];
    const bool control = type == TokenType::kControl || type == TokenType::kUnknown;
    if (!control && type != TokenType::kUserDefined) continue;
    const std::string& text = vocabulary.tokens[i];
    if (text.empty()) continue;
    entries_.emplace(text, Entry{static_cast<TokenId>(i), control});
    lengths.insert(text.size());
    starts_[static_cast<unsigned char>(text[0])] = true;
  }
  lengths_.assign(lengths.begin(), lengths.end());
}

std::vector<TextPart> SpecialTokens::Split(absl::string_view text, bool parse_control) const {
  std::vector<TextPart> parts;
  size_t plain = 0;
  for (size_t i = 0; i < text.size();) {
    bool matched = false;
    if (starts_[static_cast<unsigned char>(text[i])]) {
      for (size_t length : lengths_) {
        if (length > text.size() - i) continue;
        const auto it = entries_.find(std::string(text.substr(i, length)));
        if (it == entries_.end() || (it->second.control && !parse_control)) continue;
        if (i > plain) parts.push_back({-1, text.substr(plain, i - plain)});
        parts.push_back({it->second.token, text.substr(i, length)});
        i += length;
        plain = i;
        matched = true;
        break;
      }
    }
    if (!matched) ++i;
  }
  if (plain < text.size()) parts.push_back({-1, text.substr(plain)});
  return parts;
}

}  // namespace millrace
