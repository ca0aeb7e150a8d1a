// A plan written by hand: one worker, a GPU with the memory beside it.
#ifndef MILLRACE_TESTS_PLANNER_HAND_MADE_PLAN_H_
#define MILLRACE_TESTS_PLANNER_HAND_MADE_PLAN_H_

#include <string>

#include "absl/strings/str_cat.h"
#include "proto/placement_plan.h"

namespace millrace {

inline void AddBlock(PlacementPlan& plan, const std::string& name, Bytes weights) {
  BlockPlacement block;
  block.block = static_cast<int>(plan.blocks.size());
  block.name = name;
  block.weights = weights;
  block.precision = "q4_K";
  plan.blocks.push_back(block);
}

// Embedding (10 MiB), layers of an attention half of 20 MiB and a feed-forward half of 40 MiB, head
// (30 MiB), all on gpu0 of 2 GiB.
inline PlacementPlan ResidentPlan(int layers) {
  PlacementPlan plan;
  plan.model = "m.gguf";
  plan.model_fingerprint = "0123456789abcdef";
  plan.context = 4096;
  AddBlock(plan, "embed", 10_MiB);
  for (int i = 0; i < layers; ++i) {
    AddBlock(plan, absl::StrCat("blk.", i, ".attn"), 20_MiB);
    AddBlock(plan, absl::StrCat("blk.", i, ".ffn"), 40_MiB);
  }
  AddBlock(plan, "head", 30_MiB);
  const WorkerId w("w");
  const Bytes weights = 40_MiB + layers * 60_MiB;
  plan.stages = {{w, DeviceId("gpu0"), DeviceKind::kGpu, "", 0,
                  static_cast<int>(plan.blocks.size()), Bytes(0)}};
  plan.ledger = {{w, "gpu0", Purpose::kWeights, weights},
                 {w, "gpu0", Purpose::kKvCache, 64_MiB},
                 {w, "gpu0", Purpose::kActivations, 32_MiB},
                 {w, "gpu0", Purpose::kOverhead, 16_MiB}};
  plan.totals = {{w, "gpu0", 2_GiB, weights + 112_MiB}};
  plan.predicted.decode_tokens_per_second = 100;
  plan.predicted.time_per_token = absl::Milliseconds(10);
  plan.predicted.ttft = absl::Milliseconds(50);
  plan.predicted.prompt_tokens = 512;
  plan.predicted.stage_time_per_token = {absl::Milliseconds(10)};
  plan.binding_constraint = "memory of gpu0";
  return plan;
}

// The feed-forward halves of layers [first, end) go to host memory, by the CPU up to 32 tokens; a
// ring of 80 MiB takes some of the room.
inline PlacementPlan Spilled(PlacementPlan plan, int first, int end) {
  const Bytes moved = (end - first) * 40_MiB;
  for (int i = first; i < end; ++i) {
    BlockPlacement& block = plan.blocks[static_cast<size_t>(2 + 2 * i)];
    block.home = Home::kHost;
    block.host_route_max_tokens = 32;
  }
  const WorkerId w("w");
  plan.stages[0].stream_ring = 80_MiB;
  plan.ledger[0].bytes -= moved;
  plan.ledger.push_back({w, "gpu0", Purpose::kStreamRing, 84_MiB});
  plan.ledger.push_back({w, "host", Purpose::kWeights, moved});
  plan.totals[0].used += 84_MiB - moved;
  plan.totals.push_back({w, "host", 8_GiB, moved});
  return plan;
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_PLANNER_HAND_MADE_PLAN_H_
