// tokenizer.json (and its companions) of a Hugging Face model folder -> Vocabulary.
#ifndef MILLRACE_WORKER_MODEL_HF_TOKENIZER_H_
#define MILLRACE_WORKER_MODEL_HF_TOKENIZER_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "worker/model/vocabulary.h"

namespace millrace {

// BPE models: byte-level ones and those with SentencePiece's conventions (byte fallback, spaces as
// U+2581). Unimplemented names a model type or pre-tokenizer that is not known.
absl::StatusOr<Vocabulary> ReadHfVocabulary(const std::string& directory);

// The name that millrace gives to tokenizer.json's "pre_tokenizer" of a byte-level BPE;
// Unimplemented quotes one that it does not know.
absl::StatusOr<std::string> RecognisePreTokenizer(const nlohmann::json& pre_tokenizer);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_HF_TOKENIZER_H_
