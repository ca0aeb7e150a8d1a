#include "proto/objective.h"

#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace millrace {
namespace {

constexpr int kMost = 1 << 26;

std::optional<int> Count(absl::string_view text) {
  int value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < 1 || value > kMost) return std::nullopt;
  return value;
}

// "512+128" or "512+128@8".
std::optional<Objective> ParseMix(absl::string_view text) {
  Objective o;
  const size_t at = text.find('@');
  if (at != absl::string_view::npos) {
    const std::optional<int> batch = Count(text.substr(at + 1));
    if (!batch.has_value()) return std::nullopt;
    o.batch = *batch;
    text = text.substr(0, at);
  }
  const size_t plus = text.find('+');
  if (plus == absl::string_view::npos) return std::nullopt;
  const std::optional<int> prompt = Count(text.substr(0, plus)),
                           made = Count(text.substr(plus + 1));
  if (!prompt.has_value() || !made.has_value()) return std::nullopt;
  o.prompt_tokens = *prompt;
  o.decode_tokens = *made;
  return o;
}

std::optional<Objective> Parse(absl::string_view text) {
  if (text == "decode") return Objective{};
  if (absl::ConsumePrefix(&text, "mix:")) return ParseMix(text);
  const bool decode = absl::ConsumePrefix(&text, "decode:");
  if (!decode && !absl::ConsumePrefix(&text, "prefill:")) return std::nullopt;
  const std::optional<int> count = Count(text);
  if (!count.has_value()) return std::nullopt;
  return decode ? Objective{*count, 1, 0} : Objective{1, 0, *count};
}

}  // namespace

absl::StatusOr<Objective> ParseObjective(absl::string_view text) {
  const std::optional<Objective> parsed = Parse(text);
  if (parsed.has_value()) return *parsed;
  return absl::InvalidArgumentError(absl::StrCat(
      "'", text, "' is not decode, decode:SEQUENCES, prefill:TOKENS, mix:PROMPT+TOKENS or ",
      "mix:PROMPT+TOKENS@SEQUENCES"));
}

std::string ObjectiveText(const Objective& o) {
  if (o.decode_tokens == 0) return absl::StrCat("prefill:", o.prompt_tokens);
  if (o.prompt_tokens > 0) {
    return absl::StrCat("mix:", o.prompt_tokens, "+", o.decode_tokens,
                        o.batch > 1 ? absl::StrCat("@", o.batch) : "");
  }
  return o.batch > 1 ? absl::StrCat("decode:", o.batch) : "decode";
}

std::string ObjectiveWords(const Objective& o) {
  const std::string who =
      o.batch > 1 ? absl::StrCat(o.batch, " sequences decoding together") : "one sequence decoding";
  if (o.decode_tokens == 0) return absl::StrCat("reading a prompt of ", o.prompt_tokens);
  if (o.prompt_tokens == 0) return who;
  return absl::StrCat("reading ", o.batch > 1 ? "prompts" : "a prompt", " of ", o.prompt_tokens,
                      ", then ", o.decode_tokens, " tokens, ", who);
}

}  // namespace millrace
