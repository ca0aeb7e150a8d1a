#include "worker/model/gguf_model.h"

#include <utility>

#include "proto/status_macros.h"
#include "worker/model/gguf_spec.h"
#include "worker/model/vocabulary_rules.h"

namespace millrace {

absl::StatusOr<std::shared_ptr<const Model>> OpenGgufModel(const std::string& reference,
                                                           GgufModelFiles opened) {
  MILLRACE_ASSIGN_OR_RETURN(
      ModelSpec spec, BuildGgufSpec(opened.metadata, std::move(opened.tensors), opened.files));
  Bytes missing;
  for (size_t i = 0; i < opened.files.size(); ++i) {
    missing += opened.whole_sizes[i] - opened.files[i]->size();
    spec.files[i].size = opened.whole_sizes[i];
  }
  MILLRACE_ASSIGN_OR_RETURN(Vocabulary vocabulary, BuildGgufVocabulary(opened.metadata));
  MILLRACE_RETURN_IF_ERROR(PadVocabulary(opened.metadata.file(), spec.vocab, vocabulary));
  return std::make_shared<const Model>(reference, std::move(spec), std::move(vocabulary),
                                       std::move(opened.files), missing);
}

}  // namespace millrace
