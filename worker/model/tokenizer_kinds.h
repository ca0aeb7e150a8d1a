// The two kinds of tokenizer, for Tokenizer::Create.
#ifndef MILLRACE_WORKER_MODEL_TOKENIZER_KINDS_H_
#define MILLRACE_WORKER_MODEL_TOKENIZER_KINDS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/model/tokenizer.h"

namespace millrace {

absl::StatusOr<std::unique_ptr<const Tokenizer>> MakeBpeTokenizer(const Vocabulary& vocabulary);
absl::StatusOr<std::unique_ptr<const Tokenizer>> MakeSpmTokenizer(const Vocabulary& vocabulary);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_TOKENIZER_KINDS_H_
