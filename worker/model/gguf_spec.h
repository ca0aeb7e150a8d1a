// ModelSpec and Vocabulary from GGUF metadata.
#ifndef MILLRACE_WORKER_MODEL_GGUF_SPEC_H_
#define MILLRACE_WORKER_MODEL_GGUF_SPEC_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/model_spec.h"
#include "worker/model/gguf_metadata.h"
#include "worker/model/raw_tensor.h"
#include "worker/model/vocabulary.h"
#include "worker/weights/file_reader.h"

namespace millrace {

// `tensors` of all shards, `files` in the order their `file` indices mean. DataLoss names file and
// key or tensor; Unimplemented names an architecture, rope scaling or tensor that is not known. Rope
// factors are data: they are left out where the file ends before them.
absl::StatusOr<ModelSpec> BuildGgufSpec(const GgufMetadata& metadata,
                                        std::vector<RawTensor> tensors,
                                        const std::vector<std::unique_ptr<FileReader>>& files);

// tokenizer.ggml.*. VocabularyKind::kNone when the file holds no tokenizer.
absl::StatusOr<Vocabulary> BuildGgufVocabulary(const GgufMetadata& metadata);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_GGUF_SPEC_H_
