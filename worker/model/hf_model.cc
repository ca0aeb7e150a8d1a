#include "worker/model/hf_model.h"

#include "absl/strings/str_cat.h"

namespace millrace {

absl::StatusOr<std::shared_ptr<const Model>> OpenHuggingFace(const std::string& directory) {
  return absl::UnimplementedError(absl::StrCat(directory, ": being written"));
}
absl::StatusOr<Vocabulary> ReadHuggingFaceVocabulary(const std::string& directory) {
  return absl::UnimplementedError(absl::StrCat(directory, ": being written"));
}

}  // namespace millrace
