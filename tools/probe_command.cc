// millrace probe: what this machine can hold and how fast it is.
#include <cstdio>
#include <memory>

#include "proto/convert.h"
#include "proto/plan_json.h"
#include "proto/status_macros.h"
#include "tools/budget_flags.h"
#include "tools/cli_io.h"
#include "tools/commands.h"

namespace millrace {
namespace {

struct ProbeFlags {
  BudgetFlags budget;
  std::string output;
  bool json = false;
};

absl::StatusOr<int> RunProbe(const ProbeFlags& flags) {
  MILLRACE_ASSIGN_OR_RETURN(const Budget budget, ParseBudget(flags.budget));
  MILLRACE_ASSIGN_OR_RETURN(const HostSpec host, ProbeHost(budget.probe));
  if (!flags.output.empty()) {
    MILLRACE_RETURN_IF_ERROR(WriteTextFile("-o", flags.output, MessageToJson(ToProto(host))));
  }
  if (flags.json) {
    std::printf("%s\n", MessageToJson(ToProto(host), false).c_str());
    return kExitDone;
  }
  std::printf("host: %s, budget %s, %d threads, DRAM read %s\n",
              FormatBytes(host.memory_total).c_str(), FormatBytes(host.budget).c_str(),
              host.threads, FormatBandwidth(host.dram_bandwidth).c_str());
  if (!host.cpu_rates.empty()) {
    std::printf("CPU products with Q4_K weights, by rows:");
    for (const CpuRate& rate : host.cpu_rates) {
      std::printf(" %d: %s%s", rate.tokens, FormatBandwidth(rate.weights).c_str(),
                  &rate == &host.cpu_rates.back() ? "\n" : ",");
    }
    if (host.cpu_rates.front().beside_copies > Bandwidth()) {
      std::printf("the same beside copies to the GPUs:");
      for (const CpuRate& rate : host.cpu_rates) {
        std::printf(" %d: %s%s", rate.tokens, FormatBandwidth(rate.beside_copies).c_str(),
                    &rate == &host.cpu_rates.back() ? "\n" : ",");
      }
    }
  }
  for (const DeviceSpec& device : host.devices) {
    std::printf("%s: %s, budget %s of %s, overhead %s, matrix products %.1f GFLOP/s",
                device.id.value().c_str(), device.name.c_str(), FormatBytes(device.budget).c_str(),
                FormatBytes(device.memory_total).c_str(), FormatBytes(device.overhead).c_str(),
                device.prefill_flops / 1e9);
    if (device.kind == DeviceKind::kGpu) {
      std::printf(" (estimated), memory read %s, from the host %s",
                  FormatBandwidth(device.memory_bandwidth).c_str(),
                  FormatBandwidth(device.h2d_bandwidth).c_str());
    }
    std::printf("\n");
  }
  return kExitDone;
}

}  // namespace

void AddProbeCommand(CLI::App& app, Command& chosen) {
  auto flags = std::make_shared<ProbeFlags>();
  CLI::App* sub = app.add_subcommand("probe", "measure this machine");
  sub->add_option("--device-memory", flags->budget.device_memory, "as for run");
  sub->add_option("--host-memory", flags->budget.host_memory, "as for run");
  sub->add_option("--devices", flags->budget.devices, "as for run");
  sub->add_option("--threads", flags->budget.threads, "CPU threads")->check(CLI::Range(1, 4096));
  sub->add_option("-o,--output", flags->output, "write the host's JSON to this file");
  sub->add_flag("--json", flags->json, "print one JSON object");
  sub->callback([flags, &chosen] { chosen = [flags] { return RunProbe(*flags); }; });
}

}  // namespace millrace
