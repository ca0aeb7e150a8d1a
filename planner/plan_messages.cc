#include "planner/plan_messages.h"

#include "proto/convert.h"
#include "proto/field_check.h"

namespace millrace {

static_assert(static_cast<int>(RoutePolicy::kStream) == v1::ROUTE_POLICY_STREAM);
static_assert(static_cast<int>(RoutePolicy::kSplit) == v1::ROUTE_POLICY_SPLIT);

v1::Infeasibility ToProto(const Infeasibility& infeasible) {
  v1::Infeasibility wire;
  wire.set_summary(infeasible.summary);
  for (const std::string& block : infeasible.smallest_set) wire.add_smallest_set(block);
  wire.set_needed(infeasible.needed.count());
  wire.set_available(infeasible.available.count());
  for (const Infeasibility::BudgetFix& fix : infeasible.nearest_budget) {
    v1::BudgetFix& out = *wire.add_nearest_budget();
    out.set_worker(fix.worker.value());
    out.set_memory(fix.memory);
    out.set_budget(fix.budget.count());
    out.set_wanted(fix.wanted.count());
  }
  return wire;
}

Infeasibility FromProto(const v1::Infeasibility& wire) {
  Infeasibility infeasible;
  infeasible.summary = wire.summary();
  infeasible.smallest_set.assign(wire.smallest_set().begin(), wire.smallest_set().end());
  infeasible.needed = Bytes(wire.needed());
  infeasible.available = Bytes(wire.available());
  for (const v1::BudgetFix& fix : wire.nearest_budget()) {
    infeasible.nearest_budget.push_back(
        {WorkerId(fix.worker()), fix.memory(), Bytes(fix.budget()), Bytes(fix.wanted())});
  }
  return infeasible;
}

absl::Status ApplyOptions(const v1::PlanOptions& options, PlacementProblem& problem) {
  FieldCheck check;
  problem.context = check.Int32("PlanOptions.context", options.context(), 1, 1 << 26);
  problem.slots = check.Int32("PlanOptions.slots", options.slots(), 1, 1 << 16);
  problem.max_pass_tokens =
      check.Int32("PlanOptions.max_pass_tokens", options.max_pass_tokens(), 1, 1 << 20);
  problem.expected_prompt_tokens = check.Int32("PlanOptions.expected_prompt_tokens",
                                               options.expected_prompt_tokens(), 1, 1 << 26);
  absl::StatusOr<DType> kv_type = FromProto(options.kv_type());
  if (kv_type.ok()) {
    problem.kv_type = *kv_type;
  } else {
    check.Refuse("PlanOptions.kv_type", "unknown type ", static_cast<int>(options.kv_type()));
  }
  problem.routes = static_cast<RoutePolicy>(check.Int32("PlanOptions.routes", options.routes(), 0,
                                                        static_cast<int>(RoutePolicy::kSplit)));
  if (options.has_objective()) {
    problem.objective = ObjectiveFromProto(check, "PlanOptions.objective", options.objective());
  }
  for (const v1::Pin& pin : options.pins()) {
    problem.pins.push_back({check.Name("PlanOptions.pins.pattern", pin.pattern()),
                            check.Name("PlanOptions.pins.target", pin.target())});
  }
  return check.status();
}

}  // namespace millrace
