// What differs between two plans, as a value and as text.
#ifndef MILLRACE_PLANNER_PLAN_DIFF_H_
#define MILLRACE_PLANNER_PLAN_DIFF_H_

#include <string>
#include <vector>

#include "proto/placement_plan.h"

namespace millrace {

// A field as text: "context", "4096", "8192".
struct FieldChange {
  std::string field;
  std::string before, after;
};

// "budget", "used" of it, "ring without staging" (Stage::stream_ring), or a line of the ledger by
// its PurposeName. Zero where a plan has no such line.
struct BytesChange {
  WorkerId worker;
  std::string memory;
  std::string place;  // both, for people: "gpu0", "w1/RAM"
  std::string what;
  Bytes before, after;
};

// Blocks that changed in the same way, by name in the model's order.
struct BlockChange {
  std::vector<std::string> blocks;
  Bytes before_weights, after_weights;  // of them together
  std::string before, after;
};

// A predicted figure. `name` as in plan.proto, `label` for people.
struct PredictionChange {
  std::string name, label;
  double before = 0, after = 0;

  double difference() const { return after - before; }
  // Of `before`; 0 where that is zero or infinite.
  double percent() const;
};

// Every list is empty where nothing of its kind differs. Not compared is what says how a plan is
// written or served, not what it is: format version, epoch, addresses.
struct PlanDiff {
  bool other_model = false;           // the fingerprints differ; blocks are matched by name then
  std::vector<FieldChange> settings;  // model, fingerprint, context, slots, KV type, pass size, ...
  std::vector<FieldChange> stages;    // by number: "w/gpu0 embed .. blk.3.ffn", "none"
  std::vector<BytesChange> memory;
  std::vector<BlockChange> moved;   // weights that lie elsewhere, with their routes
  std::vector<BlockChange> routes;  // same place, computed otherwise
  std::vector<BlockChange> kv_caches;
  std::vector<BlockChange> held;  // same place, other types or sizes
  std::vector<PredictionChange> predictions;

  bool same() const;
};

PlanDiff ComparePlans(const PlacementPlan& before, const PlacementPlan& after);

// At most 100 columns wide unless a name is longer. "the plans are the same" where they are; a
// first line of its own where the models differ.
std::string RenderPlanDiff(const PlanDiff& diff);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PLAN_DIFF_H_
