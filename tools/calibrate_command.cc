// millrace calibrate: what a model loses where its tensors are held in fewer bits.
#include <algorithm>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "planner/solver.h"
#include "proto/status_macros.h"
#include "proto/stored_types.h"
#include "tools/calibration.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/local_runtime.h"
#include "tools/plan_problem.h"
#include "tools/progress_bar.h"
#include "tools/text_windows.h"

namespace millrace {
namespace {

constexpr int kDefaultContext = 512;
constexpr int kDefaultWindows = 16;

struct CalibrateFlags {
  RuntimeRequest runtime;
  std::string text_path, output;
  int windows = kDefaultWindows;
  bool json = false;
};

// The model held in some types, on the machine of `as_is`.
absl::StatusOr<Runtime> OpenHeld(const std::shared_ptr<const Model>& model,
                                 const PlacementProblem& as_is, const RuntimeRequest& request,
                                 const std::vector<StoredType>& types, DType kv_type) {
  RuntimeRequest held_request = request;
  held_request.budget.kv_type = std::string(DTypeName(kv_type));
  MILLRACE_ASSIGN_OR_RETURN(const ModelSpec held, HeldModel(model->spec(), types));
  MILLRACE_ASSIGN_OR_RETURN(const PlacementProblem problem,
                            ProblemOn(as_is.cluster, held, held_request));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<PlacementPlan> plan, FindPlan(problem));
  if (!plan) {
    return absl::ResourceExhaustedError(
        "the model does not fit this machine as it is in the file (`millrace plan` says what is "
        "missing), and calibration compares with that");
  }
  return LoadRuntime(model, *std::move(plan), request);
}

absl::StatusOr<SensitivityFile> Calibrate(const CalibrateFlags& flags, const TextWindows& text) {
  const RuntimeRequest& request = flags.runtime;
  MILLRACE_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model, Model::Open(request.model));
  MILLRACE_ASSIGN_OR_RETURN(const PlacementProblem as_is,
                            LocalProblem(model->spec(), model->PathOf(0), request));
  const ScoreHeld score = [&](const std::vector<StoredType>& types,
                              DType kv_type) -> absl::StatusOr<std::vector<float>> {
    MILLRACE_ASSIGN_OR_RETURN(const Runtime runtime,
                              OpenHeld(model, as_is, request, types, kv_type));
    std::vector<float> all;
    for (const std::vector<TokenId>& window : text.windows) {
      MILLRACE_ASSIGN_OR_RETURN(
          const std::vector<float> some,
          runtime.log_probs(window, FirstScored(static_cast<int>(window.size()))));
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  };
  const auto progress = [](int done, int all) {
    std::fprintf(stderr, "measured %d of %d\n", done, all);
  };
  MILLRACE_ASSIGN_OR_RETURN(SensitivityFile file, Measure(model->spec(), score, progress));
  file.model = request.model.empty() ? kDemoModel : request.model;
  file.model_fingerprint = FingerprintOf(model->spec());
  file.text = flags.text_path;
  file.windows = static_cast<int>(text.windows.size());
  file.context = request.budget.context;
  return file;
}

void PrintTable(const SensitivityFile& file) {
  std::printf("%-14s %-6s %-5s %12s %14s\n", "role", "layers", "type", "weights", "nats a token");
  static constexpr const char* kThirds[] = {"first", "middle", "last"};
  for (const MeasuredGroup& g : file.groups) {
    const bool layered =
        g.group.role != TensorRole::kTokenEmbedding && g.group.role != TensorRole::kOutput;
    std::printf("%-14s %-6s %-5s %12lld %14.3g\n", std::string(RoleName(g.group.role)).c_str(),
                layered ? kThirds[g.group.third] : "", std::string(DTypeName(g.dtype)).c_str(),
                static_cast<long long>(g.weights), g.divergence);
  }
  std::printf("%-14s %-6s %-5s %12s %14.3g\n", "KV cache", "", "q8_0", "", file.kv_q8_0);
}

absl::StatusOr<int> RunCalibrate(CalibrateFlags flags) {
  RuntimeRequest& request = flags.runtime;
  if (request.budget.context == 0) request.budget.context = kDefaultContext;
  request.expected_prompt_tokens = request.budget.context;
  if (!request.planner.empty() || !request.plan_path.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(request.planner.empty() ? "--plan" : "--planner",
                     ": calibrate makes plans of its own, in this process: leave it out"));
  }
  if (request.budget.precision.mode != PrecisionFlags().mode || !request.budget.kv_type.empty()) {
    return absl::InvalidArgumentError(
        "--precision and --kv-type: calibrate chooses them itself: leave them out");
  }
  const std::string path = flags.output.empty() ? SensitivityPathOf(request.model) : flags.output;
  if (path.empty()) {
    return absl::InvalidArgumentError("-o: name the file: the embedded model lies beside none");
  }
  MILLRACE_ASSIGN_OR_RETURN(
      TextWindows text, ReadTextWindows(request.model, flags.text_path, request.budget.context));
  if (static_cast<size_t>(flags.windows) < text.windows.size()) {
    text.windows.resize(static_cast<size_t>(flags.windows));
  }
  MILLRACE_ASSIGN_OR_RETURN(const SensitivityFile file, Calibrate(flags, text));
  const std::string json = ToJson(file);
  MILLRACE_RETURN_IF_ERROR(WriteTextFile("-o", path, json));
  if (flags.json) {
    std::fputs(json.c_str(), stdout);
  } else {
    PrintTable(file);
  }
  std::fprintf(stderr, "written to %s\n", path.c_str());
  return kExitDone;
}

}  // namespace

void AddCalibrateCommand(CLI::App& app, Command& chosen) {
  auto flags = std::make_shared<CalibrateFlags>();
  CLI::App* sub =
      app.add_subcommand("calibrate", "measure what fewer bits cost a model, for --precision auto");
  AddRuntimeFlags(sub, flags->runtime);
  sub->add_option("--text", flags->text_path, "the text file to measure on")->required();
  sub->add_option("--windows", flags->windows, "measure on the first so many windows of --ctx")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  sub->add_option("-o,--output", flags->output,
                  "where to write [MODEL.sensitivity.json, where --precision auto looks]");
  sub->add_flag("--json", flags->json, "print the file as one JSON object");
  sub->callback([flags, &chosen] { chosen = [flags] { return RunCalibrate(*flags); }; });
}

}  // namespace millrace
