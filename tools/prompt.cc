#include "tools/prompt.h"

#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "worker/model/model.h"

namespace millrace {

void AddPromptFlags(CLI::App* app, PromptFlags& flags) {
  app->add_option("-p,--prompt", flags.text, "the prompt");
  app->add_option("--prompt-file", flags.file, "read the prompt from this file");
  app->add_option("--tokens", flags.tokens, "the prompt as token ids, taken as they are: 1,2,3");
  app->add_flag("--no-bos", flags.no_bos, "do not put the vocabulary's BOS first");
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> OpenTokenizer(const std::string& model) {
  MILLRACE_ASSIGN_OR_RETURN(const Vocabulary vocabulary, ReadVocabulary(model));
  return Tokenizer::Create(vocabulary);
}

absl::StatusOr<std::vector<TokenId>> PromptTokens(const std::string& model,
                                                  const PromptFlags& flags) {
  const int sources =
      (flags.text.empty() ? 0 : 1) + (flags.file.empty() ? 0 : 1) + (flags.tokens.empty() ? 0 : 1);
  if (sources != 1) {
    return absl::InvalidArgumentError(
        sources == 0 ? "no prompt: give one of -p TEXT, --prompt-file FILE, --tokens 1,2,3"
                     : "more than one prompt: give only one of -p, --prompt-file, --tokens");
  }
  if (!flags.tokens.empty()) return ParseIntList("--tokens", flags.tokens, 0);
  std::string text = flags.text;
  if (!flags.file.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(text, ReadTextFile("--prompt-file", flags.file));
  }
  MILLRACE_ASSIGN_OR_RETURN(const std::unique_ptr<const Tokenizer> tokenizer, OpenTokenizer(model));
  EncodeOptions options;
  options.add_bos = tokenizer->adds_bos() && !flags.no_bos;
  return tokenizer->Encode(text, options);
}

}  // namespace millrace
