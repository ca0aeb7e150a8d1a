#include "worker/model/model.h"

#include <sys/stat.h>

#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "worker/model/demo_model.h"
#include "worker/model/gguf_model.h"
#include "worker/model/gguf_shards.h"
#include "worker/model/gguf_spec.h"
#include "worker/model/hf_model.h"

namespace millrace {
namespace {

bool IsDemo(const std::string& reference) { return reference.empty() || reference == kDemoModel; }

bool IsDirectory(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

absl::StatusOr<GgufModelFiles> OpenGgufReference(const std::string& reference,
                                                GgufExtent extent) {
  if (IsDemo(reference)) {
    return OpenGguf(ReadMemory(absl::StrCat(kDemoModel, " (embedded)"), DemoModelBytes()));
  }
  if (absl::EndsWith(reference, ".safetensors") || absl::EndsWith(reference, ".json")) {
    return absl::InvalidArgumentError(
        absl::StrCat(reference, ": give the folder of a Hugging Face model, not a file inside it"));
  }
  return OpenGguf(reference, extent);
}

absl::StatusOr<std::shared_ptr<const Model>> OpenModel(const std::string& reference,
                                                       GgufExtent extent) {
  if (!IsDemo(reference) && IsDirectory(reference)) return OpenHuggingFace(reference);
  MILLRACE_ASSIGN_OR_RETURN(GgufModelFiles opened, OpenGgufReference(reference, extent));
  return OpenGgufModel(reference, std::move(opened));
}

}  // namespace

Model::Model(std::string reference, ModelSpec spec, Vocabulary vocabulary,
             std::vector<std::unique_ptr<FileReader>> files, Bytes missing)
    : reference_(std::move(reference)),
      spec_(std::move(spec)),
      vocabulary_(std::make_shared<const Vocabulary>(std::move(vocabulary))),
      files_(std::make_move_iterator(files.begin()), std::make_move_iterator(files.end())),
      missing_(missing) {}

std::shared_ptr<const Model> Model::WithTensors(
    ModelSpec held, const std::map<int, std::shared_ptr<const FileReader>>& converted) const {
  std::shared_ptr<Model> model(new Model());
  model->reference_ = reference_;
  model->vocabulary_ = vocabulary_;
  model->files_ = files_;
  for (size_t i = 0; i < held.tensors.size(); ++i) {
    TensorSpec& tensor = held.tensors[i];
    if (!tensor.file_dtype) continue;
    const auto reader = converted.find(static_cast<int>(i));
    tensor.offset = Bytes(0);
    tensor.file = static_cast<int>(model->files_.size());
    model->files_.push_back(reader == converted.end() ? ReadMemory(tensor.name, {})
                                                      : reader->second);
  }
  model->spec_ = std::move(held);
  return model;
}

absl::Span<const std::byte> Model::TensorBytes(int index) const {
  MILLRACE_CHECK(index >= 0 && index < static_cast<int>(spec_.tensors.size()));
  const TensorSpec& t = spec_.tensors[index];
  // A converted tensor that was not asked for has no bytes (WithTensors).
  MILLRACE_CHECK(t.file_dtype || t.offset + t.size <= files_[t.file]->size());
  return files_[t.file]->Map().subspan(t.offset.count(), t.size.count());
}

std::string Model::PathOf(int index) const {
  MILLRACE_CHECK(index >= 0 && index < static_cast<int>(spec_.tensors.size()));
  const TensorSpec& t = spec_.tensors[index];
  return IsDemo(reference_) || t.file_dtype ? "" : files_[t.file]->name();
}

void Model::ForgetPages(int index) const {
  MILLRACE_CHECK(index >= 0 && index < static_cast<int>(spec_.tensors.size()));
  const TensorSpec& t = spec_.tensors[index];
  if (!t.file_dtype) files_[t.file]->ForgetPages(t.offset, t.size);
}

absl::StatusOr<std::shared_ptr<const Model>> Model::Open(const std::string& reference) {
  return OpenModel(reference, GgufExtent::kWhole);
}

absl::StatusOr<std::shared_ptr<const Model>> Model::OpenMetadata(const std::string& reference) {
  return OpenModel(reference, GgufExtent::kMetadata);
}

absl::StatusOr<Vocabulary> ReadVocabulary(const std::string& reference) {
  if (!IsDemo(reference) && IsDirectory(reference)) return ReadHuggingFaceVocabulary(reference);
  MILLRACE_ASSIGN_OR_RETURN(GgufModelFiles opened,
                            OpenGgufReference(reference, GgufExtent::kMetadata));
  MILLRACE_ASSIGN_OR_RETURN(Vocabulary vocabulary, BuildGgufVocabulary(opened.metadata));
  if (vocabulary.kind == VocabularyKind::kNone) {
    return opened.metadata.Error("tokenizer.ggml.model", "is missing: the file has no tokenizer");
  }
  return vocabulary;
}

}  // namespace millrace
