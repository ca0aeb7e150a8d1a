#include "planner/query_messages.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "planner/hardware_profiles.h"
#include "planner/plan_messages.h"
#include "proto/convert.h"
#include "proto/field_check.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr int kMostCards = 16;
constexpr int kMostBudgets = 256;

// Zero: as it is.
std::optional<Bandwidth> ReadBandwidth(FieldCheck& check, const std::string& field, double value) {
  if (value == 0) return std::nullopt;
  if (!(check.NonNegative(field, value) >= 1)) {
    check.Refuse(field, value, " is less than a byte per second");
    return std::nullopt;
  }
  return Bandwidth::BytesPerSecond(value);
}

template <typename Wire>
void SetFields(const std::vector<FieldChange>& changes, Wire* out) {
  for (const FieldChange& c : changes) {
    v1::FieldChange& wire = *out->Add();
    wire.set_field(c.field);
    wire.set_before(c.before);
    wire.set_after(c.after);
  }
}

template <typename Wire>
void SetBlocks(const std::vector<BlockChange>& changes, Wire* out) {
  for (const BlockChange& c : changes) {
    v1::BlockChange& wire = *out->Add();
    for (const std::string& block : c.blocks) wire.add_blocks(block);
    wire.set_before_weights(c.before_weights.count());
    wire.set_after_weights(c.after_weights.count());
    wire.set_before(c.before);
    wire.set_after(c.after);
  }
}

template <typename Wire>
std::vector<FieldChange> ReadFields(const Wire& changes) {
  std::vector<FieldChange> out;
  for (const v1::FieldChange& c : changes) out.push_back({c.field(), c.before(), c.after()});
  return out;
}

template <typename Wire>
std::vector<BlockChange> ReadBlocks(const Wire& changes) {
  std::vector<BlockChange> out;
  for (const v1::BlockChange& c : changes) {
    out.push_back({{c.blocks().begin(), c.blocks().end()},
                   Bytes(c.before_weights()),
                   Bytes(c.after_weights()),
                   c.before(),
                   c.after()});
  }
  return out;
}

}  // namespace

v1::MachineChange ToProto(const MachineChange& change) {
  v1::MachineChange wire;
  for (const GpuProfile* gpu : change.more_gpus) wire.add_add_gpus(std::string(gpu->name));
  for (const auto& [memory, budget] : change.budgets) {
    v1::BudgetChange& out = *wire.add_budgets();
    out.set_memory(memory);
    out.set_bytes(budget.count());
  }
  if (change.link) wire.set_link(change.link->bytes_per_second());
  if (change.dram) wire.set_dram(change.dram->bytes_per_second());
  if (change.disk) wire.set_disk(change.disk->bytes_per_second());
  return wire;
}

absl::StatusOr<MachineChange> FromProto(const v1::MachineChange& wire) {
  FieldCheck check;
  MachineChange change;
  check.Int32("MachineChange.add_gpus", wire.add_gpus_size(), 0, kMostCards);
  check.Int32("MachineChange.budgets", wire.budgets_size(), 0, kMostBudgets);
  if (!check.ok()) return check.status();
  for (const std::string& name : wire.add_gpus()) {
    const GpuProfile* gpu = FindGpuProfile(name);
    if (gpu == nullptr) {
      check.Refuse("MachineChange.add_gpus", "no card '", name.substr(0, 64), "'; there is ",
                   absl::StrJoin(GpuProfiles(), ", ", [](std::string* out, const GpuProfile& p) {
                     absl::StrAppend(out, p.name);
                   }));
      break;
    }
    change.more_gpus.push_back(gpu);
  }
  for (int i = 0; i < wire.budgets_size(); ++i) {
    const std::string at = absl::StrCat("MachineChange.budgets[", i, "]");
    const std::string memory = check.Name(at + ".memory", wire.budgets(i).memory());
    change.budgets.emplace_back(
        memory, Bytes(check.Int(at + ".bytes", wire.budgets(i).bytes(), 1, int64_t{1} << 53)));
  }
  change.link = ReadBandwidth(check, "MachineChange.link", wire.link());
  change.dram = ReadBandwidth(check, "MachineChange.dram", wire.dram());
  change.disk = ReadBandwidth(check, "MachineChange.disk", wire.disk());
  if (!check.ok()) return check.status();
  return change;
}

v1::DiffPlansResponse ToProto(const PlanDiff& diff) {
  v1::DiffPlansResponse wire;
  wire.set_same(diff.same());
  wire.set_other_model(diff.other_model);
  SetFields(diff.settings, wire.mutable_settings());
  SetFields(diff.stages, wire.mutable_stages());
  for (const BytesChange& c : diff.memory) {
    v1::BytesChange& out = *wire.add_memory();
    out.set_worker(c.worker.value());
    out.set_memory(c.memory);
    out.set_place(c.place);
    out.set_what(c.what);
    out.set_before(c.before.count());
    out.set_after(c.after.count());
  }
  SetBlocks(diff.moved, wire.mutable_moved());
  SetBlocks(diff.routes, wire.mutable_routes());
  SetBlocks(diff.kv_caches, wire.mutable_kv_caches());
  SetBlocks(diff.held, wire.mutable_held());
  for (const PredictionChange& c : diff.predictions) {
    v1::PredictionChange& out = *wire.add_predictions();
    out.set_name(c.name);
    out.set_label(c.label);
    out.set_before(c.before);
    out.set_after(c.after);
  }
  return wire;
}

PlanDiff FromProto(const v1::DiffPlansResponse& wire) {
  PlanDiff diff;
  diff.other_model = wire.other_model();
  diff.settings = ReadFields(wire.settings());
  diff.stages = ReadFields(wire.stages());
  for (const v1::BytesChange& c : wire.memory()) {
    diff.memory.push_back({WorkerId(c.worker()), c.memory(), c.place(), c.what(), Bytes(c.before()),
                           Bytes(c.after())});
  }
  diff.moved = ReadBlocks(wire.moved());
  diff.routes = ReadBlocks(wire.routes());
  diff.kv_caches = ReadBlocks(wire.kv_caches());
  diff.held = ReadBlocks(wire.held());
  for (const v1::PredictionChange& c : wire.predictions()) {
    diff.predictions.push_back({c.name(), c.label(), c.before(), c.after()});
  }
  return diff;
}

v1::PlanResponse MakePlanResponse(const SolveResult& result, const ClusterSpec& cluster,
                                  std::string text) {
  v1::PlanResponse wire;
  if (result.plan.has_value()) *wire.mutable_plan() = ToProto(*result.plan);
  if (result.infeasible.has_value()) *wire.mutable_infeasible() = ToProto(*result.infeasible);
  *wire.mutable_cluster() = ToProto(cluster);
  wire.set_text(std::move(text));
  return wire;
}

absl::StatusOr<SolveResult> FromProto(const v1::PlanResponse& wire) {
  SolveResult result;
  if (wire.has_infeasible()) {
    result.infeasible = FromProto(wire.infeasible());
    return result;
  }
  MILLRACE_ASSIGN_OR_RETURN(result.plan, FromProto(wire.plan()));
  return result;
}

}  // namespace millrace
