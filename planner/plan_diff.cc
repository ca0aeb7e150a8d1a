#include "planner/plan_diff.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "planner/plan_words.h"

namespace millrace {
namespace {

void CompareField(const std::string& field, const std::string& before, const std::string& after,
                  std::vector<FieldChange>& changes) {
  if (before != after) changes.push_back({field, before, after});
}

void CompareSettings(const PlacementPlan& a, const PlacementPlan& b, PlanDiff& diff) {
  auto field = [&](const char* name, const std::string& before, const std::string& after) {
    CompareField(name, before, after, diff.settings);
  };
  field("model", ModelText(a), ModelText(b));
  field("model fingerprint", a.model_fingerprint, b.model_fingerprint);
  field("context", absl::StrCat(a.context), absl::StrCat(b.context));
  field("slots", absl::StrCat(a.slots), absl::StrCat(b.slots));
  field("KV cache type", std::string(DTypeName(a.kv_type)), std::string(DTypeName(b.kv_type)));
  field("pass size", absl::StrCat(a.max_pass_tokens), absl::StrCat(b.max_pass_tokens));
  field("objective", ObjectiveText(a.objective), ObjectiveText(b.objective));
  field("predicted for a prompt of", absl::StrCat(a.predicted.prompt_tokens),
        absl::StrCat(b.predicted.prompt_tokens));
  field("predicted for sequences together", absl::StrCat(a.predicted.decode_batch),
        absl::StrCat(b.predicted.decode_batch));
  field("limited by", a.binding_constraint, b.binding_constraint);
}

std::string StageText(const PlacementPlan& plan, size_t i, const PlaceNames& names) {
  if (i >= plan.stages.size()) return "none";
  const Stage& s = plan.stages[i];
  return absl::StrCat(names.Memory(s.worker, s.device.value()), " ", StageBlocksText(plan, s));
}

void CompareStages(const PlacementPlan& a, const PlacementPlan& b, const PlaceNames& names,
                   PlanDiff& diff) {
  for (size_t i = 0; i < std::max(a.stages.size(), b.stages.size()); ++i) {
    CompareField(absl::StrCat("stage ", i), StageText(a, i, names), StageText(b, i, names),
                 diff.stages);
  }
}

// Lines of both plans by worker, memory and purpose, in the order in which they first come.
class MemoryLines {
 public:
  explicit MemoryLines(const PlaceNames& names) : names_(names) {}

  void Add(const WorkerId& worker, const std::string& memory, const std::string& what, Bytes bytes,
           bool after) {
    const auto [it, fresh] = index_.try_emplace({worker.value(), memory, what}, lines_.size());
    if (fresh) lines_.push_back({worker, memory, names_.Memory(worker, memory), what, {}, {}});
    BytesChange& line = lines_[it->second];
    (after ? line.after : line.before) += bytes;
  }

  void AddPlan(const PlacementPlan& plan, bool after) {
    for (const LedgerTotal& t : plan.totals) {
      Add(t.worker, t.memory, "budget", t.budget, after);
      Add(t.worker, t.memory, "used", t.used, after);
    }
    for (const LedgerEntry& e : plan.ledger) {
      Add(e.worker, e.memory, std::string(PurposeName(e.purpose)), e.bytes, after);
    }
    for (const Stage& s : plan.stages) {
      Add(s.worker, s.device.value(), "ring without staging", s.stream_ring, after);
    }
  }

  // Those that differ, memory by memory.
  std::vector<BytesChange> Changes() const {
    std::vector<std::pair<WorkerId, std::string>> memories;
    for (const BytesChange& line : lines_) {
      const std::pair memory(line.worker, line.memory);
      if (std::find(memories.begin(), memories.end(), memory) == memories.end()) {
        memories.push_back(memory);
      }
    }
    std::vector<BytesChange> changes;
    for (const auto& [worker, memory] : memories) {
      for (const BytesChange& line : lines_) {
        if (line.before == line.after || line.worker != worker || line.memory != memory) continue;
        changes.push_back(line);
      }
    }
    return changes;
  }

 private:
  const PlaceNames& names_;
  std::vector<BytesChange> lines_;
  std::map<std::tuple<std::string, std::string, std::string>, size_t> index_;
};

// Joins blocks that change from the same to the same.
void AddBlock(const BlockPlacement* a, const BlockPlacement* b, const std::string& before,
              const std::string& after, std::vector<BlockChange>& changes) {
  auto it = std::find_if(changes.begin(), changes.end(), [&](const BlockChange& c) {
    return c.before == before && c.after == after;
  });
  if (it == changes.end()) {
    changes.push_back({{}, Bytes(0), Bytes(0), before, after});
    it = changes.end() - 1;
  }
  it->blocks.push_back(a != nullptr ? a->name : b->name);
  if (a != nullptr) it->before_weights += a->weights;
  if (b != nullptr) it->after_weights += b->weights;
}

std::string JoinWords(const std::string& home, const std::string& route) {
  return route.empty() ? home : absl::StrCat(home, ", ", route);
}

void CompareBlock(const PlacementPlan& a, const BlockPlacement& x, const PlacementPlan& b,
                  const BlockPlacement& y, const PlaceNames& names, PlanDiff& diff) {
  const std::string home_a = names.Home(a, x), home_b = names.Home(b, y);
  const std::string route_a = names.Route(a, x), route_b = names.Route(b, y);
  if (home_a != home_b || x.home != y.home) {
    AddBlock(&x, &y, JoinWords(home_a, route_a), JoinWords(home_b, route_b), diff.moved);
  } else if (route_a != route_b) {
    AddBlock(&x, &y, route_a.empty() ? "on its device" : route_a,
             route_b.empty() ? "on its device" : route_b, diff.routes);
  }
  if (x.kv_home != y.kv_home) {
    AddBlock(&x, &y, names.KvHome(a, x), names.KvHome(b, y), diff.kv_caches);
  }
  if (x.precision != y.precision) {
    AddBlock(&x, &y, x.precision, y.precision, diff.held);
  } else if (x.weights != y.weights && home_a == home_b) {
    AddBlock(&x, &y, FormatBytes(x.weights), FormatBytes(y.weights), diff.held);
  }
}

void CompareBlocks(const PlacementPlan& a, const PlacementPlan& b, const PlaceNames& names,
                   PlanDiff& diff) {
  std::map<std::string, const BlockPlacement*> of_a, of_b;
  for (const BlockPlacement& block : a.blocks) of_a.emplace(block.name, &block);
  for (const BlockPlacement& block : b.blocks) of_b.emplace(block.name, &block);
  for (const BlockPlacement& x : a.blocks) {
    const auto y = of_b.find(x.name);
    if (y != of_b.end()) {
      CompareBlock(a, x, b, *y->second, names, diff);
    } else {
      AddBlock(&x, nullptr, JoinWords(names.Home(a, x), names.Route(a, x)), "none", diff.moved);
    }
  }
  for (const BlockPlacement& y : b.blocks) {
    if (of_a.contains(y.name)) continue;
    AddBlock(nullptr, &y, "none", JoinWords(names.Home(b, y), names.Route(b, y)), diff.moved);
  }
}

void ComparePrediction(const std::string& name, const std::string& label, double before,
                       double after, PlanDiff& diff) {
  const bool equal = before == after || (std::isnan(before) && std::isnan(after));
  if (!equal) diff.predictions.push_back({name, label, before, after});
}

// By where a stage runs; 0 where a plan has none there.
void CompareStageTimes(const PlacementPlan& a, const PlacementPlan& b, const PlaceNames& names,
                       PlanDiff& diff) {
  std::map<std::string, std::pair<double, double>> times;
  auto add = [&](const PlacementPlan& plan, bool after) {
    const auto& stage_times = plan.predicted.stage_time_per_token;
    for (size_t i = 0; i < std::min(plan.stages.size(), stage_times.size()); ++i) {
      const Stage& s = plan.stages[i];
      auto& time = times[names.Memory(s.worker, s.device.value())];
      (after ? time.second : time.first) += absl::ToDoubleMilliseconds(stage_times[i]);
    }
  };
  add(a, false);
  add(b, true);
  for (const auto& [place, time] : times) {
    ComparePrediction(absl::StrCat("stage_time_per_token_ms.", place),
                      absl::StrCat("ms a token on ", place), time.first, time.second, diff);
  }
}

void ComparePredictions(const PlacementPlan& a, const PlacementPlan& b, const PlaceNames& names,
                        PlanDiff& diff) {
  const Prediction &p = a.predicted, &q = b.predicted;
  auto rate = [&](const char* name, const char* label, double before, double after) {
    ComparePrediction(name, label, before, after, diff);
  };
  auto time = [&](const char* name, const char* label, absl::Duration before,
                  absl::Duration after) {
    rate(name, label, absl::ToDoubleMilliseconds(before), absl::ToDoubleMilliseconds(after));
  };
  rate("decode_tokens_per_second", "tokens/s", p.decode_tokens_per_second,
       q.decode_tokens_per_second);
  time("time_per_token_ms", "ms a token", p.time_per_token, q.time_per_token);
  time("ttft_ms", "ms to the first token", p.ttft, q.ttft);
  rate("prefill_tokens_per_second", "prompt tokens/s", p.prefill_tokens_per_second,
       q.prefill_tokens_per_second);
  rate("batch_tokens_per_second", "tokens/s of all sequences", p.batch_tokens_per_second,
       q.batch_tokens_per_second);
  if (a.objective == b.objective && a.objective != Objective{}) {
    time("objective_ms", "ms a round of the objective", p.objective_time, q.objective_time);
  }
  CompareStageTimes(a, b, names, diff);
  time("hop_time_per_token_ms", "ms a token on links", p.hop_time_per_token, q.hop_time_per_token);
}

}  // namespace

double PredictionChange::percent() const {
  const double percent = 100 * difference() / before;
  return std::isfinite(percent) ? percent : 0;
}

bool PlanDiff::same() const {
  return !other_model && settings.empty() && stages.empty() && memory.empty() && moved.empty() &&
         routes.empty() && kv_caches.empty() && held.empty() && predictions.empty();
}

PlanDiff ComparePlans(const PlacementPlan& before, const PlacementPlan& after) {
  PlanDiff diff;
  diff.other_model = before.model_fingerprint != after.model_fingerprint;
  const PlaceNames names({&before, &after});
  CompareSettings(before, after, diff);
  CompareStages(before, after, names, diff);
  MemoryLines lines(names);
  lines.AddPlan(before, false);
  lines.AddPlan(after, true);
  diff.memory = lines.Changes();
  CompareBlocks(before, after, names, diff);
  ComparePredictions(before, after, names, diff);
  return diff;
}

}  // namespace millrace
