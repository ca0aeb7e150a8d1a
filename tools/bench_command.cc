// millrace bench: tokens per second of prefill and decode, against the machine's ceilings.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "proto/status_macros.h"
#include "tools/bench_ceiling.h"
#include "tools/bench_measure.h"
#include "tools/bench_stats.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/llama_bench.h"
#include "tools/runtime.h"
#include "tools/use_report.h"
#include "worker/model/model.h"
#include "worker/probe.h"
#include "worker/probe_cpu.h"

namespace millrace {
namespace {

struct BenchFlags {
  RuntimeRequest runtime;
  std::string prompts = "512", batches = "1", peer;
  int generate = 64, depth = 0, repeat = 3;
  bool json = false;
};

constexpr char kNoPeer[] = "not measured by llama-bench";

struct BenchRow {
  bool prefill = false;
  int tokens = 0, batch = 1;
  BenchStats rate;     // tokens per second
  double ceiling = 0;  // tokens per second
  double peer = 0;     // tokens per second, 0 = not measured
  nlohmann::ordered_json
      use;  // of the repeats: what the stages' resources did, where weights are in RAM
  std::string use_text;
};

template <typename Measure>
absl::StatusOr<BenchStats> Repeat(int repeat, UseReport& use, const Measure& measure) {
  MILLRACE_RETURN_IF_ERROR(measure(0).status());  // warm-up
  use.Reset();
  std::vector<double> rates;
  for (int i = 0; i < repeat; ++i) {
    MILLRACE_ASSIGN_OR_RETURN(const double rate, measure(i + 1));
    rates.push_back(rate);
  }
  return Summarize(std::move(rates));
}

absl::StatusOr<std::vector<BenchRow>> Measure(const Runtime& runtime, const ModelSpec& model,
                                              const BenchFlags& flags, UseReport& use,
                                              const std::vector<int>& prompts,
                                              const std::vector<int>& batches) {
  std::vector<BenchRow> rows;
  for (int tokens : prompts) {
    BenchRow row;
    row.prefill = true;
    row.tokens = tokens;
    MILLRACE_ASSIGN_OR_RETURN(row.rate, Repeat(flags.repeat, use, [&](int salt) {
                                return TimePrefill(runtime, model, tokens, salt);
                              }));
    row.use = use.Json();
    row.use_text = use.Text();
    rows.push_back(row);
  }
  if (flags.generate == 0) return rows;
  for (int batch : batches) {
    BenchRow row;
    row.tokens = flags.generate;
    row.batch = batch;
    MILLRACE_ASSIGN_OR_RETURN(row.rate, Repeat(flags.repeat, use, [&](int) {
                                return TimeDecode(
                                    runtime, model, flags.generate, flags.depth,
                                    SpareTokens(runtime.plan, flags.depth, flags.generate, batch),
                                    batch, use);
                              }));
    row.use = use.Json();
    row.use_text = use.Text();
    rows.push_back(row);
  }
  return rows;
}

// The devices of a plan that came from a file, probed now: after its weights are gone.
absl::StatusOr<HostSpec> ProbeDevicesOf(const PlacementPlan& plan, int threads) {
  std::vector<absl::string_view> names;  // "gpu0#1" is one more "gpu0"
  for (const Stage& stage : plan.stages) {
    const absl::string_view id = stage.device.value();
    names.push_back(id.substr(0, id.find('#')));
  }
  std::sort(names.begin(), names.end());
  ProbeOptions options;
  options.threads = threads;
  MILLRACE_ASSIGN_OR_RETURN(options.devices, ParseDevices(absl::StrJoin(names, ",")));
  return ProbeHost(options);
}

// Rates of the host with nothing of the model in memory; DRAM over a buffer larger than any cache.
void MeasureDram(HostSpec& host) {
  host.dram_bandwidth = MeasureReadBandwidth(host.threads, ProbeBuffer(host.budget));
  for (DeviceSpec& device : host.devices) {
    if (device.kind == DeviceKind::kCpu) device.memory_bandwidth = host.dram_bandwidth;
  }
}

void AddCeilings(const ModelSpec& model, const PlacementPlan& plan, const HostSpec& host,
                 const BenchFlags& flags, std::vector<BenchRow>& rows) {
  for (BenchRow& row : rows) {
    row.ceiling =
        row.prefill ? PrefillCeiling(model, plan, host)
                    : DecodeCeiling(model, plan, host, row.batch, flags.depth + flags.generate / 2);
  }
}

bool AnyGpu(const PlacementPlan& plan) {
  return std::any_of(plan.stages.begin(), plan.stages.end(),
                     [](const Stage& s) { return s.device_kind == DeviceKind::kGpu; });
}

absl::Status AddPeer(const BenchFlags& flags, const std::vector<int>& prompts, int threads,
                     bool gpu, std::vector<BenchRow>& rows) {
  const PeerRequest request{flags.peer, flags.runtime.model, prompts,     flags.generate,
                            threads,    flags.repeat,        flags.depth, gpu};
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<PeerResult> results, RunLlamaBench(request));
  for (BenchRow& row : rows) {
    for (const PeerResult& result : results) {
      const bool same =
          row.prefill
              ? result.prompt == row.tokens && result.generated == 0 && result.depth == 0
              : result.generated == row.tokens && result.prompt == 0 && result.depth == flags.depth;
      if (same && row.batch == 1) row.peer = result.tokens_per_second;
    }
  }
  return absl::OkStatus();
}

nlohmann::ordered_json ToJson(const BenchRow& row, const BenchFlags& flags, double percent) {
  nlohmann::ordered_json out = {{"kind", row.prefill ? "prefill" : "decode"},
                                {"tokens", row.tokens},
                                {"batch", row.batch},
                                {"depth", row.prefill ? 0 : flags.depth}};
  out["tokens_per_second"] = {
      {"median", row.rate.median}, {"min", row.rate.min}, {"max", row.rate.max}};
  out["ceiling_tokens_per_second"] = row.ceiling;
  out["percent_of_ceiling"] = percent;
  if (!row.use.empty()) out["resources"] = row.use;
  if (row.peer > 0) {
    out["peer_tokens_per_second"] = row.peer;
    out["ratio_to_peer"] = row.rate.median / row.peer;
  } else if (!flags.peer.empty()) {
    out["peer"] = kNoPeer;
  }
  return out;
}

void PrintRows(const std::vector<BenchRow>& rows, const BenchFlags& flags, const HostSpec& host) {
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  if (!flags.json) {
    std::printf("%-8s %7s %6s %10s %10s %10s %9s %10s %7s\n", "kind", "tokens", "batch", "median",
                "min", "max", "ceiling", "llama.cpp", "ratio");
  }
  for (const BenchRow& row : rows) {
    const double percent = row.ceiling > 0 ? 100 * row.rate.median / row.ceiling : 0;
    if (flags.json) {
      results.push_back(ToJson(row, flags, percent));
      continue;
    }
    std::printf("%-8s %7d %6d %10.1f %10.1f %10.1f %8.0f%%", row.prefill ? "prefill" : "decode",
                row.tokens, row.batch, row.rate.median, row.rate.min, row.rate.max, percent);
    if (row.peer > 0) {
      std::printf(" %10.1f %6.2fx", row.peer, row.rate.median / row.peer);
    } else if (!flags.peer.empty()) {
      std::printf(" %s", kNoPeer);
    }
    std::printf("\n%s", row.use_text.c_str());
  }
  if (!flags.json) return;
  nlohmann::ordered_json devices = nlohmann::ordered_json::array();
  double cpu_flops = 0;
  for (const DeviceSpec& d : host.devices) {
    if (d.kind == DeviceKind::kCpu) cpu_flops = d.prefill_flops;
    devices.push_back({{"id", d.id.value()},
                       {"name", d.name},
                       {"memory_bytes_per_second", d.memory_bandwidth.bytes_per_second()},
                       {"prefill_flops", d.prefill_flops}});
  }
  PrintJson({{"results", results},
             {"devices", devices},
             {"threads", host.threads},
             {"dram_bytes_per_second", host.dram_bandwidth.bytes_per_second()},
             {"matmul_flops", cpu_flops}});
}

absl::StatusOr<int> RunBench(BenchFlags flags) {
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<int> prompts,
                            ParseIntList("--prompt", flags.prompts, 1));
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<int> batches,
                            ParseIntList("--batch", flags.batches, 1));
  RuntimeRequest& request = flags.runtime;
  if (!request.planner.empty()) {
    return absl::InvalidArgumentError("--planner: bench measures this machine; leave it out");
  }
  if (!flags.peer.empty() && request.model.empty()) {
    return absl::InvalidArgumentError("--peer-llama-bench: needs MODEL as a GGUF file");
  }
  MILLRACE_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model, Model::Open(request.model));
  request.budget.slots =
      std::max(request.budget.slots, *std::max_element(batches.begin(), batches.end()));
  request.expected_prompt_tokens = *std::max_element(prompts.begin(), prompts.end());
  if (request.budget.context == 0 && request.plan_path.empty()) {
    const int most = *std::max_element(batches.begin(), batches.end());
    request.budget.context = std::max(request.expected_prompt_tokens,
                                      std::max(1, flags.depth) + flags.generate + 2 * most);
  }
  UseReport use;
  request.on_pass = [&use](const PassTrace& pass) { use.Add(pass); };
  MILLRACE_ASSIGN_OR_RETURN(RuntimeOrInfeasible opened, OpenRuntime(request));
  if (opened.infeasible.has_value()) return ReportInfeasible(*opened.infeasible, flags.json);
  MILLRACE_ASSIGN_OR_RETURN(std::vector<BenchRow> rows,
                            Measure(*opened.runtime, model->spec(), flags, use, prompts, batches));
  const PlacementPlan plan = opened.runtime->plan;
  std::optional<HostSpec> host = opened.runtime->host;
  opened.runtime.reset();  // ceilings and the peer get the machine for themselves
  if (!host.has_value()) {
    MILLRACE_ASSIGN_OR_RETURN(host, ProbeDevicesOf(plan, request.budget.threads));
  }
  MeasureDram(*host);
  AddCeilings(model->spec(), plan, *host, flags, rows);
  if (!flags.peer.empty()) {
    MILLRACE_RETURN_IF_ERROR(AddPeer(flags, prompts, host->threads, AnyGpu(plan), rows));
  }
  PrintRows(rows, flags, *host);
  return kExitDone;
}

}  // namespace

void AddBenchCommand(CLI::App& app, Command& chosen) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* sub = app.add_subcommand("bench", "tokens per second, against the machine's ceilings");
  AddRuntimeFlags(sub, flags->runtime);
  sub->add_option("--prompt", flags->prompts, "prompt lengths")->capture_default_str();
  sub->add_option("--batch", flags->batches, "sequences decoding together")->capture_default_str();
  sub->add_option("--gen", flags->generate, "tokens to make per sequence; 0 = no decode")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  sub->add_option("--depth", flags->depth, "tokens in each sequence before decode is timed")
      ->check(CLI::Range(0, 1 << 26))
      ->capture_default_str();
  sub->add_option("--repeat", flags->repeat, "measurements of each row, after a warm-up")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  sub->add_option("--peer-llama-bench", flags->peer,
                  "run this llama-bench on the same file, too: with the same threads, or all "
                  "layers on GPUs where the plan has them there");
  sub->add_flag("--json", flags->json, "print one JSON object");
  sub->callback([flags, &chosen] { chosen = [flags] { return RunBench(*flags); }; });
}

}  // namespace millrace
