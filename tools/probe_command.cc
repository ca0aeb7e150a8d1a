// millrace probe: what this machine can hold and how fast it is.
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <vector>

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
  bool json = false, quick = false;
};

// Feed-forward halves of the middle size, by type and rows.
void PrintTimes(const DeviceTimes& times) {
  if (!times.measured()) return;
  std::map<DType, std::vector<ProductTime>> rows;
  for (const ProductTime& p : times.products) {
    const auto same = [&](const ProductTime& q) { return q.type == p.type && q.weights < p.weights; };
    const bool larger = std::any_of(times.products.begin(), times.products.end(), same);
    if (larger) rows[p.type].push_back(p);
  }
  for (const auto& [type, points] : rows) {
    std::printf("  %s halves of %s, microseconds by rows:", std::string(DTypeName(type)).c_str(),
                FormatBytes(points.front().weights).c_str());
    for (const ProductTime& p : points) {
      if (p.weights == points.front().weights) std::printf(" %d: %.1f", p.tokens, p.seconds * 1e6);
    }
    std::printf("\n");
  }
  for (const AttentionTime& a : times.attention) {
    std::printf("  attention of %d: %.2f us and %.0f GB/s\n", a.sequences, a.fixed_seconds * 1e6,
                a.seconds_per_byte > 0 ? 1e-9 / a.seconds_per_byte : 0);
  }
  std::printf("  after long work products take longer, by rows:");
  for (const SustainedRatio& s : times.sustained) std::printf(" %d: %.2f", s.tokens, s.ratio);
  std::printf("\n  attention of prompts %.0f ns a row and %.0f TFLOP/s, a pass %.0f us, each further token %.1f us\n",
              times.prompt_row_seconds * 1e9, times.attention_flops / 1e12, times.pass_seconds * 1e6, times.output_seconds * 1e6);
}

absl::StatusOr<int> RunProbe(const ProbeFlags& flags) {
  MILLRACE_ASSIGN_OR_RETURN(Budget budget, ParseBudget(flags.budget));
  budget.probe.measure_times = !flags.quick;
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
    PrintTimes(device.times);
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
  sub->add_option("--cache-dir", flags->budget.cache_folder,
                  "where what GPUs take for the pieces of a pass is kept; '' for nowhere")
      ->capture_default_str();
  sub->add_flag("--quick", flags->quick, "do not time those pieces: use what is kept");
  sub->add_option("-o,--output", flags->output, "write the host's JSON to this file");
  sub->add_flag("--json", flags->json, "print one JSON object");
  sub->callback([flags, &chosen] { chosen = [flags] { return RunProbe(*flags); }; });
}

}  // namespace millrace
