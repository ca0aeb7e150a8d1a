#include "worker/model/architecture.h"

#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/status_macros.h"
#include "proto/tensor_shapes.h"

namespace millrace {
namespace {

constexpr std::array<ArchitectureTraits, 3> kArchitectures = {{
    {"llama", RopeStyle::kInterleaved, false, false, true},
    {"qwen2", RopeStyle::kHalfSplit, true, false, false},
    {"qwen3", RopeStyle::kHalfSplit, false, true, false},
}};

bool IsBias(TensorRole role) {
  return role == TensorRole::kAttnQBias || role == TensorRole::kAttnKBias ||
         role == TensorRole::kAttnVBias || role == TensorRole::kAttnOutputBias;
}

// Empty when the tensor's extent is free (the vocabulary).
std::vector<int64_t> ExpectedShape(const ModelSpec& spec, TensorRole role, int layer) {
  const int64_t d = spec.d_model;
  if (layer < 0) {
    switch (role) {
      case TensorRole::kOutputNorm:
        return {d};
      case TensorRole::kRopeFactors:
        return {spec.rope.dims / 2};
      default:
        return {spec.vocab, d};
    }
  }
  return LayerTensorShape(spec.layers[layer], d, role);
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// The table's state while tensors are sorted into roles.
class Assembler {
 public:
  Assembler(const std::string& source, TensorNaming naming, ModelSpec& spec)
      : source_(source), naming_(naming), spec_(spec) {}

  absl::Status Add(RawTensor raw) {
    const TensorKey key = ParseTensorName(naming_, raw.name);
    if (key.kind == TensorKey::Kind::kRefused) {
      return absl::UnimplementedError(absl::StrCat(source_, ": tensor '", raw.name,
                                                   "' is not part of the ", spec_.architecture,
                                                   " architecture as millrace computes it"));
    }
    if (key.kind != TensorKey::Kind::kKnown) return absl::OkStatus();
    if (key.layer >= static_cast<int>(spec_.layers.size())) {
      return Error(raw.name, absl::StrCat("belongs to layer ", key.layer, ", but the model has ",
                                          spec_.layers.size(), " layers"));
    }
    if (!found_.emplace(std::pair(key.role, key.layer), spec_.tensors.size()).second) {
      return Error(raw.name, "appears twice");
    }
    spec_.tensors.push_back(TensorSpec{std::move(raw.name), key.role, key.layer, raw.dtype,
                                       std::move(raw.shape), raw.file, raw.offset, raw.size});
    return absl::OkStatus();
  }

  absl::Status Finish() {
    MILLRACE_RETURN_IF_ERROR(SetVocabulary());
    spec_.tied_output = !Has(TensorRole::kOutput, -1);
    MILLRACE_RETURN_IF_ERROR(CheckPresence());
    for (const TensorSpec& t : spec_.tensors) MILLRACE_RETURN_IF_ERROR(CheckTensor(t));
    return absl::OkStatus();
  }

 private:
  absl::Status Error(absl::string_view tensor, absl::string_view what) const {
    return absl::DataLossError(absl::StrCat(source_, ": tensor '", tensor, "': ", what));
  }

  bool Has(TensorRole role, int layer) const { return found_.count({role, layer}) > 0; }

  absl::Status Require(TensorRole role, int layer) const {
    if (Has(role, layer)) return absl::OkStatus();
    return Error(TensorName(naming_, role, layer), "is missing");
  }

  absl::Status SetVocabulary() {
    MILLRACE_RETURN_IF_ERROR(Require(TensorRole::kTokenEmbedding, -1));
    const TensorSpec& embedding = spec_.tensors[found_.at({TensorRole::kTokenEmbedding, -1})];
    if (embedding.shape.size() != 2 || embedding.shape[0] > kMaxVocabulary) {
      return Error(embedding.name,
                   absl::StrCat("has shape ", ShapeText(embedding.shape),
                                ", expected [vocabulary of at most ", kMaxVocabulary, ", ",
                                spec_.d_model, "]"));
    }
    spec_.vocab = embedding.shape[0];
    return absl::OkStatus();
  }

  absl::Status CheckPresence() const {
    MILLRACE_ASSIGN_OR_RETURN(ArchitectureTraits traits, FindArchitecture(spec_.architecture));
    MILLRACE_RETURN_IF_ERROR(Require(TensorRole::kOutputNorm, -1));
    for (int layer = 0; layer < static_cast<int>(spec_.layers.size()); ++layer) {
      for (TensorRole role : {TensorRole::kAttnNorm, TensorRole::kAttnQ, TensorRole::kAttnK,
                              TensorRole::kAttnV, TensorRole::kAttnOutput, TensorRole::kFfnNorm,
                              TensorRole::kFfnGate, TensorRole::kFfnUp, TensorRole::kFfnDown}) {
        MILLRACE_RETURN_IF_ERROR(Require(role, layer));
      }
      for (TensorRole role :
           {TensorRole::kAttnQBias, TensorRole::kAttnKBias, TensorRole::kAttnVBias}) {
        if (traits.needs_qkv_bias) MILLRACE_RETURN_IF_ERROR(Require(role, layer));
      }
      for (TensorRole role : {TensorRole::kAttnQNorm, TensorRole::kAttnKNorm}) {
        if (traits.needs_qk_norm) {
          MILLRACE_RETURN_IF_ERROR(Require(role, layer));
        } else if (Has(role, layer)) {
          return absl::UnimplementedError(absl::StrCat(
              source_, ": tensor '", TensorName(naming_, role, layer), "': the ",
              spec_.architecture, " architecture has no norm of queries and keys here"));
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckTensor(const TensorSpec& t) const {
    const std::vector<int64_t> expected = ExpectedShape(spec_, t.role, t.layer);
    if (t.shape != expected) {
      return Error(t.name, absl::StrCat("has shape ", ShapeText(t.shape), ", expected ",
                                        ShapeText(expected)));
    }
    const bool plain = t.shape.size() == 1 || IsBias(t.role);
    if (plain && Info(t.dtype).quantized) {
      return Error(t.name,
                   absl::StrCat("is of type ", DTypeName(t.dtype), ", expected f32, f16 or bf16"));
    }
    return absl::OkStatus();
  }

  const std::string& source_;
  const TensorNaming naming_;
  ModelSpec& spec_;
  std::map<std::pair<TensorRole, int>, size_t> found_;
};

absl::Status InRange(const std::string& source, absl::string_view what, int64_t value, int64_t low,
                     int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(source, ": ", what, " is ", value, ", not in [", low, ", ", high, "]"));
}

}  // namespace

absl::StatusOr<ArchitectureTraits> FindArchitecture(absl::string_view name) {
  std::vector<absl::string_view> known;
  for (const ArchitectureTraits& traits : kArchitectures) {
    if (traits.name == name) return traits;
    known.push_back(traits.name);
  }
  return absl::UnimplementedError(absl::StrCat(
      "architecture '", name, "' is not supported; millrace knows ", absl::StrJoin(known, ", ")));
}

absl::Status CheckDimensions(const std::string& source, const ModelSpec& spec) {
  MILLRACE_RETURN_IF_ERROR(InRange(source, "the number of layers",
                                   static_cast<int64_t>(spec.layers.size()), 1, kMaxLayers));
  MILLRACE_RETURN_IF_ERROR(InRange(source, "embedding length", spec.d_model, 1, kMaxWidth));
  MILLRACE_RETURN_IF_ERROR(InRange(source, "context length", spec.context_length, 1,
                                   std::numeric_limits<int32_t>::max()));
  if (!(spec.norm_epsilon > 0) || !(spec.norm_epsilon < 1)) {
    return absl::DataLossError(
        absl::StrCat(source, ": RMS norm epsilon is ", spec.norm_epsilon, ", not between 0 and 1"));
  }
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const LayerSpec& l = spec.layers[i];
    const std::string at = absl::StrCat(" of layer ", i);
    MILLRACE_RETURN_IF_ERROR(InRange(source, "head count" + at, l.heads, 1, kMaxHeads));
    MILLRACE_RETURN_IF_ERROR(InRange(source, "key-value head count" + at, l.kv_heads, 1, l.heads));
    MILLRACE_RETURN_IF_ERROR(InRange(source, "head size" + at, l.head_dim, 2, kMaxHeadDim));
    MILLRACE_RETURN_IF_ERROR(InRange(source, "feed-forward length" + at, l.d_ff, 1, kMaxWidth));
    if (l.heads % l.kv_heads != 0) {
      return absl::DataLossError(absl::StrCat(source, ": head count", at, " is ", l.heads,
                                              ", not a multiple of the ", l.kv_heads,
                                              " key-value heads"));
    }
    if (spec.rope.dims < 2 || spec.rope.dims > l.head_dim || spec.rope.dims % 2 != 0) {
      return absl::DataLossError(absl::StrCat(source, ": rope dimension count is ", spec.rope.dims,
                                              ", not even and within the head size ", l.head_dim));
    }
  }
  if (!(spec.rope.base > 0) || !std::isfinite(spec.rope.base)) {
    return absl::DataLossError(
        absl::StrCat(source, ": rope base is ", spec.rope.base, ", not a positive number"));
  }
  if (!(spec.rope.linear_factor > 0) || !std::isfinite(spec.rope.linear_factor)) {
    return absl::DataLossError(absl::StrCat(source, ": rope scaling factor is ",
                                            spec.rope.linear_factor, ", not a positive number"));
  }
  return absl::OkStatus();
}

absl::Status AssembleTensors(const std::string& source, TensorNaming naming,
                             std::vector<RawTensor> tensors, ModelSpec& spec) {
  Assembler assembler(source, naming, spec);
  for (RawTensor& tensor : tensors) {
    MILLRACE_RETURN_IF_ERROR(assembler.Add(std::move(tensor)));
  }
  return assembler.Finish();
}

}  // namespace millrace
