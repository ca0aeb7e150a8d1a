#include "tools/config_spec.h"

#include <sys/stat.h>

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "tools/synth_spec.h"
#include "worker/model/architecture.h"
#include "worker/model/hf_config.h"
#include "worker/model/json_file.h"

namespace millrace {
namespace {

constexpr absl::string_view kConfigName = "config.json";

bool IsFolder(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

// "models/Qwen3-8B/config.json" -> "Qwen3-8B"; the path itself where no folder is named.
std::string NameOf(absl::string_view config_path) {
  absl::string_view folder = config_path.substr(0, config_path.find_last_of('/'));
  if (folder.size() == config_path.size()) return std::string(config_path);
  while (folder.size() > 1 && folder.back() == '/') folder.remove_suffix(1);
  return std::string(folder.substr(folder.find_last_of('/') + 1));
}

// What checkpoints may have beside the tensors that every one of their architecture has.
absl::Status RefuseWhatTensorsWouldTell(const JsonFields& config, const ModelSpec& spec) {
  MILLRACE_ASSIGN_OR_RETURN(std::optional<bool> bias, config.Bool("attention_bias"));
  if (bias.value_or(false) && spec.architecture != "qwen2") {
    return config.Unimplemented("attention_bias",
                                "biases of this architecture cannot be planned from the "
                                "configuration alone; give the whole model");
  }
  const nlohmann::json* classes = config.Find("architectures");
  if (classes == nullptr) return absl::OkStatus();
  if (!classes->is_array() || classes->empty() || !classes->front().is_string()) {
    return config.Error("architectures", "is not a list of names");
  }
  const std::string& name = classes->front().get_ref<const std::string&>();
  if (absl::EndsWith(name, "ForCausalLM")) return absl::OkStatus();
  return config.Unimplemented("architectures",
                              absl::StrCat("'", name,
                                           "' is not supported, only models that end in "
                                           "ForCausalLM"));
}

SynthShape ShapeOf(const HfConfig& config, int vocab) {
  const ModelSpec& spec = config.spec;
  const LayerSpec& layer = spec.layers.front();  // a config.json has one for all
  SynthShape shape = {};
  shape.name = spec.name;
  shape.architecture = spec.architecture;
  shape.d_model = spec.d_model;
  shape.layers = static_cast<int>(spec.layers.size());
  shape.heads = layer.heads;
  shape.kv_heads = layer.kv_heads;
  shape.head_dim = layer.head_dim;
  shape.d_ff = layer.d_ff;
  shape.vocab = vocab;
  shape.tied = config.tied_output;
  shape.rope_factor = spec.rope.frequency_factors.empty() ? 0.0f : 1.0f;  // whether there are any
  return shape;
}

}  // namespace

bool MayHoldConfig(const std::string& path) {
  return absl::EndsWith(path, ".json") || IsFolder(path);
}

absl::StatusOr<ModelSpec> SpecFromConfig(const std::string& path, absl::string_view quant) {
  MILLRACE_ASSIGN_OR_RETURN(const SynthQuant types, FindSynthQuant(quant));
  const std::string file = IsFolder(path) ? absl::StrCat(path, "/", kConfigName) : path;
  MILLRACE_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonObject(file));
  const JsonFields fields(file, json);
  MILLRACE_ASSIGN_OR_RETURN(HfConfig config, ReadHfConfig(fields));
  MILLRACE_RETURN_IF_ERROR(RefuseWhatTensorsWouldTell(fields, config.spec));
  MILLRACE_ASSIGN_OR_RETURN(const int64_t vocab,
                            fields.RequiredInteger("vocab_size", 1, kMaxVocabulary));
  MILLRACE_ASSIGN_OR_RETURN(const ArchitectureTraits traits,
                            FindArchitecture(config.spec.architecture));
  config.spec.name = NameOf(file);
  config.spec.rope.style = traits.gguf_rope;
  const SynthShape shape = ShapeOf(config, static_cast<int>(vocab));
  absl::StatusOr<ModelSpec> spec = QuantisedSpec(config.spec, shape, types);
  if (!spec.ok()) return Annotate(spec.status(), file);
  return spec;
}

}  // namespace millrace
