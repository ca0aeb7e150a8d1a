#include "worker/model/hf_model.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/status_macros.h"
#include "worker/model/architecture.h"
#include "worker/model/hf_config.h"
#include "worker/model/hf_tokenizer.h"
#include "worker/model/json_file.h"
#include "worker/model/safetensors.h"
#include "worker/model/vocabulary_rules.h"

namespace millrace {
namespace {

std::string LastComponent(absl::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.find_last_of('/');
  return std::string(slash == absl::string_view::npos ? path : path.substr(slash + 1));
}

// A tied checkpoint may still store its head, which is then the embedding once more.
void DropTiedHead(std::vector<RawTensor>& tensors) {
  const std::string head = TensorName(TensorNaming::kHuggingFace, TensorRole::kOutput);
  std::erase_if(tensors, [&](const RawTensor& t) { return t.name == head; });
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Model>> OpenHuggingFace(const std::string& directory) {
  const std::string config_path = absl::StrCat(directory, "/config.json");
  auto json = ReadJsonObject(config_path);
  if (absl::IsNotFound(json.status())) {
    return absl::NotFoundError(absl::StrCat(
        directory,
        ": is a folder without config.json, so not a Hugging Face model; to run a GGUF "
        "model give the .gguf file itself"));
  }
  MILLRACE_RETURN_IF_ERROR(json.status());
  MILLRACE_ASSIGN_OR_RETURN(HfConfig config, ReadHfConfig(JsonFields(config_path, *json)));
  absl::StatusOr<SafetensorsModel> opened = OpenSafetensors(directory);
  if (absl::IsNotFound(opened.status())) {
    return absl::NotFoundError(absl::StrCat(
        opened.status().message(),
        "; `millrace plan` needs no more than config.json, with --quant Q4_K_M or another"));
  }
  MILLRACE_RETURN_IF_ERROR(opened.status());
  SafetensorsModel weights = *std::move(opened);
  if (config.tied_output) DropTiedHead(weights.tensors);

  ModelSpec spec = std::move(config.spec);
  spec.name = LastComponent(directory);
  MILLRACE_RETURN_IF_ERROR(
      AssembleTensors(directory, TensorNaming::kHuggingFace, std::move(weights.tensors), spec));
  if (spec.tied_output && !config.tied_output) {
    return absl::DataLossError(
        absl::StrCat(directory,
                     ": tensor 'lm_head.weight': is missing, and config.json does not "
                     "say tie_word_embeddings"));
  }
  for (const auto& file : weights.files) {
    spec.files.push_back({LastComponent(file->name()), file->size()});
  }
  MILLRACE_ASSIGN_OR_RETURN(Vocabulary vocabulary, ReadHfVocabulary(directory));
  MILLRACE_RETURN_IF_ERROR(PadVocabulary(directory, spec.vocab, vocabulary));
  return std::make_shared<const Model>(directory, std::move(spec), std::move(vocabulary),
                                       std::move(weights.files));
}

absl::StatusOr<Vocabulary> ReadHuggingFaceVocabulary(const std::string& directory) {
  return ReadHfVocabulary(directory);
}

}  // namespace millrace
