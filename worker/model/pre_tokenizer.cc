#include "worker/model/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr char kGpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
constexpr char kLlama3[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr char kQwen2[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr char kTekken[] =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|"
    "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
// Letters of scripts with case, as DeepSeek LLM lists them.
constexpr char kDeepSeekLetters[] =
    "\\s?["
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}"
    "-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}"
    "\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}"
    "\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-"
    "\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-"
    "\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-"
    "\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-"
    "\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}"
    "-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-"
    "\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-"
    "\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}"
    "\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}"
    "\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}"
    "-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-"
    "\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-"
    "\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-"
    "\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"
    "]+";
constexpr char kDeepSeekPunctuation[] =
    "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+";
constexpr char kCjk[] = "[\\x{4E00}-\\x{9FA5}\\x{0800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+";

struct Kind {
  absl::string_view name;
  std::vector<const char*> expressions;
};

const std::vector<Kind>& Kinds() {
  static const auto* kinds = new std::vector<Kind>{
      {"llama-bpe", {kLlama3}},
      {"qwen2", {kQwen2}},
      {"gpt-2", {kGpt2}},
      {"mpt", {kGpt2}},
      {"starcoder", {"\\p{N}", kGpt2}},
      {"refact", {"\\p{N}", kGpt2}},
      {"falcon", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", kGpt2, "[0-9][0-9][0-9]"}},
      {"deepseek-llm",
       {"[\r\n]", kDeepSeekLetters, kDeepSeekPunctuation, "\\s+$", kCjk, "\\p{N}+"}},
      {"deepseek-coder", {"[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", kCjk, "\\p{N}"}},
      {"tekken", {kTekken}},
  };
  return *kinds;
}

// Other names that files use for the same rules.
absl::string_view Canonical(absl::string_view kind) {
  static constexpr std::array<std::pair<absl::string_view, absl::string_view>, 10> kAliases = {{
      {"llama3", "llama-bpe"},
      {"llama-v3", "llama-bpe"},
      {"llama3.1", "llama-bpe"},
      {"smaug-bpe", "llama-bpe"},
      {"gpt2", "gpt-2"},
      {"default", "gpt-2"},
      {"phi-2", "gpt-2"},
      {"deepseek-r1-qwen", "qwen2"},
      {"command-r", "starcoder"},
      {"smollm", "starcoder"},
  }};
  for (const auto& [alias, name] : kAliases) {
    if (kind == alias) return name;
  }
  return kind;
}

}  // namespace

// A compiled expression and the limits under which it runs.
struct PreTokenizer::Expression {
  pcre2_code* code = nullptr;
  ~Expression() { pcre2_code_free(code); }

  // Appends the pieces of `text` (valid UTF-8): matches, and what lies between them.
  void Split(absl::string_view text, std::vector<absl::string_view>& out) const {
    pcre2_match_data* data = pcre2_match_data_create_from_pattern(code, nullptr);
    size_t at = 0, start = 0;  // `at`: first byte not given out; `start`: where to look next
    while (start < text.size()) {
      const int found =
          pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start,
                      PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, data, nullptr);
      if (found < 0) break;  // no match, or a limit: the rest stays one piece
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data);
      if (range[0] > at) out.push_back(text.substr(at, range[0] - at));
      out.push_back(text.substr(range[0], range[1] - range[0]));
      at = start = range[1];
    }
    if (at < text.size()) out.push_back(text.substr(at));
    pcre2_match_data_free(data);
  }
};

PreTokenizer::PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

absl::StatusOr<PreTokenizer> PreTokenizer::Create(const std::string& kind) {
  for (const Kind& known : Kinds()) {
    if (known.name != Canonical(kind)) continue;
    PreTokenizer result;
    for (const char* pattern : known.expressions) {
      int error = 0;
      PCRE2_SIZE offset = 0;
      auto expression = std::make_unique<Expression>();
      expression->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                                       PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
      MILLRACE_CHECK(expression->code != nullptr);
      pcre2_jit_compile(expression->code, PCRE2_JIT_COMPLETE);  // without a JIT it interprets
      result.expressions_.push_back(std::move(expression));
    }
    return result;
  }
  std::string names;
  for (const Kind& known : Kinds()) absl::StrAppend(&names, names.empty() ? "" : ", ", known.name);
  return absl::UnimplementedError(
      absl::StrCat("the pre-tokenizer '", kind, "' is not known; known are ", names));
}

size_t ValidUtf8Prefix(absl::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const size_t length = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3
                          : c >= 0xf0 && c < 0xf5              ? 4
                                                               : 0;
    if (length == 0 || i + length > text.size()) return i;
    for (size_t k = 1; k < length; ++k) {
      const unsigned char d = static_cast<unsigned char>(text[i + k]);
      if ((d & 0xc0) != 0x80) return i;
      // Overlong forms, surrogates, and what lies past U+10FFFF.
      if (k == 1 && ((c == 0xe0 && d < 0xa0) || (c == 0xed && d > 0x9f) ||
                     (c == 0xf0 && d < 0x90) || (c == 0xf4 && d > 0x8f))) {
        return i;
      }
    }
    i += length;
  }
  return i;
}

std::vector<absl::string_view> PreTokenizer::Split(absl::string_view text) const {
  std::vector<absl::string_view> out;
  while (!text.empty()) {
    const size_t valid = ValidUtf8Prefix(text);
    if (valid > 0) {
      std::vector<absl::string_view> pieces = {text.substr(0, valid)};
      for (const auto& expression : expressions_) {
        std::vector<absl::string_view> finer;
        for (absl::string_view piece : pieces) expression->Split(piece, finer);
        pieces = std::move(finer);
      }
      out.insert(out.end(), pieces.begin(), pieces.end());
      text.remove_prefix(valid);
    }
    size_t bad = 0;
    while (bad < text.size() && ValidUtf8Prefix(text.substr(bad)) == 0) ++bad;
    if (bad > 0) out.push_back(text.substr(0, bad));
    text.remove_prefix(bad);
  }
  return out;
}

}  // namespace millrace
