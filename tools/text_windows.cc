#include "tools/text_windows.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/prompt.h"

namespace millrace {

absl::StatusOr<TextWindows> ReadTextWindows(const std::string& model, const std::string& text_path,
                                            int length) {
  if (length < 4) {
    return absl::InvalidArgumentError(absl::StrCat("--ctx: ", length, " is below 4"));
  }
  MILLRACE_ASSIGN_OR_RETURN(const std::string text, ReadTextFile("--text", text_path));
  MILLRACE_ASSIGN_OR_RETURN(const std::unique_ptr<const Tokenizer> tokenizer, OpenTokenizer(model));
  EncodeOptions options;
  options.parse_special = false;
  const std::vector<TokenId> tokens = tokenizer->Encode(text, options);
  if (static_cast<int>(tokens.size()) < length) {
    return absl::InvalidArgumentError(absl::StrCat("--text: '", text_path, "' has ", tokens.size(),
                                                   " tokens, less than one window of ", length,
                                                   "; give a smaller --ctx"));
  }
  TextWindows out;
  out.text_tokens = static_cast<int64_t>(tokens.size());
  for (size_t begin = 0; begin + static_cast<size_t>(length) <= tokens.size();
       begin += static_cast<size_t>(length)) {
    const auto first = tokens.begin() + static_cast<int64_t>(begin);
    out.windows.emplace_back(first, first + length);
    if (tokenizer->adds_bos()) out.windows.back().front() = tokenizer->bos();
  }
  return out;
}

}  // namespace millrace
