#include "worker/model/hf_config.h"

#include <limits>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "worker/model/architecture.h"
#include "worker/model/rope_scaling.h"

namespace millrace {
namespace {

constexpr int64_t kIntMax = std::numeric_limits<int32_t>::max();

absl::StatusOr<ArchitectureTraits> ReadArchitecture(const JsonFields& config, ModelSpec& spec) {
  MILLRACE_ASSIGN_OR_RETURN(std::optional<std::string> type, config.String("model_type"));
  if (!type) return config.Error("model_type", "is missing");
  // Mistral is llama with a sliding window.
  spec.architecture = *type == "mistral" ? "llama" : *type;
  auto traits = FindArchitecture(spec.architecture);
  if (!traits.ok()) return config.Unimplemented("model_type", traits.status().message());
  return traits;
}

absl::Status ReadLayers(const JsonFields& config, ModelSpec& spec) {
  MILLRACE_ASSIGN_OR_RETURN(int64_t layers,
                            config.RequiredInteger("num_hidden_layers", 1, kMaxLayers));
  MILLRACE_ASSIGN_OR_RETURN(int64_t width, config.RequiredInteger("hidden_size", 1, kMaxWidth));
  MILLRACE_ASSIGN_OR_RETURN(int64_t d_ff,
                            config.RequiredInteger("intermediate_size", 1, kMaxWidth));
  MILLRACE_ASSIGN_OR_RETURN(int64_t heads,
                            config.RequiredInteger("num_attention_heads", 1, kMaxHeads));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<int64_t> kv_heads,
                            config.Integer("num_key_value_heads", 1, kMaxHeads));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<int64_t> head_dim,
                            config.Integer("head_dim", 1, kMaxHeadDim));
  if (!head_dim && width % heads != 0) {
    return config.Error("num_attention_heads",
                        absl::StrCat(heads, " does not divide the hidden size ", width));
  }
  spec.d_model = static_cast<int>(width);
  spec.layers.assign(layers,
                     {static_cast<int>(heads), static_cast<int>(kv_heads.value_or(heads)),
                      static_cast<int>(head_dim.value_or(width / heads)), static_cast<int>(d_ff)});
  return absl::OkStatus();
}

absl::StatusOr<Llama3Scaling> ReadLlama3(const JsonFields& rope, int64_t context) {
  Llama3Scaling s;
  MILLRACE_ASSIGN_OR_RETURN(std::optional<double> factor, rope.Number("factor"));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<double> low, rope.Number("low_freq_factor"));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<double> high, rope.Number("high_freq_factor"));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<double> original,
                            rope.Number("original_max_position_embeddings"));
  if (!factor || *factor < 1) return rope.Error("factor", "is missing or below 1");
  if (!low || *low <= 0) return rope.Error("low_freq_factor", "is missing or not positive");
  if (!high || *high <= *low) {
    return rope.Error("high_freq_factor", "is missing or not above low_freq_factor");
  }
  if (original && *original < 1) {
    return rope.Error("original_max_position_embeddings", "is below 1");
  }
  s = {*factor, *low, *high, original.value_or(static_cast<double>(context))};
  return s;
}

// `rope`: the object that holds rope_type and its numbers.
absl::Status ReadRopeScaling(const JsonFields& rope, ModelSpec& spec) {
  MILLRACE_ASSIGN_OR_RETURN(std::optional<std::string> type, rope.String("rope_type"));
  if (!type) {
    MILLRACE_ASSIGN_OR_RETURN(type, rope.String("type"));
  }
  const std::string kind = type.value_or("default");
  if (kind == "default") return absl::OkStatus();
  if (kind == "linear") {
    MILLRACE_ASSIGN_OR_RETURN(std::optional<double> factor, rope.Number("factor"));
    if (!factor || *factor <= 0) return rope.Error("factor", "is missing or not positive");
    spec.rope.linear_factor = static_cast<float>(*factor);
    return absl::OkStatus();
  }
  if (kind == "llama3") {
    MILLRACE_ASSIGN_OR_RETURN(Llama3Scaling scaling, ReadLlama3(rope, spec.context_length));
    spec.rope.frequency_factors = Llama3FrequencyFactors(spec.rope.base, spec.rope.dims, scaling);
    return absl::OkStatus();
  }
  return rope.Unimplemented("rope_type", absl::StrCat("'", kind,
                                                      "' is not supported, only default, linear "
                                                      "and llama3"));
}

absl::Status ReadRope(const JsonFields& config, ModelSpec& spec) {
  spec.rope.style = RopeStyle::kHalfSplit;
  MILLRACE_ASSIGN_OR_RETURN(std::optional<JsonFields> parameters, config.Object("rope_parameters"));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<JsonFields> scaling, config.Object("rope_scaling"));
  const JsonFields& base_holder = parameters ? *parameters : config;
  MILLRACE_ASSIGN_OR_RETURN(std::optional<double> base, base_holder.Number("rope_theta"));
  if (!base) {
    MILLRACE_ASSIGN_OR_RETURN(base, config.Number("rope_theta"));
  }
  spec.rope.base = static_cast<float>(base.value_or(10000.0));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<double> partial,
                            base_holder.Number("partial_rotary_factor"));
  if (partial && (*partial <= 0 || *partial > 1)) {
    return base_holder.Error("partial_rotary_factor", "is not in (0, 1]");
  }
  spec.rope.dims = static_cast<int>(spec.layers[0].head_dim * partial.value_or(1.0));
  // Before the factors are computed from them:
  MILLRACE_RETURN_IF_ERROR(CheckDimensions(config.file(), spec));
  if (parameters) return ReadRopeScaling(*parameters, spec);
  if (scaling) return ReadRopeScaling(*scaling, spec);
  return absl::OkStatus();
}

// A window narrower than the context would change attention past it. The context is capped to the
// window, within which both are the same, so that nothing is silently wrong.
absl::Status CapToWindow(const JsonFields& config, const ArchitectureTraits& traits,
                         ModelSpec& spec) {
  MILLRACE_ASSIGN_OR_RETURN(std::optional<int64_t> window,
                            config.Integer("sliding_window", 0, kIntMax));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<bool> use, config.Bool("use_sliding_window"));
  if (!window || *window == 0 || !use.value_or(traits.window_by_default)) return absl::OkStatus();
  if (*window < spec.context_length) spec.context_length = static_cast<int>(*window);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HfConfig> ReadHfConfig(const JsonFields& config) {
  HfConfig out;
  ModelSpec& spec = out.spec;
  MILLRACE_ASSIGN_OR_RETURN(ArchitectureTraits traits, ReadArchitecture(config, spec));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<std::string> activation, config.String("hidden_act"));
  if (activation.value_or("silu") != "silu") {
    return config.Unimplemented("hidden_act",
                                absl::StrCat("'", *activation, "' is not supported, only silu"));
  }
  MILLRACE_ASSIGN_OR_RETURN(std::optional<bool> mlp_bias, config.Bool("mlp_bias"));
  if (mlp_bias.value_or(false)) {
    return config.Unimplemented("mlp_bias", "biases in the feed-forward are not supported");
  }
  if (config.Find("quantization_config") != nullptr) {
    return config.Unimplemented("quantization_config",
                                "quantised Hugging Face checkpoints are not supported; use the "
                                "original or a GGUF file");
  }
  MILLRACE_RETURN_IF_ERROR(ReadLayers(config, spec));
  MILLRACE_ASSIGN_OR_RETURN(int64_t context,
                            config.RequiredInteger("max_position_embeddings", 1, kIntMax));
  spec.context_length = static_cast<int>(context);
  MILLRACE_ASSIGN_OR_RETURN(std::optional<double> epsilon, config.Number("rms_norm_eps"));
  spec.norm_epsilon = static_cast<float>(epsilon.value_or(1e-6));
  MILLRACE_RETURN_IF_ERROR(ReadRope(config, spec));
  MILLRACE_RETURN_IF_ERROR(CapToWindow(config, traits, spec));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<bool> tied, config.Bool("tie_word_embeddings"));
  out.tied_output = tied.value_or(false);
  return out;
}

}  // namespace millrace
