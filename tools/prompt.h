// The flags that give a prompt, and its tokens.
#ifndef MILLRACE_TOOLS_PROMPT_H_
#define MILLRACE_TOOLS_PROMPT_H_

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/tokenizer.h"

namespace millrace {

struct PromptFlags {
  std::string text, file, tokens;
  bool given = false;  // -p was there, perhaps empty
  bool no_bos = false;
};

void AddPromptFlags(CLI::App* app, PromptFlags& flags);

// From --tokens as they are, else the text with BOS where the vocabulary puts one. InvalidArgument
// unless exactly one source is given.
absl::StatusOr<std::vector<TokenId>> PromptTokens(const std::string& model,
                                                  const PromptFlags& flags);

absl::StatusOr<std::unique_ptr<const Tokenizer>> OpenTokenizer(const std::string& model);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_PROMPT_H_
