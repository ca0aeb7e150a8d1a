#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "proto/status_macros.h"
#include "worker/model/hf_tokenizer.h"

namespace millrace {
namespace {

using nlohmann::json;

// Published expressions of the families, as tokenizer.json files hold them.
constexpr char kLlama3[] =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr char kQwen2[] =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr char kTekken[] =
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr char kNewlines[] = R"re([\r\n])re";
constexpr char kThreeDigits[] = "[0-9][0-9][0-9]";

// A string field; "" when absent or of another type.
std::string Text(const json& object, const char* key) {
  auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

bool Flag(const json& object, const char* key, bool fallback) {
  auto it = object.find(key);
  return it != object.end() && it->is_boolean() ? it->get<bool>() : fallback;
}

// One step as a line of text, so that configurations can be compared: "split [\r\n]", "bytes",
// "bytes+words" (with GPT-2's expression), "digits 1", "digits n", "punctuation".
std::string Step(const json& step) {
  const std::string type = Text(step, "type");
  if (type == "ByteLevel") {
    if (Flag(step, "add_prefix_space", true)) return "bytes with a prefix space";
    return Flag(step, "use_regex", true) ? "bytes+words" : "bytes";
  }
  if (type == "Digits") return Flag(step, "individual_digits", false) ? "digits 1" : "digits n";
  if (type == "Punctuation" && Text(step, "behavior") == "Contiguous") return "punctuation";
  if (type == "Split" && Text(step, "behavior") == "Isolated" && !Flag(step, "invert", false)) {
    auto pattern = step.find("pattern");
    if (pattern != step.end() && pattern->is_object()) {
      const std::string regex =
          pattern->contains("Regex") ? Text(*pattern, "Regex") : Text(*pattern, "String");
      return absl::StrCat("split ", absl::StrReplaceAll(regex, {{"\r", "\\r"}, {"\n", "\\n"}}));
    }
  }
  return absl::StrCat(type.empty() ? "a step without a type" : type, " of an unknown form");
}

std::vector<std::string> Steps(const json& pre_tokenizer) {
  if (Text(pre_tokenizer, "type") != "Sequence") return {Step(pre_tokenizer)};
  std::vector<std::string> steps;
  auto list = pre_tokenizer.find("pretokenizers");
  if (list == pre_tokenizer.end() || !list->is_array()) return steps;
  for (const json& step : *list) {
    steps.push_back(step.is_object() ? Step(step) : "a step that is not an object");
  }
  return steps;
}

bool IsDeepseekLlm(const std::vector<std::string>& steps) {
  return steps.size() == 7 && steps[0] == absl::StrCat("split ", kNewlines) &&
         absl::StartsWith(steps[1], R"(split \s?[A-Za-z)") &&
         absl::StartsWith(steps[2], R"(split \s?[!-/:-~)") && steps[3] == R"(split \s+$)" &&
         absl::StartsWith(steps[4], "split [") && absl::StartsWith(steps[5], "digits ") &&
         steps[6] == "bytes";
}

bool IsDeepseekCoder(const std::vector<std::string>& steps) {
  return steps.size() == 6 && steps[0] == absl::StrCat("split ", kNewlines) &&
         steps[1] == R"(split \s?\p{L}+)" && steps[2] == R"(split \s?\p{P}+)" &&
         absl::StartsWith(steps[3], "split [") && steps[4] == "digits 1" && steps[5] == "bytes";
}

}  // namespace

absl::StatusOr<std::string> RecognisePreTokenizer(const json& pre_tokenizer) {
  using Lines = std::vector<std::string>;
  if (!pre_tokenizer.is_object()) {
    return absl::UnimplementedError("'pre_tokenizer' is absent, which is not supported");
  }
  const Lines steps = Steps(pre_tokenizer);
  if (steps == Lines{absl::StrCat("split ", kLlama3), "bytes"}) return "llama-bpe";
  if (steps == Lines{absl::StrCat("split ", kQwen2), "bytes"}) return "qwen2";
  if (steps == Lines{absl::StrCat("split ", kTekken), "bytes"}) return "tekken";
  // GPT-2, and MPT and GPT-NeoX, which split alike.
  if (steps == Lines{"bytes+words"}) return "gpt-2";
  if (steps == Lines{"digits 1", "bytes+words"}) return "starcoder";  // and Refact
  if (steps == Lines{"punctuation", "bytes+words", "digits n"} ||
      steps ==
          Lines{"punctuation", "bytes+words", "digits n", absl::StrCat("split ", kThreeDigits)}) {
    return "falcon";
  }
  if (IsDeepseekLlm(steps)) return "deepseek-llm";
  if (IsDeepseekCoder(steps)) return "deepseek-coder";
  return absl::UnimplementedError(
      absl::StrCat("'pre_tokenizer' is not one that millrace knows; its steps are: ",
                   absl::StrJoin(steps, "; ")));
}

}  // namespace millrace
