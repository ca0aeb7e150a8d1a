#include "planner/plan_report.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "planner/baselines.h"
#include "planner/home_counts.h"
#include "planner/plan_words.h"
#include "planner/precision_words.h"

namespace millrace {
namespace {

Bytes LedgerBytes(const PlacementPlan& plan, const Stage& stage, Purpose purpose) {
  Bytes sum;
  for (const LedgerEntry& e : plan.ledger) {
    if (e.worker == stage.worker && e.memory == stage.device.value() && e.purpose == purpose) {
      sum += e.bytes;
    }
  }
  return sum;
}

const LedgerTotal* FindTotal(const PlacementPlan& plan, const Stage& stage) {
  for (const LedgerTotal& t : plan.totals) {
    if (t.worker == stage.worker && t.memory == stage.device.value()) return &t;
  }
  return nullptr;
}

std::string Bar(Bytes used, Bytes budget) {
  constexpr int kWidth = 10;
  const double share =
      budget > Bytes(0) ? static_cast<double>(used.count()) / static_cast<double>(budget.count()) : 1;
  const int full = std::clamp(static_cast<int>(share * kWidth + 0.5), 0, kWidth);
  std::string bar(static_cast<size_t>(full), '#');
  bar.resize(kWidth, '.');
  return absl::StrFormat("%s %3.0f%%", bar, 100 * share);
}

// Up to which pass the CPU computes how many of the stage's blocks, and what of split ones.
std::string RenderThresholds(const PlacementPlan& plan, const Stage& s) {
  std::map<int, int> thresholds;      // blocks by host_route_max_tokens
  std::map<std::string, int> splits;  // blocks by what SharesText says
  for (int b = std::max(1, s.first_block); b < s.end_block; ++b) {
    const BlockPlacement& p = plan.blocks[b];
    if (p.home != Home::kHost) continue;
    ++thresholds[p.host_route_max_tokens];
    if (!p.cpu_shares.empty()) ++splits[SharesText(p)];
  }
  std::vector<std::string> limits;
  for (const auto& [tokens, blocks] : thresholds) {
    if (tokens > 0) limits.push_back(absl::StrCat(blocks, " up to ", tokens));
  }
  std::string out;
  if (!limits.empty()) {
    absl::StrAppend(&out, "\nby the CPU in passes of tokens: ", absl::StrJoin(limits, ", "));
  }
  for (const auto& [text, blocks] : splits) {
    absl::StrAppend(&out, "\nunits by the CPU in passes of tokens, ", blocks, " blocks: ", text);
  }
  return out;
}

// "resident 34.1 GiB in 120 blocks; in RAM: embed looked up, 7.3 GiB streamed, ..." of a GPU stage
// with host homes; routes at a pass of one token.
std::string RenderRoutes(const PlacementPlan& plan, const Stage& s) {
  const HomeCounts homes = CountHomes(plan, s);
  if (!homes.table_in_ram && homes.streamed.blocks + homes.cpu.blocks + homes.split.blocks +
                                     homes.disk.blocks == 0) {
    return "";
  }
  std::string out = absl::StrFormat("\nblocks of %s/%s: %d resident (%s)", s.worker.value(),
                                    s.device.value(), homes.resident.blocks,
                                    FormatBytes(homes.resident.weights));
  const auto add = [&out](const BlockCount& count, absl::string_view what) {
    if (count.blocks == 0) return;
    absl::StrAppendFormat(&out, ", %d %s (%s)", count.blocks, what, FormatBytes(count.weights));
  };
  add(homes.streamed, "streamed");
  add(homes.cpu, "by the CPU");
  add(homes.split, "split between CPU and stream");
  add(homes.disk, "read from disk for every pass");
  if (homes.table_in_ram) absl::StrAppend(&out, ", embedding looked up in RAM");
  if (homes.caches_in_ram > 0) {
    absl::StrAppend(&out, ", KV cache of ", homes.caches_in_ram, " layers in RAM");
  }
  if (s.stream_ring > Bytes(0)) absl::StrAppend(&out, "; ring ", FormatBytes(s.stream_ring));
  absl::StrAppend(&out, RenderThresholds(plan, s));
  return absl::StrCat(WrapAt(out, 100), "\n");
}

}  // namespace

std::string RenderMilliseconds(absl::Duration d) {
  if (d <= absl::ZeroDuration() || d == absl::InfiniteDuration()) return "-";
  const double ms = absl::ToDoubleMilliseconds(d);
  return absl::StrFormat(ms < 10 ? "%.2f ms" : "%.0f ms", ms);
}

std::string RenderPredicted(const PlacementPlan& plan) {
  const Prediction& p = plan.predicted;
  const bool decode = plan.objective == Objective{};
  std::string out = absl::StrFormat(
      "\npredicted: 1 sequence decodes %.1f tokens/s (%s each%s)\n", p.decode_tokens_per_second,
      RenderMilliseconds(p.time_per_token), decode ? "; the plan has the least of that" : "");
  if (!decode) {
    absl::StrAppendFormat(&out, "%s: %s, of which the plan has the least\n",
                          ObjectiveWords(plan.objective), RenderMilliseconds(p.objective_time));
  }
  if (p.decode_batch > 1) {
    const double rate = p.batch_tokens_per_second, pass = rate > 0 ? p.decode_batch / rate : 0;
    absl::StrAppendFormat(&out, "%d sequences together: %.1f tokens/s (%s a pass)\n",
                          p.decode_batch, p.batch_tokens_per_second,
                          RenderMilliseconds(absl::Seconds(pass)));
  }
  absl::StrAppendFormat(&out, "first token of a %d-token prompt after %s (%.0f tokens/s)\n",
                        p.prompt_tokens, RenderMilliseconds(p.ttft), p.prefill_tokens_per_second);
  if (p.search_gap > 0) {
    absl::StrAppendFormat(
        &out, "the search was cut short: a better placement saves %.1f%% of the time at most\n",
        100 * p.search_gap);
  }
  return out;
}

std::string RenderPlanTable(const PlacementPlan& plan) {
  std::string out = absl::StrFormat(
      "%s over %d stage%s: context %d x %d slot%s, KV cache %s, passes of up to %d tokens\n\n",
      ModelText(plan), plan.stages.size(), plan.stages.size() == 1 ? "" : "s", plan.context,
      plan.slots, plan.slots == 1 ? "" : "s", std::string(DTypeName(plan.kv_type)), plan.max_pass_tokens);
  absl::StrAppendFormat(&out, "%-16s %-24s %9s %9s %9s %9s  %s\n", "worker/device", "blocks",
                        "weights", "KV", "other", "budget", "used");
  for (const Stage& s : plan.stages) {
    const LedgerTotal* total = FindTotal(plan, s);
    const Bytes weights = LedgerBytes(plan, s, Purpose::kWeights);
    const Bytes kv = LedgerBytes(plan, s, Purpose::kKvCache);
    const Bytes used = total ? total->used : Bytes(0), budget = total ? total->budget : Bytes(0);
    absl::StrAppendFormat(&out, "%-16s %-24s %9s %9s %9s %9s  %s\n",
                          absl::StrCat(s.worker.value(), "/", s.device.value()),
                          StageBlocksText(plan, s), FormatBytes(weights), FormatBytes(kv),
                          FormatBytes(used - weights - kv), FormatBytes(budget), Bar(used, budget));
  }
  for (const LedgerTotal& t : plan.totals) {
    if (t.memory != "host") continue;
    absl::StrAppendFormat(&out, "%-16s %-24s %9s %9s %9s %9s  %s\n",
                          absl::StrCat(t.worker.value(), "/host"), "weights in RAM, buffers",
                          FormatBytes(t.used), "", "", FormatBytes(t.budget), Bar(t.used, t.budget));
  }
  for (const Stage& s : plan.stages) {
    if (s.device_kind == DeviceKind::kGpu) absl::StrAppend(&out, RenderRoutes(plan, s));
  }
  absl::StrAppend(&out, RenderPrecision(plan));
  absl::StrAppend(&out, RenderPredicted(plan));
  absl::StrAppend(&out, WrapAt(absl::StrCat("limited by ", plan.binding_constraint), 100), "\n");
  return out;
}

std::string RenderExplain(const PlacementPlan& plan, const PlacementProblem* problem) {
  std::string out = RenderPlanTable(plan);
  absl::StrAppend(&out, "\nledger\n");
  for (const LedgerEntry& e : plan.ledger) {
    absl::StrAppendFormat(&out, "  %-24s %-12s %10s\n",
                          absl::StrCat(e.worker.value(), "/", e.memory),
                          std::string(PurposeName(e.purpose)), FormatBytes(e.bytes));
  }
  absl::StrAppend(&out, RenderStoredTypes(plan));
  absl::StrAppend(&out, "\ntime of one decoded token\n");
  for (size_t i = 0; i < plan.stages.size() && i < plan.predicted.stage_time_per_token.size(); ++i) {
    absl::StrAppendFormat(&out, "  %-24s %10s\n",
                          absl::StrCat(plan.stages[i].worker.value(), "/",
                                       plan.stages[i].device.value()),
                          RenderMilliseconds(plan.predicted.stage_time_per_token[i]));
  }
  absl::StrAppendFormat(&out, "  %-24s %10s\n", "links",
                        RenderMilliseconds(plan.predicted.hop_time_per_token));
  if (problem == nullptr) return out;
  absl::StrAppend(&out, "\nagainst simpler placements\n");
  const double mine = absl::ToDoubleSeconds(plan.predicted.objective_time);
  const auto speed = [&](double seconds) {
    return plan.objective == Objective{} ? absl::StrFormat("%.1f tokens/s", 1 / seconds)
                                         : RenderMilliseconds(absl::Seconds(seconds));
  };
  for (const Baseline& b : ComputeBaselines(*problem)) {
    absl::StrAppendFormat(&out, "  %-32s %s\n", b.name,
                          b.seconds ? absl::StrFormat("%s, this plan is %.2f x", speed(*b.seconds),
                                                      *b.seconds / mine)
                                    : "does not fit");
  }
  return out;
}

std::string RenderInfeasible(const Infeasibility& infeasible) {
  std::string out = absl::StrCat("does not fit: ", infeasible.summary, "\n");
  if (!infeasible.nearest_budget.empty()) absl::StrAppend(&out, "nearest budget that would do:\n");
  for (const auto& fix : infeasible.nearest_budget) {
    absl::StrAppendFormat(&out, "  %-24s %s instead of %s\n",
                          absl::StrCat(fix.worker.value(), "/", fix.memory), FormatBytes(fix.wanted),
                          FormatBytes(fix.budget));
  }
  return out;
}

}  // namespace millrace
