#include "planner/plan_builder.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "proto/device_layout.h"

namespace millrace {
namespace {

// `tiled`: as a GPU holds matrices (proto/device_layout.h).
std::string PrecisionOf(const ModelSpec& model, const Block& block, bool tiled) {
  std::set<std::string> types;
  for (int t : block.tensors) {
    if (model.tensors[t].shape.size() != 2) continue;
    const DType file = model.tensors[t].dtype, held = tiled ? TiledType(file) : file;
    types.insert(held == file ? std::string(DTypeName(file))
                              : absl::StrCat(DTypeName(held), " (from ", DTypeName(file), ")"));
  }
  return absl::StrJoin(types, " ");
}

void AddStage(const PlacementProblem& problem, const MemoryBudget& memory, const StageTable& table,
              const StageChoice& choice, PlacementPlan& plan) {
  const HostSpec& host = table.Host(choice.device);
  const DeviceSpec& device = table.Device(choice.device);
  const std::vector<bool>& homes = table.Option(choice.device, choice.first, choice.end).host_home;
  const bool gpu = device.kind == DeviceKind::kGpu;
  const int index = static_cast<int>(plan.stages.size());
  plan.stages.push_back(
      {host.worker, device.id, device.kind, host.address, choice.first, choice.end});
  for (int b = choice.first; b < choice.end; ++b) {
    const bool on_host = !gpu || (!homes.empty() && homes[static_cast<size_t>(b - choice.first)]);
    BlockPlacement p;
    p.block = b;
    p.name = BlockName(memory.blocks()[b]);
    p.stage = index;
    p.home = on_host ? Home::kHost : Home::kDevice;
    p.host_route_max_tokens =
        gpu && on_host && CostModel::HostRouteIsFaster(host, device) ? kHostRouteMaxTokens : 0;
    p.weights = memory.BlockWeights(device.kind, b, choice.first, homes);
    // The embedding table stays as in the file.
    p.precision = PrecisionOf(problem.model, memory.blocks()[b],
                              !on_host && memory.blocks()[b].kind != BlockKind::kEmbedding);
    plan.blocks.push_back(std::move(p));
  }
  const StageNeeds needs = memory.Needs(device, choice.first, choice.end, homes);
  auto add = [&](const std::string& where, Purpose purpose, Bytes bytes) {
    if (bytes > Bytes(0)) plan.ledger.push_back({host.worker, where, purpose, bytes});
  };
  add(device.id.value(), Purpose::kWeights, needs.weights);
  add(device.id.value(), Purpose::kKvCache, needs.kv);
  add(device.id.value(), Purpose::kActivations, needs.activations);
  add(device.id.value(), Purpose::kOverhead, needs.overhead);
  add(device.id.value(), Purpose::kStreamRing, needs.stream_ring);
  add("host", Purpose::kWeights, needs.host_weights);
}

void AddTotals(const PlacementProblem& problem, PlacementPlan& plan) {
  for (const HostSpec& host : problem.cluster.hosts) {
    std::map<std::string, Bytes> used;
    for (const LedgerEntry& e : plan.ledger) {
      if (e.worker == host.worker) used[e.memory] += e.bytes;
    }
    for (const DeviceSpec& d : host.devices) {
      const Bytes budget = d.kind == DeviceKind::kCpu ? std::min(d.budget, host.budget) : d.budget;
      plan.totals.push_back({host.worker, d.id.value(), budget, used[d.id.value()]});
    }
    if (used.contains("host")) {
      plan.totals.push_back({host.worker, "host", host.budget, used["host"]});
    }
  }
}

void Predict(const PlacementProblem& problem, const CostModel& cost, const StageTable& table,
             const std::vector<StageChoice>& stages, PlacementPlan& plan) {
  Prediction& p = plan.predicted;
  double decode = 0, prefill = 0, hops = 0, prefill_hops = 0;
  const int prompt = std::max(1, std::min(problem.expected_prompt_tokens, problem.context));
  double worst = -1;
  for (size_t i = 0; i < stages.size(); ++i) {
    const StageChoice& s = stages[i];
    const std::vector<bool>& homes = table.Option(s.device, s.first, s.end).host_home;
    const double seconds =
        cost.DecodeSeconds(table.Host(s.device), table.Device(s.device), s.first, s.end, homes);
    decode += seconds;
    prefill += cost.PrefillSeconds(table.Device(s.device), s.first, s.end, homes, prompt);
    p.stage_time_per_token.push_back(absl::Seconds(seconds));
    if (i > 0) {
      hops += table.HopSeconds(stages[i - 1].device, s.device);
      const bool same = table.Host(stages[i - 1].device).worker == table.Host(s.device).worker;
      prefill_hops +=
          cost.HopSeconds(same ? problem.cluster.local : problem.cluster.remote, prompt);
    }
    if (seconds > worst) {
      worst = seconds;
      const bool gpu = table.Device(s.device).kind == DeviceKind::kGpu;
      plan.binding_constraint =
          absl::StrCat(gpu ? homes.empty() ? "HBM bandwidth of " : "host weights' bandwidth of "
                           : "DRAM bandwidth of ",
                       table.Host(s.device).worker.value(), "/", table.Device(s.device).id.value());
    }
  }
  const double token = decode + hops;
  p.prompt_tokens = prompt;
  p.hop_time_per_token = absl::Seconds(hops);
  p.time_per_token = absl::Seconds(token);
  p.decode_tokens_per_second = token > 0 ? 1 / token : 0;
  p.ttft = absl::Seconds(prefill + prefill_hops);
  p.prefill_tokens_per_second = prefill > 0 ? prompt / (prefill + prefill_hops) : 0;
  if (hops > worst) {
    plan.binding_constraint = "the links between stages";
    worst = hops;
  }
  absl::StrAppend(&plan.binding_constraint, absl::StrFormat(": %.0f%% of each token's time",
                                                            token > 0 ? 100 * worst / token : 0));
}

}  // namespace

PlacementPlan BuildPlan(const PlacementProblem& problem, const MemoryBudget& memory,
                        const CostModel& cost, const StageTable& table,
                        const std::vector<StageChoice>& stages) {
  PlacementPlan plan;
  plan.model = problem.model_reference;
  plan.model_fingerprint = FingerprintOf(problem.model);
  plan.context = problem.context;
  plan.slots = problem.slots;
  plan.kv_type = problem.kv_type;
  plan.max_pass_tokens = problem.max_pass_tokens;
  for (const StageChoice& s : stages) AddStage(problem, memory, table, s, plan);
  AddTotals(problem, plan);
  Predict(problem, cost, table, stages, plan);
  return plan;
}

}  // namespace millrace
