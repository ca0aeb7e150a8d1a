// millrace tokenize: text to tokens, or back.
#include <cstdio>
#include <memory>

#include "absl/strings/escaping.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/prompt.h"

namespace millrace {
namespace {

struct TokenizeFlags {
  std::string model, text, file, ids;
  bool bos = false, no_parse_special = false, json = false;
};

absl::StatusOr<int> Detokenize(const Tokenizer& tokenizer, const TokenizeFlags& flags) {
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, ParseIntList("--ids", flags.ids, 0));
  const std::string text = tokenizer.Decode(tokens);
  if (flags.json) {
    PrintJson({{"tokens", tokens}, {"text", text}});
  } else {
    std::printf("%s\n", text.c_str());
  }
  return kExitDone;
}

absl::StatusOr<int> RunTokenize(const TokenizeFlags& flags, bool text_given) {
  const int sources =
      (text_given ? 1 : 0) + (flags.file.empty() ? 0 : 1) + (flags.ids.empty() ? 0 : 1);
  if (sources != 1) {
    return absl::InvalidArgumentError("give exactly one of -p TEXT, --prompt-file FILE, --ids 1,2");
  }
  MILLRACE_ASSIGN_OR_RETURN(const std::unique_ptr<const Tokenizer> tokenizer,
                            OpenTokenizer(flags.model));
  if (!flags.ids.empty()) return Detokenize(*tokenizer, flags);
  std::string text = flags.text;
  if (!flags.file.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(text, ReadTextFile("--prompt-file", flags.file));
  }
  const std::vector<TokenId> tokens =
      tokenizer->Encode(text, {.add_bos = flags.bos, .parse_special = !flags.no_parse_special});
  if (flags.json) {
    PrintJson({{"tokens", tokens}});
    return kExitDone;
  }
  for (TokenId token : tokens) {
    std::printf("%8d  \"%s\"\n", token,
                absl::Utf8SafeCEscape(tokenizer->TokenBytes(token, true)).c_str());
  }
  return kExitDone;
}

}  // namespace

void AddTokenizeCommand(CLI::App& app, Command& chosen) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* sub = app.add_subcommand("tokenize", "text to tokens, or back");
  sub->add_option("MODEL", flags->model, "any file with a vocabulary (default: the demo model)");
  const CLI::Option* text = sub->add_option("-p,--prompt", flags->text, "the text");
  sub->add_option("--prompt-file", flags->file, "read the text from this file");
  sub->add_option("--ids", flags->ids, "turn these token ids into text: 1,2,3");
  sub->add_flag("--bos", flags->bos, "put BOS first");
  sub->add_flag("--no-parse-special", flags->no_parse_special,
                "control tokens written in the text are plain text");
  sub->add_flag("--json", flags->json, "print one JSON object");
  sub->callback([flags, text, &chosen] {
    const bool given = text->count() > 0;
    chosen = [flags, given] { return RunTokenize(*flags, given); };
  });
}

}  // namespace millrace
