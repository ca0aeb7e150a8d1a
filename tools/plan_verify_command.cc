// millrace plan verify: runs a plan and shows what it promised beside what happened.
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/status_macros.h"
#include "tools/bench_measure.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/plan_file.h"
#include "worker/backend/cuda/gpu_name.h"
#include "worker/process_memory.h"

namespace millrace {
namespace {

struct VerifyFlags {
  std::string plan, model, text;
  int tokens = 24, threads = 0;
  bool json = false;
};

// One figure of the plan and of the machine.
struct Check {
  std::string what, unit;
  double predicted = 0;
  std::optional<double> measured;  // nothing: this system does not tell
};

constexpr double kMiB = 1 << 20;

double MiB(Bytes bytes) { return static_cast<double>(bytes.count()) / kMiB; }

// By hardware index, of the plan's GPUs; those that cannot be asked are left out.
std::map<int, Bytes> FreeOnGpus(const PlacementPlan& plan, const MemorySource& memory) {
  std::map<int, Bytes> free;
  for (const Stage& stage : plan.stages) {
    if (stage.device_kind != DeviceKind::kGpu) continue;
    const absl::StatusOr<int> index = HardwareIndex(stage.device);
    if (!index.ok() || free.contains(*index)) continue;
    const absl::StatusOr<Bytes> now = memory.gpu_free(*index);
    if (now.ok()) free[*index] = *now;
  }
  return free;
}

// What the ledger says of each GPU beside context and libraries, which are there before a plan is
// loaded; and of the process's host memory.
void AddMemory(const PlacementPlan& plan, const std::map<int, Bytes>& before,
               const std::map<int, Bytes>& after, Bytes host_before, std::vector<Check>& checks) {
  std::map<int, Bytes> on_gpu;
  Bytes on_host;
  for (const LedgerEntry& e : plan.ledger) {
    const absl::StatusOr<int> index =
        e.memory == "host" ? absl::NotFoundError("") : HardwareIndex(DeviceId(e.memory));
    const bool gpu = index.ok() && e.memory.rfind("gpu", 0) == 0;
    if (e.purpose == Purpose::kOverhead) continue;
    (gpu ? on_gpu[*index] : on_host) += e.bytes;
  }
  for (const auto& [index, bytes] : on_gpu) {
    Check check{absl::StrCat("gpu", index, ", beside its context"), "MiB", MiB(bytes),
                std::nullopt};
    if (before.contains(index) && after.contains(index)) {
      check.measured = MiB(before.at(index) - after.at(index));
    }
    checks.push_back(check);
  }
  const Bytes resident = ResidentBytes();
  Check host{"host memory, beside the process", "MiB", MiB(on_host), std::nullopt};
  if (resident > Bytes(0)) host.measured = MiB(resident - host_before);
  checks.push_back(host);
}

// Times in milliseconds, of what the plan predicted: caches half full.
absl::Status AddTimes(const Runtime& runtime, const ModelSpec& model, int tokens, UseReport& use,
                      std::vector<Check>& checks, nlohmann::ordered_json& resources) {
  const PlacementPlan& plan = runtime.plan;
  const Prediction& p = plan.predicted;
  const int prompt = std::max(1, p.prompt_tokens), depth = std::max(1, plan.context / 2);
  MILLRACE_RETURN_IF_ERROR(TimePrefill(runtime, model, prompt, 0).status());  // warm-up
  use.Reset();
  MILLRACE_ASSIGN_OR_RETURN(const double prefill, TimePrefill(runtime, model, prompt, 1));
  checks.push_back({absl::StrCat("first token of a ", prompt, "-token prompt"), "ms",
                    absl::ToDoubleMilliseconds(p.ttft), 1e3 * prompt / prefill});
  resources["prompt"] = use.Json();
  const int made = std::clamp(plan.context - depth - 1, 1, tokens);
  std::vector<int> batches = {1};
  if (p.decode_batch > 1) batches.push_back(p.decode_batch);
  for (const int batch : batches) {
    const int spare = SpareTokens(plan, depth, made, batch);
    MILLRACE_RETURN_IF_ERROR(
        TimeDecode(runtime, model, std::min(made, 4), depth, spare, batch, use).status());
    MILLRACE_ASSIGN_OR_RETURN(const double rate,
                              TimeDecode(runtime, model, made, depth, spare, batch, use));
    const double predicted = batch == 1 ? absl::ToDoubleMilliseconds(p.time_per_token)
                                        : 1e3 * batch / p.batch_tokens_per_second;
    checks.push_back(
        {batch == 1 ? "one token" : absl::StrCat("a token of ", batch, " sequences each"), "ms",
         predicted, 1e3 * batch / rate});
    resources[absl::StrCat("decode of ", batch)] = use.Json();
  }
  return absl::OkStatus();
}

std::string Render(const std::vector<Check>& checks) {
  std::string out = absl::StrFormat("%-40s %12s %12s\n", "", "predicted", "measured");
  for (const Check& c : checks) {
    absl::StrAppendFormat(&out, "%-40s %9.4g %s ", c.what, c.predicted, c.unit);
    if (!c.measured.has_value()) {
      absl::StrAppend(&out, "           -\n");
      continue;
    }
    absl::StrAppendFormat(&out, "%9.4g %s", *c.measured, c.unit);
    if (*c.measured > 0) {
      absl::StrAppendFormat(&out, "   (%+.1f%%)", 100 * (c.predicted / *c.measured - 1));
    }
    absl::StrAppend(&out, "\n");
  }
  return out;
}

nlohmann::ordered_json Json(const std::vector<Check>& checks) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const Check& c : checks) {
    nlohmann::ordered_json row = {{"what", c.what}, {"unit", c.unit}, {"predicted", c.predicted}};
    row["measured"] = c.measured ? nlohmann::ordered_json(*c.measured) : nullptr;
    out.push_back(row);
  }
  return out;
}

absl::StatusOr<int> RunPlanVerify(const VerifyFlags& flags) {
  MILLRACE_ASSIGN_OR_RETURN(const PlacementPlan plan, ReadPlanFile("PLAN", flags.plan));
  if (plan.context < 3) {
    return absl::InvalidArgumentError("PLAN: a context of less than 3 tokens leaves none to make");
  }
  UseReport use;
  RuntimeRequest request;
  request.model = flags.model.empty() ? plan.model : flags.model;
  request.plan_path = flags.plan;
  request.budget.threads = flags.threads;
  request.on_pass = [&use](const PassTrace& pass) { use.Add(pass); };
  MILLRACE_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model, Model::Open(request.model));
  const std::map<int, Bytes> before = FreeOnGpus(plan, request.memory);
  const Bytes host_before = ResidentBytes();
  MILLRACE_ASSIGN_OR_RETURN(RuntimeOrInfeasible opened, OpenRuntime(request));
  if (opened.infeasible.has_value()) return ReportInfeasible(*opened.infeasible, flags.json);
  std::vector<Check> checks;
  nlohmann::ordered_json resources;
  MILLRACE_RETURN_IF_ERROR(
      AddTimes(*opened.runtime, model->spec(), flags.tokens, use, checks, resources));
  const std::string text = use.Text();
  AddMemory(plan, before, FreeOnGpus(plan, request.memory), host_before, checks);
  if (flags.json) {
    PrintJson({{"checks", Json(checks)}, {"resources", resources}});
    return kExitDone;
  }
  std::printf("%s", Render(checks).c_str());
  if (!text.empty()) std::printf("\nof the last: %s\n", text.c_str());
  std::printf("\nplanned as limited by %s\n", plan.binding_constraint.c_str());
  return kExitDone;
}

}  // namespace

void AddPlanVerifyCommand(CLI::App& plan, Command& chosen) {
  auto flags = std::make_shared<VerifyFlags>();
  CLI::App* sub = plan.add_subcommand("verify", "run a plan: what it promised and what happened");
  sub->add_option("PLAN", flags->plan, "a plan's JSON")->required();
  sub->add_option("MODEL", flags->model, "the model, where it is not where the plan says");
  sub->add_option("--tokens", flags->tokens, "tokens to make per sequence")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  sub->add_option("--threads", flags->threads, "CPU threads (default: all usable cores)")
      ->check(CLI::Range(1, 4096));
  sub->add_flag("--json", flags->json, "print one JSON object");
  sub->callback([flags, &chosen] { chosen = [flags] { return RunPlanVerify(*flags); }; });
}

}  // namespace millrace
