#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/convert.h"
#include "proto/field_check.h"

namespace millrace {
namespace {

static_assert(static_cast<int>(Home::kDisk) + 1 == v1::HOME_DISK);
static_assert(static_cast<int>(Purpose::kStreamRing) + 1 == v1::PURPOSE_STREAM_RING);
static_assert(static_cast<int>(DeviceKind::kGpu) + 1 == v1::DEVICE_KIND_GPU);

void StagesFromProto(FieldCheck& check, const v1::PlacementPlan& wire, PlacementPlan& plan) {
  if (wire.stages_size() < 1) check.Refuse("PlacementPlan.stages", "a plan has at least one stage");
  int next = 0;
  for (int i = 0; i < wire.stages_size(); ++i) {
    const v1::Stage& in = wire.stages(i);
    const std::string at = absl::StrCat("PlacementPlan.stages[", i, "]");
    Stage stage;
    stage.worker = WorkerId(in.worker());  // empty in a plan for one process
    stage.device = DeviceId(check.Name(at + ".device", in.device()));
    stage.device_kind =
        static_cast<DeviceKind>(check.Int32(at + ".device_kind", in.device_kind(), 1, 2) - 1);
    stage.address = in.address();
    stage.first_block = check.Int32(at + ".first_block", in.first_block(), 0);
    stage.end_block = check.Int32(at + ".end_block", in.end_block(), 0);
    stage.stream_ring = check.Size(at + ".stream_ring", in.stream_ring());
    if (stage.first_block != next) {
      check.Refuse(at + ".first_block", stage.first_block,
                   " does not follow the stage before, which ends at ", next);
    }
    if (stage.end_block <= stage.first_block) {
      check.Refuse(at + ".end_block", stage.end_block, " is not above first_block ",
                   stage.first_block);
    }
    next = stage.end_block;
    plan.stages.push_back(stage);
  }
  if (next != wire.blocks_size()) {
    check.Refuse("PlacementPlan.blocks", wire.blocks_size(), " placements for stages of ", next,
                 " blocks");
  }
}

void SharesFromProto(FieldCheck& check, const std::string& at, const v1::BlockPlacement& in,
                     BlockPlacement& block) {
  int before = block.host_route_max_tokens;
  for (const v1::CpuShare& share : in.cpu_shares()) {
    CpuShare read;
    read.max_tokens =
        check.Int32(at + ".cpu_shares.max_tokens", share.max_tokens(), std::min(before, 1 << 20) + 1, 1 << 20);
    read.units = check.Int32(at + ".cpu_shares.units", share.units(), 0, 1 << 26);
    before = read.max_tokens;
    block.cpu_shares.push_back(read);
  }
}

void StoredTypesFromProto(FieldCheck& check, const std::string& at, const v1::BlockPlacement& in,
                          BlockPlacement& block) {
  for (int i = 0; i < in.stored_types_size(); ++i) {
    const std::string here = absl::StrCat(at, ".stored_types[", i, "]");
    const v1::StoredType& wire = in.stored_types(i);
    const absl::StatusOr<DType> dtype = FromProto(wire.dtype());
    if (!dtype.ok()) {
      check.Refuse(here + ".dtype", "unknown type ", static_cast<int>(wire.dtype()));
      return;
    }
    block.stored_types.push_back({check.Name(here + ".tensor", wire.tensor()), *dtype});
  }
}

void BlocksFromProto(FieldCheck& check, const v1::PlacementPlan& wire, PlacementPlan& plan) {
  for (int i = 0; i < wire.blocks_size() && check.ok(); ++i) {
    const v1::BlockPlacement& in = wire.blocks(i);
    const std::string at = absl::StrCat("PlacementPlan.blocks[", i, "]");
    BlockPlacement block;
    block.block = check.Int32(at + ".block", in.block(), i, i);
    block.name = in.name();
    block.stage = check.Int32(at + ".stage", in.stage(), 0, wire.stages_size() - 1);
    block.home = static_cast<Home>(check.Int32(at + ".home", in.home(), 1, 3) - 1);
    block.host_route_max_tokens =
        check.Int32(at + ".host_route_max_tokens", in.host_route_max_tokens(), 0);
    block.weights = check.Size(at + ".weights", in.weights());
    block.precision = in.precision();
    const int kv_home = check.Int32(at + ".kv_home", in.kv_home(), 0, 2);
    block.kv_home = kv_home == v1::HOME_HOST ? Home::kHost : Home::kDevice;
    SharesFromProto(check, at, in, block);
    StoredTypesFromProto(check, at, in, block);
    if (check.ok()) {
      const Stage& stage = plan.stages[block.stage];
      if (i < stage.first_block || i >= stage.end_block) {
        check.Refuse(at + ".stage", block.stage, " does not hold block ", i);
      }
    }
    plan.blocks.push_back(block);
  }
}

void LedgerFromProto(FieldCheck& check, const v1::PlacementPlan& wire, PlacementPlan& plan) {
  for (int i = 0; i < wire.ledger_size(); ++i) {
    const v1::LedgerEntry& in = wire.ledger(i);
    const std::string at = absl::StrCat("PlacementPlan.ledger[", i, "]");
    LedgerEntry entry;
    entry.worker = WorkerId(in.worker());
    entry.memory = check.Name(at + ".memory", in.memory());
    entry.purpose = static_cast<Purpose>(check.Int32(at + ".purpose", in.purpose(), 1, 5) - 1);
    entry.bytes = check.Size(at + ".bytes", in.bytes());
    plan.ledger.push_back(entry);
  }
  for (int i = 0; i < wire.totals_size(); ++i) {
    const v1::LedgerTotal& in = wire.totals(i);
    const std::string at = absl::StrCat("PlacementPlan.totals[", i, "]");
    LedgerTotal total;
    total.worker = WorkerId(in.worker());
    total.memory = check.Name(at + ".memory", in.memory());
    total.budget = check.Size(at + ".budget", in.budget());
    total.used = check.Size(at + ".used", in.used());
    plan.totals.push_back(total);
  }
}

v1::Prediction PredictionToProto(const Prediction& p) {
  v1::Prediction wire;
  wire.set_ttft_ms(absl::ToDoubleMilliseconds(p.ttft));
  wire.set_prompt_tokens(p.prompt_tokens);
  wire.set_time_per_token_ms(absl::ToDoubleMilliseconds(p.time_per_token));
  wire.set_decode_tokens_per_second(p.decode_tokens_per_second);
  wire.set_prefill_tokens_per_second(p.prefill_tokens_per_second);
  for (absl::Duration d : p.stage_time_per_token) {
    wire.add_stage_time_per_token_ms(absl::ToDoubleMilliseconds(d));
  }
  wire.set_hop_time_per_token_ms(absl::ToDoubleMilliseconds(p.hop_time_per_token));
  wire.set_decode_batch(p.decode_batch);
  wire.set_batch_tokens_per_second(p.batch_tokens_per_second);
  wire.set_objective_ms(absl::ToDoubleMilliseconds(p.objective_time));
  wire.set_search_gap(p.search_gap);
  return wire;
}

// Predictions are for people: infinities (a device of unknown speed) are kept.
Prediction PredictionFromProto(const v1::Prediction& wire) {
  Prediction p;
  p.ttft = absl::Milliseconds(wire.ttft_ms());
  p.prompt_tokens = wire.prompt_tokens();
  p.time_per_token = absl::Milliseconds(wire.time_per_token_ms());
  p.decode_tokens_per_second = wire.decode_tokens_per_second();
  p.prefill_tokens_per_second = wire.prefill_tokens_per_second();
  for (double ms : wire.stage_time_per_token_ms()) {
    p.stage_time_per_token.push_back(absl::Milliseconds(ms));
  }
  p.hop_time_per_token = absl::Milliseconds(wire.hop_time_per_token_ms());
  p.decode_batch = wire.decode_batch();
  p.batch_tokens_per_second = wire.batch_tokens_per_second();
  p.objective_time = absl::Milliseconds(wire.objective_ms());
  p.search_gap = wire.search_gap();
  return p;
}

void StagesToProto(const PlacementPlan& plan, v1::PlacementPlan& wire) {
  for (const Stage& stage : plan.stages) {
    v1::Stage& out = *wire.add_stages();
    out.set_worker(stage.worker.value());
    out.set_device(stage.device.value());
    out.set_device_kind(static_cast<v1::DeviceKind>(static_cast<int>(stage.device_kind) + 1));
    out.set_address(stage.address);
    out.set_first_block(stage.first_block);
    out.set_end_block(stage.end_block);
    out.set_stream_ring(stage.stream_ring.count());
  }
  for (const BlockPlacement& block : plan.blocks) {
    v1::BlockPlacement& out = *wire.add_blocks();
    out.set_block(block.block);
    out.set_name(block.name);
    out.set_stage(block.stage);
    out.set_home(static_cast<v1::Home>(static_cast<int>(block.home) + 1));
    out.set_host_route_max_tokens(block.host_route_max_tokens);
    out.set_weights(block.weights.count());
    out.set_precision(block.precision);
    if (block.kv_home == Home::kHost) out.set_kv_home(v1::HOME_HOST);
    for (const CpuShare& share : block.cpu_shares) {
      v1::CpuShare& to = *out.add_cpu_shares();
      to.set_max_tokens(share.max_tokens);
      to.set_units(share.units);
    }
    for (const StoredType& type : block.stored_types) {
      v1::StoredType& to = *out.add_stored_types();
      to.set_tensor(type.tensor);
      to.set_dtype(ToProto(type.dtype));
    }
  }
}

}  // namespace

v1::Objective ToProto(const Objective& objective) {
  v1::Objective wire;
  wire.set_batch(objective.batch);
  wire.set_decode_tokens(objective.decode_tokens);
  wire.set_prompt_tokens(objective.prompt_tokens);
  return wire;
}

Objective ObjectiveFromProto(FieldCheck& check, const std::string& field,
                             const v1::Objective& wire) {
  constexpr int kMost = 1 << 26;
  Objective objective;
  objective.batch = check.Int32(field + ".batch", wire.batch(), 1, 1 << 16);
  objective.decode_tokens = check.Int32(field + ".decode_tokens", wire.decode_tokens(), 0, kMost);
  objective.prompt_tokens = check.Int32(field + ".prompt_tokens", wire.prompt_tokens(), 0, kMost);
  if (objective.decode_tokens == 0 && objective.prompt_tokens == 0) {
    check.Refuse(field, "asks for no tokens: set decode_tokens, prompt_tokens or both");
  }
  return objective;
}

v1::PlacementPlan ToProto(const PlacementPlan& plan) {
  v1::PlacementPlan wire;
  wire.set_format_version(plan.format_version);
  wire.set_epoch(plan.epoch.value);
  wire.set_model(plan.model);
  wire.set_model_fingerprint(plan.model_fingerprint);
  wire.set_context(plan.context);
  wire.set_slots(plan.slots);
  wire.set_kv_type(ToProto(plan.kv_type));
  wire.set_max_pass_tokens(plan.max_pass_tokens);
  StagesToProto(plan, wire);
  for (const LedgerEntry& entry : plan.ledger) {
    v1::LedgerEntry& out = *wire.add_ledger();
    out.set_worker(entry.worker.value());
    out.set_memory(entry.memory);
    out.set_purpose(static_cast<v1::Purpose>(static_cast<int>(entry.purpose) + 1));
    out.set_bytes(entry.bytes.count());
  }
  for (const LedgerTotal& total : plan.totals) {
    v1::LedgerTotal& out = *wire.add_totals();
    out.set_worker(total.worker.value());
    out.set_memory(total.memory);
    out.set_budget(total.budget.count());
    out.set_used(total.used.count());
  }
  *wire.mutable_predicted() = PredictionToProto(plan.predicted);
  wire.set_binding_constraint(plan.binding_constraint);
  *wire.mutable_objective() = ToProto(plan.objective);
  return wire;
}

absl::StatusOr<PlacementPlan> FromProto(const v1::PlacementPlan& wire) {
  FieldCheck check;
  PlacementPlan plan;
  plan.format_version = wire.format_version();
  if (plan.format_version < kOldestPlanFormatVersion ||
      plan.format_version > kPlanFormatVersion) {
    check.Refuse("PlacementPlan.format_version", "the plan has version ", plan.format_version,
                 ", this millrace reads versions ", kOldestPlanFormatVersion, " to ",
                 kPlanFormatVersion, "; make the plan again with `millrace plan`");
  }
  plan.epoch = Epoch{check.Int("PlacementPlan.epoch", wire.epoch(), 0, int64_t{1} << 62)};
  plan.model = wire.model();
  plan.model_fingerprint = check.Name("PlacementPlan.model_fingerprint", wire.model_fingerprint());
  plan.context = check.Int32("PlacementPlan.context", wire.context(), 1, 1 << 26);
  plan.slots = check.Int32("PlacementPlan.slots", wire.slots(), 1, 1 << 16);
  absl::StatusOr<DType> kv_type = FromProto(wire.kv_type());
  if (kv_type.ok()) {
    plan.kv_type = *kv_type;
  } else {
    check.Refuse("PlacementPlan.kv_type", "unknown type ", static_cast<int>(wire.kv_type()));
  }
  plan.max_pass_tokens =
      check.Int32("PlacementPlan.max_pass_tokens", wire.max_pass_tokens(), 1, 1 << 20);
  StagesFromProto(check, wire, plan);
  BlocksFromProto(check, wire, plan);
  LedgerFromProto(check, wire, plan);
  plan.predicted = PredictionFromProto(wire.predicted());
  plan.binding_constraint = wire.binding_constraint();
  if (wire.has_objective()) {
    plan.objective = ObjectiveFromProto(check, "PlacementPlan.objective", wire.objective());
  }
  if (!check.ok()) return check.status();
  return plan;
}

v1::ActivationNeeds ToProto(const ActivationNeeds& needs) {
  v1::ActivationNeeds wire;
  wire.set_body(needs.body.count());
  wire.set_first_extra(needs.first_extra.count());
  wire.set_last_extra(needs.last_extra.count());
  return wire;
}

absl::StatusOr<ActivationNeeds> FromProto(const v1::ActivationNeeds& wire) {
  FieldCheck check;
  ActivationNeeds needs;
  needs.body = check.Size("ActivationNeeds.body", wire.body());
  needs.first_extra = check.Size("ActivationNeeds.first_extra", wire.first_extra());
  needs.last_extra = check.Size("ActivationNeeds.last_extra", wire.last_extra());
  if (!check.ok()) return check.status();
  return needs;
}

}  // namespace millrace
