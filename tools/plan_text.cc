#include "tools/plan_text.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace millrace {
namespace {

Bytes StageWeights(const PlacementPlan& plan, int stage) {
  Bytes sum;
  for (const BlockPlacement& block : plan.blocks) {
    if (block.stage == stage) sum += block.weights;
  }
  return sum;
}

std::string BlockRange(const PlacementPlan& plan, const Stage& stage) {
  const int n = static_cast<int>(plan.blocks.size());
  if (stage.first_block >= n || stage.end_block > n || stage.end_block <= stage.first_block) {
    return "-";
  }
  return absl::StrCat(plan.blocks[stage.first_block].name, " .. ",
                      plan.blocks[stage.end_block - 1].name);
}

void AppendStages(const PlacementPlan& plan, std::string& out) {
  absl::StrAppendFormat(&out, "%-5s  %-16s %-8s %-26s %6s %10s %12s\n", "stage", "worker", "device",
                        "blocks", "count", "weights", "time/token");
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const Stage& stage = plan.stages[i];
    const absl::Duration time = i < plan.predicted.stage_time_per_token.size()
                                    ? plan.predicted.stage_time_per_token[i]
                                    : absl::ZeroDuration();
    absl::StrAppendFormat(&out, "%-5d  %-16s %-8s %-26s %6d %10s %12s\n", static_cast<int>(i),
                          stage.worker.value(), stage.device.value(), BlockRange(plan, stage),
                          stage.end_block - stage.first_block,
                          FormatBytes(StageWeights(plan, static_cast<int>(i))), FormatMillis(time));
  }
}

void AppendMemory(const PlacementPlan& plan, std::string& out) {
  absl::StrAppendFormat(&out, "\n%-16s %-8s %10s %10s %6s\n", "worker", "memory", "used", "budget",
                        "full");
  for (const LedgerTotal& total : plan.totals) {
    const double full = total.budget.count() > 0
                            ? 100.0 * static_cast<double>(total.used.count()) / total.budget.count()
                            : 0;
    absl::StrAppendFormat(&out, "%-16s %-8s %10s %10s %5.0f%%\n", total.worker.value(),
                          total.memory, FormatBytes(total.used), FormatBytes(total.budget), full);
  }
}

void AppendExplanation(const PlacementPlan& plan, std::string& out) {
  absl::StrAppend(&out, "\nwhat every byte is for\n");
  for (const LedgerEntry& entry : plan.ledger) {
    absl::StrAppendFormat(&out, "  %-16s %-8s %-12s %10s\n", entry.worker.value(), entry.memory,
                          std::string(PurposeName(entry.purpose)), FormatBytes(entry.bytes));
  }
  absl::StrAppend(&out, "\nblocks\n");
  for (const BlockPlacement& block : plan.blocks) {
    absl::StrAppendFormat(&out, "  %-14s stage %-3d %-7s %10s  %s\n", block.name, block.stage,
                          block.home == Home::kDevice ? "device" : "host",
                          FormatBytes(block.weights), block.precision);
  }
}

}  // namespace

std::string FormatMillis(absl::Duration d) {
  if (d <= absl::ZeroDuration() || d == absl::InfiniteDuration()) return "-";
  const double ms = absl::ToDoubleMilliseconds(d);
  if (ms >= 1000) return absl::StrFormat("%.2f s", ms / 1000);
  return absl::StrFormat(ms >= 10 ? "%.1f ms" : "%.2f ms", ms);
}

std::string PlanText(const PlacementPlan& plan, bool explain) {
  std::string out;
  absl::StrAppendFormat(
      &out, "plan for %s: %d stage%s, context %d x %d slot%s, kv %s, passes of up to %d tokens\n\n",
      plan.model.empty() ? "the demo model" : plan.model, static_cast<int>(plan.stages.size()),
      plan.stages.size() == 1 ? "" : "s", plan.context, plan.slots, plan.slots == 1 ? "" : "s",
      std::string(DTypeName(plan.kv_type)), plan.max_pass_tokens);
  AppendStages(plan, out);
  AppendMemory(plan, out);
  absl::StrAppendFormat(
      &out, "\npredicted: first token after %s (prompt of %d), then %s per token = %.1f tokens/s\n",
      FormatMillis(plan.predicted.ttft), plan.predicted.prompt_tokens,
      FormatMillis(plan.predicted.time_per_token), plan.predicted.decode_tokens_per_second);
  if (!plan.binding_constraint.empty()) {
    absl::StrAppend(&out, "limit: ", plan.binding_constraint, "\n");
  }
  if (explain) AppendExplanation(plan, out);
  return out;
}

std::string InfeasibleText(const Infeasibility& infeasible) {
  std::string out = absl::StrCat("does not fit: ", infeasible.summary, "\n");
  if (!infeasible.smallest_set.empty()) {
    const size_t shown = std::min<size_t>(infeasible.smallest_set.size(), 6);
    absl::StrAppend(&out, "  smallest set that cannot be placed: ",
                    absl::StrJoin(infeasible.smallest_set.begin(),
                                  infeasible.smallest_set.begin() + shown, ", "),
                    shown < infeasible.smallest_set.size()
                        ? absl::StrCat(" and ", infeasible.smallest_set.size() - shown, " more")
                        : "",
                    "\n");
  }
  absl::StrAppend(&out, "  needs ", FormatBytes(infeasible.needed), ", available ",
                  FormatBytes(infeasible.available), "\n");
  for (const Infeasibility::BudgetFix& fix : infeasible.nearest_budget) {
    absl::StrAppend(&out, "  would fit with ", fix.worker.value(), "/", fix.memory, " at ",
                    FormatBytes(fix.wanted), " instead of ", FormatBytes(fix.budget), "\n");
  }
  return out;
}

}  // namespace millrace
