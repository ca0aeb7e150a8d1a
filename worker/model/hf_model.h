// Hugging Face model folders: config.json, *.safetensors, tokenizer.json.
#ifndef MILLRACE_WORKER_MODEL_HF_MODEL_H_
#define MILLRACE_WORKER_MODEL_HF_MODEL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/model/model.h"
#include "worker/model/vocabulary.h"

namespace millrace {

// Errors as Model::Open: they name the file inside `directory` and the field.
absl::StatusOr<std::shared_ptr<const Model>> OpenHuggingFace(const std::string& directory);
absl::StatusOr<Vocabulary> ReadHuggingFaceVocabulary(const std::string& directory);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_HF_MODEL_H_
