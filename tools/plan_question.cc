#include "tools/plan_question.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/status_macros.h"
#include "tools/config_spec.h"
#include "tools/local_runtime.h"
#include "tools/model_words.h"
#include "tools/plan_precision.h"
#include "tools/plan_problem.h"
#include "tools/synth.h"
#include "tools/synth_spec.h"

namespace millrace {
namespace {

absl::Status Exclude(absl::string_view a, absl::string_view b) {
  return absl::InvalidArgumentError(absl::StrCat(a, " and ", b, " exclude each other"));
}

absl::StatusOr<AskedProblem> OnDescribed(const AskedModel& model, DescribedMachine machine,
                                         const RuntimeRequest& request) {
  AskedProblem out;
  out.notes = std::move(machine.notes);
  ClusterSpec cluster;
  cluster.hosts.push_back(std::move(machine.host));
  MILLRACE_ASSIGN_OR_RETURN(out.problem, ProblemAtPrecision(cluster, model.spec, request));
  return out;
}

absl::StatusOr<AskedProblem> OnThisMachine(const AskedModel& model, const std::string& workers,
                                           RuntimeRequest request) {
  AskedProblem out;
  // Imagined workers are like this machine's CPU unless devices are named.
  if (!workers.empty() && request.budget.devices.empty()) request.budget.devices = "cpu";
  RuntimeRequest here_as_is = request;
  if (!workers.empty()) here_as_is.budget.precision = {};
  MILLRACE_ASSIGN_OR_RETURN(out.problem, LocalProblem(model.spec, model.path, here_as_is));
  if (workers.empty()) return out;
  const HostSpec here = out.problem.cluster.hosts.front();
  MILLRACE_ASSIGN_OR_RETURN(const ClusterSpec imagined, ParseImaginedWorkers(workers, here));
  MILLRACE_ASSIGN_OR_RETURN(out.problem, ProblemAtPrecision(imagined, model.spec, request));
  return out;
}

}  // namespace

absl::StatusOr<AskedModel> ReadModel(const PlanQuestion& q) {
  AskedModel out;
  out.reference = q.runtime.model;
  if (!q.shape.empty()) {
    out.reference = absl::StrCat(q.shape, " ", q.quant, " (shape only)");
    MILLRACE_ASSIGN_OR_RETURN(out.spec, SynthModelSpec(q.shape, q.quant));
    return out;
  }
  if (!q.quant.empty()) {
    out.reference = absl::StrCat(q.runtime.model, " ", q.quant, " (config only)");
    MILLRACE_ASSIGN_OR_RETURN(out.spec, SpecFromConfig(q.runtime.model, q.quant));
    return out;
  }
  MILLRACE_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model,
                            Model::OpenMetadata(q.runtime.model));
  out.spec = model->spec();
  if (model->missing() > Bytes(0)) {
    out.note = absl::StrCat(q.runtime.model, ": ", OnlyMetadata(*model));
  } else {
    out.path = model->PathOf(0);
  }
  return out;
}

absl::StatusOr<std::optional<DescribedMachine>> DescribedBy(const PlanQuestion& q) {
  if (!q.hardware.empty()) return ParseHardware(q.hardware);
  if (!q.hardware_file.empty()) return ReadHardwareFile(q.hardware_file);
  return std::nullopt;
}

void AddQuestionFlags(CLI::App* app, PlanQuestion& q) {
  app->add_option("MODEL", q.runtime.model,
                  "GGUF file (its metadata is enough), Hugging Face folder, or with --quant a "
                  "config.json");
  app->add_option("--shape", q.shape,
                  "instead of MODEL, no file: one of " + absl::StrJoin(SynthShapeNames(), ", "));
  app->add_option("--quant", q.quant,
                  "of the shape, or of a config.json without weights: one of " +
                      absl::StrJoin(SynthQuantNames(), ", "));
  app->add_option(
      "--hardware", q.hardware,
      "plan for a machine described so, not this one: '2x rtx-3090, ddr5-desktop 64GiB, "
      "pcie4x16'; 'list' shows what there is");
  app->add_option("--hardware-file", q.hardware_file,
                  "plan for the machine that `millrace probe -o FILE` was run on");
  app->add_option("--workers", q.workers,
                  "plan over imagined workers like this host: w0=12MiB,w1=12MiB");
}

absl::Status CheckQuestion(const PlanQuestion& q) {
  const bool at_planner = !q.runtime.planner.empty();
  if (at_planner && !q.workers.empty()) return Exclude("--workers", "--planner");
  if (!q.shape.empty() && !q.runtime.model.empty()) return Exclude("--shape", "MODEL");
  if (!q.shape.empty() && q.quant.empty()) {
    return absl::InvalidArgumentError("--shape: --quant says the types of its weights; add it");
  }
  if (q.shape.empty() && !q.quant.empty() && !MayHoldConfig(q.runtime.model)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--quant: goes with --shape, or with a Hugging Face config.json (or its "
                     "folder) as MODEL; '",
                     q.runtime.model, "' is neither: the types of its weights are its own"));
  }
  const absl::string_view machine = !q.hardware.empty()        ? "--hardware"
                                    : !q.hardware_file.empty() ? "--hardware-file"
                                                               : "";
  if (machine.empty()) return absl::OkStatus();
  if (!q.hardware.empty() && !q.hardware_file.empty()) return Exclude(machine, "--hardware-file");
  if (!q.workers.empty()) return Exclude(machine, "--workers");
  const absl::string_view own = GivenMachineFlag(q.runtime.budget);
  if (own.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(own, ": has no effect with ", machine,
                   ": it is of this machine; describe the other one whole, or "
                   "change it by --what-if"));
}

absl::StatusOr<AskedProblem> MakeProblem(const PlanQuestion& q) {
  MILLRACE_RETURN_IF_ERROR(ParseBudget(q.runtime.budget));  // bad flags before slow work
  MILLRACE_ASSIGN_OR_RETURN(std::optional<DescribedMachine> machine, DescribedBy(q));
  MILLRACE_ASSIGN_OR_RETURN(const AskedModel model, ReadModel(q));
  RuntimeRequest request = q.runtime;
  request.model = model.reference;
  MILLRACE_ASSIGN_OR_RETURN(AskedProblem out, machine
                                                  ? OnDescribed(model, *std::move(machine), request)
                                                  : OnThisMachine(model, q.workers, request));
  out.runtime = std::move(request);
  out.model_note = model.note;
  // Other machines are asked about with the same types.
  out.runtime.budget.kv_type = std::string(DTypeName(out.problem.kv_type));
  return out;
}

}  // namespace millrace
