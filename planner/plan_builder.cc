#include "planner/plan_builder.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "planner/prediction.h"
#include "planner/route_choice.h"
#include "planner/stage_steps.h"
#include "proto/device_layout.h"
#include "proto/stored_types.h"

namespace millrace {
namespace {

// `tiled`: as a GPU holds matrices (proto/device_layout.h).
std::string PrecisionOf(const ModelSpec& model, const Block& block, bool tiled) {
  std::set<std::string> types;
  for (int t : block.tensors) {
    if (model.tensors[t].shape.size() != 2) continue;
    const TensorSpec& tensor = model.tensors[t];
    const DType held = tiled ? TiledType(tensor.dtype) : tensor.dtype;
    const DType file = tensor.file_dtype.value_or(tensor.dtype);
    types.insert(held == file ? std::string(DTypeName(file))
                              : absl::StrCat(DTypeName(held), " (from ", DTypeName(file), ")"));
  }
  return absl::StrJoin(types, " ");
}

bool AnyStreams(const PlacementProblem& problem, const MemoryBudget& memory,
                const StageChoice& choice, const StageOffload& offload) {
  for (size_t i = 0; i < offload.host_home.size(); ++i) {
    const int block = choice.first + static_cast<int>(i), units = memory.Units(block);
    if (!offload.host_home[i] || memory.blocks()[block].kind == BlockKind::kEmbedding) continue;
    const CpuWork work = offload.WorkOf(i);
    if (units == 0 || work.LeastUnits(problem.max_pass_tokens, units) < units) return true;
  }
  return false;
}

// Homes as the search found them, with routes, and the depth of the ring with which the simulator
// finds a round of the objective fastest: what the search takes for granted about rings is coarse. Of nearly
// the same the deepest: prompts and other batches gain by it.
StageOffload OffloadOf(const PlacementProblem& problem, const MemoryBudget& memory,
                       const CostModel& cost, const StageTable& table, const StageChoice& choice) {
  const StageView view = {
      problem,      memory,    cost, table.Host(choice.device), table.Device(choice.device),
      choice.first, choice.end};
  constexpr double kNearly = 1.01;
  std::vector<std::pair<double, StageOffload>> tried;
  double least = -1;
  for (const StageOffload& homes : table.Offloads(choice)) {
    if (homes.host_home.empty()) return homes;
    StageOffload offload = ChooseRoutes(view, homes);
    if (!AnyStreams(problem, memory, choice, offload)) offload.ring = Bytes(0);
    const double seconds = ObjectiveSeconds(view, offload);
    if (least < 0 || seconds < least) least = seconds;
    tried.emplace_back(seconds, std::move(offload));
  }
  StageOffload best;
  for (auto& [seconds, offload] : tried) {
    const bool first = best.host_home.empty();
    if (seconds <= least * kNearly && (first || offload.ring > best.ring)) best = std::move(offload);
  }
  return best;
}

void AddBlocks(const PlacementProblem& problem, const MemoryBudget& memory, DeviceKind kind,
               const StageChoice& choice, const StageOffload& offload, PlacementPlan& plan) {
  for (int b = choice.first; b < choice.end; ++b) {
    const size_t i = static_cast<size_t>(b - choice.first);
    const bool beside = !offload.host_home.empty() && offload.host_home[i];
    BlockPlacement p;
    p.block = b;
    p.name = BlockName(memory.blocks()[b]);
    p.stage = static_cast<int>(plan.stages.size()) - 1;
    p.home = kind == DeviceKind::kCpu || beside ? Home::kHost : Home::kDevice;
    if (offload.OnDisk(i)) p.home = Home::kDisk;
    if (offload.KvOnHost(i)) p.kv_home = Home::kHost;
    p.host_route_max_tokens = beside ? offload.route_max_tokens[i] : 0;
    if (beside && i < offload.cpu_shares.size()) p.cpu_shares = offload.cpu_shares[i];
    p.weights = memory.BlockWeights(kind, b, choice.first, offload.host_home);
    // The embedding table stays as in the file.
    const bool tiled = kind == DeviceKind::kGpu && !beside &&
                       memory.blocks()[b].kind != BlockKind::kEmbedding;
    p.precision = PrecisionOf(problem.model, memory.blocks()[b], tiled);
    p.stored_types = StoredTypesOf(problem.model, memory.blocks()[b]);
    plan.blocks.push_back(std::move(p));
  }
}

void AddStage(const PlacementProblem& problem, const MemoryBudget& memory, const CostModel& cost,
              const StageTable& table, const StageChoice& choice, PlacementPlan& plan) {
  const HostSpec& host = table.Host(choice.device);
  const DeviceSpec& device = table.Device(choice.device);
  const StageOffload offload = OffloadOf(problem, memory, cost, table, choice);
  plan.stages.push_back(
      {host.worker, device.id, device.kind, host.address, choice.first, choice.end, offload.ring});
  AddBlocks(problem, memory, device.kind, choice, offload, plan);
  const StageNeeds needs = memory.Needs(device, choice.first, choice.end, offload);
  auto add = [&](const std::string& where, Purpose purpose, Bytes bytes) {
    if (bytes > Bytes(0)) plan.ledger.push_back({host.worker, where, purpose, bytes});
  };
  add(device.id.value(), Purpose::kWeights, needs.weights);
  add(device.id.value(), Purpose::kKvCache, needs.kv);
  add(device.id.value(), Purpose::kActivations, needs.activations);
  add(device.id.value(), Purpose::kOverhead, needs.overhead);
  add(device.id.value(), Purpose::kStreamRing, needs.stream_ring);
  add("host", Purpose::kWeights, needs.host_weights);
  add("host", Purpose::kKvCache, needs.host_kv);
  add("host", Purpose::kActivations, needs.host_activations);
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
  plan.objective = problem.objective;
  for (const StageChoice& s : stages) AddStage(problem, memory, cost, table, s, plan);
  AddTotals(problem, plan);
  Predict(problem, memory, plan);
  return plan;
}

}  // namespace millrace
