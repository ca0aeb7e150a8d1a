#include "tools/synth_vocabulary.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "worker/model/vocabulary.h"

namespace millrace {
namespace {

std::string Utf8(uint32_t code) {
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))};
}

// GPT-2's alphabet: printable bytes stand for themselves, the others for U+0100 onwards.
std::vector<std::string> ByteAlphabet() {
  std::vector<std::string> out;
  uint32_t next = 0x100;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool printable =
        (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
    out.push_back(Utf8(printable ? b : next++));
  }
  return out;
}

}  // namespace

void SetSyntheticVocabulary(int size, absl::string_view pre_tokenizer, GgufWriter& writer) {
  MILLRACE_CHECK(size >= 1024);
  const bool llama = pre_tokenizer == "llama-bpe";
  const std::vector<std::string> control =
      llama ? std::vector<std::string>{"<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"}
            : std::vector<std::string>{"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  std::vector<std::string> tokens = ByteAlphabet();
  std::vector<std::string> merges;
  std::vector<std::string> firsts = {tokens[' ']};
  for (char c = 'a'; c <= 'z'; ++c) firsts.emplace_back(1, c);
  for (const std::string& first : firsts) {
    for (char second = 'a'; second <= 'z'; ++second) {
      merges.push_back(absl::StrCat(first, " ", std::string(1, second)));
      tokens.push_back(absl::StrCat(first, std::string(1, second)));
    }
  }
  const int fillers_end = size - static_cast<int>(control.size());
  for (int i = static_cast<int>(tokens.size()); i < fillers_end; ++i) {
    tokens.push_back(absl::StrCat("[synthetic", i, "]"));
  }
  tokens.insert(tokens.end(), control.begin(), control.end());
  std::vector<int32_t> types(size, static_cast<int32_t>(TokenType::kNormal));
  for (int i = fillers_end; i < size; ++i) types[i] = static_cast<int32_t>(TokenType::kControl);

  writer.SetString("tokenizer.ggml.model", "gpt2");
  writer.SetString("tokenizer.ggml.pre", pre_tokenizer);
  writer.SetStrings("tokenizer.ggml.tokens", tokens);
  writer.SetInt32s("tokenizer.ggml.token_type", types);
  writer.SetStrings("tokenizer.ggml.merges", merges);
  writer.SetUint32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(fillers_end));
  writer.SetUint32("tokenizer.ggml.eos_token_id",
                   static_cast<uint32_t>(fillers_end + (llama ? 1 : 2)));
  writer.SetBool("tokenizer.ggml.add_bos_token", llama);
}

}  // namespace millrace
