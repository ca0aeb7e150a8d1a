#include "worker/model/gguf_spec.h"

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "worker/model/architecture.h"

namespace millrace {
namespace {

constexpr int64_t kIntMax = std::numeric_limits<int32_t>::max();

// Keys of one architecture: "llama.block_count" for Key("block_count").
class SpecReader {
 public:
  SpecReader(const GgufMetadata& metadata, std::string architecture)
      : metadata_(metadata), architecture_(std::move(architecture)) {}

  std::string Key(absl::string_view name) const { return absl::StrCat(architecture_, ".", name); }
  const GgufMetadata& metadata() const { return metadata_; }

  absl::StatusOr<int> Required(absl::string_view name, int64_t high) const {
    MILLRACE_ASSIGN_OR_RETURN(std::optional<int64_t> v, metadata_.Integer(Key(name), 1, high));
    if (!v) return metadata_.Error(Key(name), "is missing");
    return static_cast<int>(*v);
  }

  absl::StatusOr<int> Optional(absl::string_view name, int64_t high, int fallback) const {
    MILLRACE_ASSIGN_OR_RETURN(std::optional<int64_t> v, metadata_.Integer(Key(name), 1, high));
    return v ? static_cast<int>(*v) : fallback;
  }

  // One number for all layers, or an array with one per layer.
  absl::StatusOr<std::vector<int>> PerLayer(absl::string_view name, size_t layers, int64_t high,
                                            const std::vector<int>& fallback) const {
    const std::string key = Key(name);
    const GgufValue* value = metadata_.Find(key);
    if (value == nullptr) {
      if (fallback.empty()) return metadata_.Error(key, "is missing");
      return fallback;
    }
    if (value->type != GgufType::kArray) {
      MILLRACE_ASSIGN_OR_RETURN(std::optional<int64_t> one, metadata_.Integer(key, 1, high));
      return std::vector<int>(layers, static_cast<int>(*one));
    }
    MILLRACE_ASSIGN_OR_RETURN(auto array, metadata_.Integers(key));
    if (!array) return metadata_.Error(key, "is missing");
    if (array->size() != layers) {
      return metadata_.Error(key, absl::StrCat("has ", array->size(), " elements, expected ",
                                               layers, ", one per layer"));
    }
    std::vector<int> out;
    for (int64_t v : *array) {
      if (v < 1 || v > high) {
        return metadata_.Error(key, absl::StrCat(v, " is not in [1, ", high, "]"));
      }
      out.push_back(static_cast<int>(v));
    }
    return out;
  }

 private:
  const GgufMetadata& metadata_;
  std::string architecture_;
};

absl::Status ReadLayers(const SpecReader& reader, ModelSpec& spec) {
  MILLRACE_ASSIGN_OR_RETURN(int layers, reader.Required("block_count", kMaxLayers));
  MILLRACE_ASSIGN_OR_RETURN(spec.d_model, reader.Required("embedding_length", kMaxWidth));
  MILLRACE_ASSIGN_OR_RETURN(std::vector<int> d_ff,
                            reader.PerLayer("feed_forward_length", layers, kMaxWidth, {}));
  MILLRACE_ASSIGN_OR_RETURN(std::vector<int> heads,
                            reader.PerLayer("attention.head_count", layers, kMaxHeads, {}));
  MILLRACE_ASSIGN_OR_RETURN(std::vector<int> kv_heads,
                            reader.PerLayer("attention.head_count_kv", layers, kMaxHeads, heads));
  const GgufMetadata& metadata = reader.metadata();
  const bool has_key_length = metadata.Find(reader.Key("attention.key_length")) != nullptr;
  if (!has_key_length && spec.d_model % heads[0] != 0) {
    return metadata.Error(
        reader.Key("attention.head_count"),
        absl::StrCat(heads[0], " does not divide the embedding length ", spec.d_model));
  }
  MILLRACE_ASSIGN_OR_RETURN(
      int head_dim, reader.Optional("attention.key_length", kMaxHeadDim, spec.d_model / heads[0]));
  MILLRACE_ASSIGN_OR_RETURN(int value_length,
                            reader.Optional("attention.value_length", kMaxHeadDim, head_dim));
  if (value_length != head_dim) {
    return absl::UnimplementedError(absl::StrCat(
        metadata.file(), ": key '", reader.Key("attention.value_length"), "': ", value_length,
        " differs from the key length ", head_dim, ", which millrace does not support"));
  }
  for (int i = 0; i < layers; ++i) {
    spec.layers.push_back({heads[i], kv_heads[i], head_dim, d_ff[i]});
  }
  return absl::OkStatus();
}

// none; linear; anything else only when its factor is 1 (and so has no effect).
absl::Status ReadRopeScaling(const SpecReader& reader, ModelSpec& spec) {
  const GgufMetadata& metadata = reader.metadata();
  const std::string type_key = reader.Key("rope.scaling.type");
  MILLRACE_ASSIGN_OR_RETURN(std::optional<std::string> type, metadata.String(type_key));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<double> factor,
                            metadata.Float(reader.Key("rope.scaling.factor")));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<double> old,
                            metadata.Float(reader.Key("rope.scale_linear")));
  if (!type && !factor && old) {
    spec.rope.linear_factor = static_cast<float>(*old);
    return absl::OkStatus();
  }
  const std::string kind = type.value_or(factor ? "linear" : "none");
  if (kind == "none") return absl::OkStatus();
  if (kind == "linear") {
    spec.rope.linear_factor = static_cast<float>(factor.value_or(1.0));
    return absl::OkStatus();
  }
  if (factor.value_or(1.0) == 1.0) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(metadata.file(), ": key '", type_key, "': '", kind,
                                               "' is not supported, only none and linear"));
}

absl::Status ReadRope(const SpecReader& reader, const ArchitectureTraits& traits, ModelSpec& spec) {
  spec.rope.style = traits.gguf_rope;
  MILLRACE_ASSIGN_OR_RETURN(spec.rope.dims, reader.Optional("rope.dimension_count", kMaxHeadDim,
                                                            spec.layers[0].head_dim));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<double> base,
                            reader.metadata().Float(reader.Key("rope.freq_base")));
  spec.rope.base = static_cast<float>(base.value_or(10000.0));
  return ReadRopeScaling(reader, spec);
}

// A window narrower than the context would change attention past it: the context is capped to it,
// within which both are the same.
absl::Status CapToWindow(const SpecReader& reader, ModelSpec& spec) {
  MILLRACE_ASSIGN_OR_RETURN(
      std::optional<int64_t> window,
      reader.metadata().Integer(reader.Key("attention.sliding_window"), 0, kIntMax));
  if (window && *window > 0 && *window < spec.context_length) {
    spec.context_length = static_cast<int>(*window);
  }
  return absl::OkStatus();
}

absl::Status RefuseExperts(const SpecReader& reader) {
  const std::string key = reader.Key("expert_count");
  MILLRACE_ASSIGN_OR_RETURN(std::optional<int64_t> experts,
                            reader.metadata().Integer(key, 0, kIntMax));
  if (!experts || *experts == 0) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(reader.metadata().file(), ": key '", key,
                                               "': ", *experts,
                                               " experts: mixtures of experts are not "
                                               "supported"));
}

absl::Status ReadFrequencyFactors(const std::string& source,
                                  const std::vector<std::unique_ptr<FileReader>>& files,
                                  ModelSpec& spec) {
  const int index = spec.FindTensor(TensorRole::kRopeFactors);
  if (index < 0) return absl::OkStatus();
  const TensorSpec& t = spec.tensors[index];
  if (t.offset + t.size > files[t.file]->size()) return absl::OkStatus();  // only metadata is here
  if (t.dtype != DType::kF32) {
    return absl::DataLossError(absl::StrCat(source, ": tensor '", t.name, "': is of type ",
                                            DTypeName(t.dtype), ", expected f32"));
  }
  spec.rope.frequency_factors.resize(t.cols());
  auto bytes = absl::MakeSpan(reinterpret_cast<std::byte*>(spec.rope.frequency_factors.data()),
                              spec.rope.frequency_factors.size() * sizeof(float));
  MILLRACE_RETURN_IF_ERROR(files[t.file]->ReadAt(t.offset, bytes));
  for (float f : spec.rope.frequency_factors) {
    if (!std::isfinite(f) || f <= 0) {
      return absl::DataLossError(absl::StrCat(source, ": tensor '", t.name, "': a factor is ", f,
                                              ", not a positive number"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelSpec> BuildGgufSpec(const GgufMetadata& metadata,
                                        std::vector<RawTensor> tensors,
                                        const std::vector<std::unique_ptr<FileReader>>& files) {
  const std::string& source = metadata.file();
  MILLRACE_ASSIGN_OR_RETURN(std::optional<std::string> architecture,
                            metadata.String("general.architecture"));
  if (!architecture) return metadata.Error("general.architecture", "is missing");
  auto traits = FindArchitecture(*architecture);
  if (!traits.ok()) return Annotate(traits.status(), source);
  const SpecReader reader(metadata, *architecture);

  ModelSpec spec;
  spec.architecture = *architecture;
  MILLRACE_ASSIGN_OR_RETURN(std::optional<std::string> name, metadata.String("general.name"));
  spec.name = name.value_or("");
  MILLRACE_RETURN_IF_ERROR(RefuseExperts(reader));
  MILLRACE_RETURN_IF_ERROR(ReadLayers(reader, spec));
  MILLRACE_ASSIGN_OR_RETURN(spec.context_length, reader.Required("context_length", kIntMax));
  const std::string epsilon_key = reader.Key("attention.layer_norm_rms_epsilon");
  MILLRACE_ASSIGN_OR_RETURN(std::optional<double> epsilon, metadata.Float(epsilon_key));
  if (!epsilon) return metadata.Error(epsilon_key, "is missing");
  spec.norm_epsilon = static_cast<float>(*epsilon);
  MILLRACE_RETURN_IF_ERROR(ReadRope(reader, *traits, spec));
  MILLRACE_RETURN_IF_ERROR(CapToWindow(reader, spec));
  MILLRACE_RETURN_IF_ERROR(CheckDimensions(source, spec));
  if (tensors.empty()) {
    return absl::DataLossError(
        absl::StrCat(source, ": holds a vocabulary but no tensors: it can tokenise, not run"));
  }
  MILLRACE_RETURN_IF_ERROR(AssembleTensors(source, TensorNaming::kGguf, std::move(tensors), spec));
  MILLRACE_RETURN_IF_ERROR(ReadFrequencyFactors(source, files, spec));
  for (const auto& file : files) {
    const std::string& path = file->name();
    spec.files.push_back({path.substr(path.find_last_of('/') + 1), file->size()});
  }
  return spec;
}

}  // namespace millrace
