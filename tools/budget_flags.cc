#include "tools/budget_flags.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/convert.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

// "24GiB" for every device, or "gpu0=24GiB,cpu=8GiB".
absl::Status ApplyDeviceMemory(absl::string_view text, std::vector<DeviceOption>& devices) {
  constexpr absl::string_view kFlag = "--device-memory";
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> named =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    const bool all = part.find('=') == absl::string_view::npos;
    MILLRACE_ASSIGN_OR_RETURN(const Bytes bytes, ParseSize(kFlag, all ? part : named.second));
    bool found = false;
    for (DeviceOption& device : devices) {
      if (!all && device.id.value() != named.first) continue;
      device.budget = bytes;
      found = true;
    }
    if (!found) {
      return absl::InvalidArgumentError(
          absl::StrCat(kFlag, ": '", part, "': no device '", named.first,
                       "' among --devices; name one of those, or give one size for all of them"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Pin>> ParsePins(const std::vector<std::string>& texts) {
  std::vector<Pin> pins;
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--pin: '", text, "' is not PATTERN=TARGET, e.g. 'blk.*.ffn=host'"));
    }
    pins.push_back({text.substr(0, equals), text.substr(equals + 1)});
  }
  return pins;
}

absl::StatusOr<DType> ParseKvType(const std::string& text) {
  if (text.empty()) return DType::kF16;
  const std::optional<DType> type = DTypeFromName(text);
  for (DType allowed : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
    if (type == allowed) return allowed;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--kv-type: '", text, "' is not one of f32, f16, bf16, q8_0"));
}

absl::StatusOr<RoutePolicy> ParseRoutes(const std::string& text) {
  if (text == "auto") return RoutePolicy::kAuto;
  if (text == "cpu") return RoutePolicy::kCpu;
  if (text == "stream") return RoutePolicy::kStream;
  if (text == "split") return RoutePolicy::kSplit;
  return absl::InvalidArgumentError(
      absl::StrCat("--routes: '", text, "' is not one of auto, cpu, stream, split"));
}

absl::StatusOr<Objective> ParseObjectiveFlag(const std::string& text) {
  absl::StatusOr<Objective> objective = ParseObjective(text);
  return objective.ok() ? objective : Annotate(objective.status(), "--objective");
}

}  // namespace

absl::StatusOr<Bytes> ParseSize(absl::string_view flag, absl::string_view text) {
  absl::StatusOr<Bytes> bytes = ParseBytes(text);
  if (!bytes.ok()) return Annotate(bytes.status(), flag);
  if (*bytes <= Bytes(0)) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": '", text, "' is not above zero"));
  }
  return bytes;
}

void AddBudgetFlags(CLI::App* app, BudgetFlags& flags) {
  app->add_option("--device-memory", flags.device_memory,
                  "memory per device, e.g. 24GiB, or gpu0=24GiB,gpu1=12GiB");
  app->add_option("--host-memory", flags.host_memory, "host memory that may be used, e.g. 64GiB");
  app->add_option("--devices", flags.devices,
                  "auto (all GPUs, or the CPU), cpu, gpu0,gpu1, or with budgets "
                  "gpu0:24GiB,gpu0:24GiB [auto]");
  app->add_option("--ctx", flags.context, "context in tokens per slot")
      ->check(CLI::Range(1, 1 << 26));
  app->add_option("--slots", flags.slots, "sequences that may run together")
      ->check(CLI::Range(1, 1 << 16));
  app->add_option("--kv-type", flags.kv_type, "f32, f16, bf16 or q8_0 [f16]");
  app->add_option("--threads", flags.threads, "CPU threads (default: all usable cores)")
      ->check(CLI::Range(1, 4096));
  AddPrecisionFlags(app, flags.precision);
  app->add_option("--pin", flags.pins, "place blocks: 'blk.*.ffn=host' (repeatable)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app->add_option("--routes", flags.routes,
                  "who computes feed-forward blocks kept in RAM beside a GPU: auto, cpu, stream "
                  "(copied to the GPU), or split (both at once, each a part)")
      ->capture_default_str();
  app->add_option("--objective", flags.objective,
                  "what the plan is to be fast at: decode, decode:8 (sequences together), "
                  "prefill:4096, mix:512+128 (prompt, tokens made), mix:512+128@8")
      ->capture_default_str();
  app->add_option("--cache-dir", flags.cache_folder,
                  "where `millrace probe` keeps what it measured of GPUs; '' for nowhere")
      ->capture_default_str();
  app->add_option("--max-pass-tokens,--batch-tokens", flags.max_pass_tokens,
                  "largest pass; prompts are read in chunks of this [512; 64 to 4096 with GPUs]")
      ->check(CLI::Range(1, 1 << 20));
}

absl::StatusOr<Budget> ParseBudget(const BudgetFlags& flags) {
  Budget budget;
  budget.probe.worker = WorkerId("local");
  budget.probe.threads = flags.threads;
  budget.probe.cache_folder = flags.cache_folder;
  if (!flags.host_memory.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(budget.probe.host_memory,
                              ParseSize("--host-memory", flags.host_memory));
  }
  absl::StatusOr<std::vector<DeviceOption>> devices =
      ParseDevices(flags.devices.empty() ? "auto" : flags.devices);
  if (!devices.ok()) {
    const bool named = absl::StrContains(devices.status().message(), "--devices");
    return named ? devices.status() : Annotate(devices.status(), "--devices");
  }
  budget.probe.devices = *std::move(devices);
  if (budget.probe.devices.empty()) {
    budget.probe.devices =
        AutoDevices(static_cast<int>(budget.probe.gpus.list().names.size()));
  }
  if (!flags.device_memory.empty()) {
    MILLRACE_RETURN_IF_ERROR(ApplyDeviceMemory(flags.device_memory, budget.probe.devices));
  }
  MILLRACE_ASSIGN_OR_RETURN(budget.wishes, ParseWishes(flags));
  return budget;
}

absl::StatusOr<PlanWishes> ParseWishes(const BudgetFlags& flags) {
  PlanWishes wishes;
  MILLRACE_ASSIGN_OR_RETURN(wishes.kv_type, ParseKvType(flags.kv_type));
  MILLRACE_ASSIGN_OR_RETURN(wishes.pins, ParsePins(flags.pins));
  MILLRACE_ASSIGN_OR_RETURN(wishes.routes, ParseRoutes(flags.routes));
  MILLRACE_ASSIGN_OR_RETURN(wishes.objective, ParseObjectiveFlag(flags.objective));
  MILLRACE_RETURN_IF_ERROR(ParsePrecision(flags.precision).status());
  return wishes;
}

absl::string_view GivenMachineFlag(const BudgetFlags& flags) {
  if (!flags.device_memory.empty()) return "--device-memory";
  if (!flags.host_memory.empty()) return "--host-memory";
  if (!flags.devices.empty()) return "--devices";
  return flags.threads != 0 ? "--threads" : "";
}

absl::StatusOr<v1::PlanOptions> ToPlanOptions(const BudgetFlags& flags) {
  for (const auto& [flag, value] :
       {std::pair("--device-memory", &flags.device_memory),
        std::pair("--host-memory", &flags.host_memory), std::pair("--devices", &flags.devices)}) {
    if (value->empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(flag, ": '", *value,
                     "' has no effect with --planner: budgets belong to the "
                     "workers there; give it to millrace-worker"));
  }
  if (flags.threads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--threads: ", flags.threads, " has no effect with --planner; give it to millrace-worker"));
  }
  MILLRACE_ASSIGN_OR_RETURN(const PrecisionWishes precision, ParsePrecision(flags.precision));
  if (precision.automatic) {
    return absl::InvalidArgumentError(
        "--precision: 'auto' has no effect with --planner: a cluster's weights stay as in the file");
  }
  v1::PlanOptions options;
  options.set_context(flags.context);
  options.set_slots(flags.slots);
  MILLRACE_ASSIGN_OR_RETURN(const DType kv_type, ParseKvType(flags.kv_type));
  options.set_kv_type(ToProto(kv_type));
  options.set_max_pass_tokens(flags.max_pass_tokens);
  MILLRACE_ASSIGN_OR_RETURN(const RoutePolicy routes, ParseRoutes(flags.routes));
  options.set_routes(static_cast<v1::RoutePolicy>(routes));
  MILLRACE_ASSIGN_OR_RETURN(const Objective objective, ParseObjectiveFlag(flags.objective));
  *options.mutable_objective() = ToProto(objective);
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<Pin> pins, ParsePins(flags.pins));
  for (const Pin& pin : pins) {
    v1::Pin& out = *options.add_pins();
    out.set_pattern(pin.pattern);
    out.set_target(pin.target);
  }
  return options;
}

absl::StatusOr<ClusterSpec> ParseImaginedWorkers(absl::string_view text, const HostSpec& like) {
  ClusterSpec cluster;
  std::set<std::string> names;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    const std::vector<std::string> halves = absl::StrSplit(part, absl::MaxSplits('=', 1));
    if (halves.size() != 2 || halves[0].empty() || !names.insert(halves[0]).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("--workers: '", part,
                       "' is not NAME=SIZE with a name of its own, e.g. w0=12MiB,w1=12MiB"));
    }
    HostSpec host = like;
    host.worker = WorkerId(halves[0]);
    MILLRACE_ASSIGN_OR_RETURN(host.budget, ParseSize("--workers", halves[1]));
    host.devices.resize(1);
    host.devices[0].budget = host.budget;
    cluster.hosts.push_back(std::move(host));
  }
  return cluster;
}

}  // namespace millrace
