// A byte-level BPE vocabulary of any size for synthetic models.
#ifndef MILLRACE_TOOLS_SYNTH_VOCABULARY_H_
#define MILLRACE_TOOLS_SYNTH_VOCABULARY_H_

#include "absl/strings/string_view.h"
#include "worker/model/gguf_writer.h"

namespace millrace {

// Sets tokenizer.ggml.*: 256 byte tokens, pairs of letters with their merges, filler up to `size`,
// and control tokens last. `size` is at least 1024; `pre_tokenizer` "llama-bpe" or "qwen2" decides
// the names of the control tokens.
void SetSyntheticVocabulary(int size, absl::string_view pre_tokenizer, GgufWriter& writer);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_SYNTH_VOCABULARY_H_
