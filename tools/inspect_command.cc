// millrace inspect: what is in a model file.
#include <cstdio>
#include <map>
#include <memory>

#include "absl/strings/str_join.h"
#include "proto/placement_plan.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/model_words.h"
#include "worker/model/model.h"

namespace millrace {
namespace {

struct InspectFlags {
  std::string model;
  bool tensors = false, json = false;
};

std::string KindName(VocabularyKind kind) {
  switch (kind) {
    case VocabularyKind::kNone:
      return "none";
    case VocabularyKind::kByteLevelBpe:
      return "byte-level BPE";
    case VocabularyKind::kSentencePiece:
      return "SentencePiece";
  }
  return "?";
}

std::string TypeName(DType dtype) {
  const absl::string_view name = DTypeName(dtype);
  return std::string(name.data(), name.size());
}

std::map<std::string, int64_t> BytesPerType(const ModelSpec& spec) {
  std::map<std::string, int64_t> bytes;
  for (const TensorSpec& tensor : spec.tensors) {
    bytes[TypeName(tensor.dtype)] += tensor.size.count();
  }
  return bytes;
}

nlohmann::ordered_json ToJson(const Model& model) {
  const ModelSpec& spec = model.spec();
  const Vocabulary& vocabulary = model.vocabulary();
  const LayerSpec layer = spec.layers.empty() ? LayerSpec() : spec.layers.front();
  nlohmann::ordered_json out = {{"model", model.reference()},
                                {"name", spec.name},
                                {"architecture", spec.architecture},
                                {"parameters", spec.parameters()},
                                {"weight_bytes", spec.weight_bytes().count()},
                                {"layers", spec.layers.size()},
                                {"d_model", spec.d_model},
                                {"heads", layer.heads},
                                {"kv_heads", layer.kv_heads},
                                {"head_dim", layer.head_dim},
                                {"d_ff", layer.d_ff},
                                {"vocab", spec.vocab},
                                {"context_length", spec.context_length},
                                {"tied_output", spec.tied_output},
                                {"rope_base", spec.rope.base},
                                {"fingerprint", FingerprintOf(spec)},
                                {"bytes_per_type", BytesPerType(spec)}};
  out["vocabulary"] = {{"kind", KindName(vocabulary.kind)},
                       {"pre_tokenizer", vocabulary.pre_tokenizer},
                       {"tokens", vocabulary.tokens.size()},
                       {"bos", vocabulary.bos},
                       {"eos", vocabulary.eos},
                       {"add_bos", vocabulary.add_bos}};
  if (model.missing() > Bytes(0)) out["missing_bytes"] = model.missing().count();
  out["files"] = nlohmann::ordered_json::array();
  for (const ModelFileSpec& file : spec.files) {
    out["files"].push_back({{"name", file.name}, {"bytes", file.size.count()}});
  }
  out["tensors"] = nlohmann::ordered_json::array();
  for (const TensorSpec& tensor : spec.tensors) {
    out["tensors"].push_back({{"name", tensor.name},
                              {"type", TypeName(tensor.dtype)},
                              {"shape", tensor.shape},
                              {"file", tensor.file},
                              {"offset", tensor.offset.count()},
                              {"bytes", tensor.size.count()}});
  }
  return out;
}

void PrintForPeople(const Model& model, bool tensors) {
  const ModelSpec& spec = model.spec();
  const Vocabulary& vocabulary = model.vocabulary();
  const LayerSpec layer = spec.layers.empty() ? LayerSpec() : spec.layers.front();
  std::printf("%s: %s, %s\n", model.reference().empty() ? kDemoModel : model.reference().c_str(),
              spec.architecture.c_str(), spec.name.c_str());
  std::printf("  parameters   %.2f M in %s\n", static_cast<double>(spec.parameters()) / 1e6,
              FormatBytes(spec.weight_bytes()).c_str());
  std::printf("  layers       %zu, width %d, %d heads of %d (%d kv), feed-forward %d\n",
              spec.layers.size(), spec.d_model, layer.heads, layer.head_dim, layer.kv_heads,
              layer.d_ff);
  std::printf("  vocabulary   %lld, %s%s%s; output %s\n", static_cast<long long>(spec.vocab),
              KindName(vocabulary.kind).c_str(), vocabulary.pre_tokenizer.empty() ? "" : ", ",
              vocabulary.pre_tokenizer.c_str(), spec.tied_output ? "tied" : "of its own");
  std::printf("  context      %d tokens, rope base %g\n", spec.context_length,
              static_cast<double>(spec.rope.base));
  for (const auto& [type, bytes] : BytesPerType(spec)) {
    std::printf("  %-12s %s\n", type.c_str(), FormatBytes(Bytes(bytes)).c_str());
  }
  for (const ModelFileSpec& file : spec.files) {
    std::printf("  file         %s, %s\n", file.name.c_str(), FormatBytes(file.size).c_str());
  }
  if (model.missing() > Bytes(0)) std::printf("  %s\n", OnlyMetadata(model).c_str());
  if (!tensors) return;
  for (const TensorSpec& tensor : spec.tensors) {
    std::printf("%-32s %-6s [%s] %s\n", tensor.name.c_str(), TypeName(tensor.dtype).c_str(),
                absl::StrJoin(tensor.shape, ", ").c_str(), FormatBytes(tensor.size).c_str());
  }
}

absl::StatusOr<int> RunInspect(const InspectFlags& flags) {
  MILLRACE_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model,
                            Model::OpenMetadata(flags.model));
  if (flags.json) {
    PrintJson(ToJson(*model));
  } else {
    PrintForPeople(*model, flags.tensors);
  }
  return kExitDone;
}

}  // namespace

void AddInspectCommand(CLI::App& app, Command& chosen) {
  auto flags = std::make_shared<InspectFlags>();
  CLI::App* sub = app.add_subcommand("inspect", "what is in a model file");
  sub->add_option("MODEL", flags->model,
                  "GGUF file or Hugging Face folder (default: the demo model)");
  sub->add_flag("--tensors", flags->tensors, "list every tensor");
  sub->add_flag("--json", flags->json, "print one JSON object, tensors included");
  sub->callback([flags, &chosen] { chosen = [flags] { return RunInspect(*flags); }; });
}

}  // namespace millrace
