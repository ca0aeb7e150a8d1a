#include "tests/worker/three_way/random_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/stream_layout.h"
#include "tests/fakes/plans.h"

namespace millrace {

PlacementPlan ResidentPlan(const ModelSpec& model, const Script& script, DType kv_type,
                           const std::vector<int>& cuts, const std::vector<std::string>& devices) {
  PlacementPlan plan =
      PlanWithCuts(model, cuts, script.context, script.slots, kv_type, script.max_pass_tokens);
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    plan.stages[s].device = DeviceId(devices[s]);
    plan.stages[s].device_kind = DeviceKind::kGpu;
  }
  const std::vector<Block> blocks = BlocksOf(model);
  for (size_t b = 0; b < blocks.size(); ++b) {
    BlockPlacement placement;
    placement.block = static_cast<int>(b);
    placement.name = BlockName(blocks[b]);
    while (plan.stages[static_cast<size_t>(placement.stage)].end_block <= placement.block) {
      ++placement.stage;
    }
    plan.blocks.push_back(placement);
  }
  return plan;
}

bool Streams(const PlacementPlan& plan, const Block& block, const BlockPlacement& placement) {
  if (placement.home == Home::kDevice || block.kind == BlockKind::kEmbedding) return false;
  return block.kind != BlockKind::kFeedForward ||
         placement.host_route_max_tokens < plan.max_pass_tokens;
}

RingBounds RingOf(const ModelSpec& model, const PlacementPlan& plan, int stage) {
  RingBounds bounds;
  const std::vector<Block> blocks = BlocksOf(model);
  for (const BlockPlacement& placement : plan.blocks) {
    const Block& block = blocks[static_cast<size_t>(placement.block)];
    if (placement.stage != stage || !Streams(plan, block, placement)) continue;
    for (const StreamedGroup& group : StreamedGroupsOf(model, block)) {
      bounds.least = std::max(bounds.least, group.tiled);
      bounds.all += group.tiled;
    }
  }
  return bounds;
}

void MoveToHost(std::mt19937_64& rng, const ModelSpec& model, PlacementPlan& plan, bool disk) {
  const auto random = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(rng);
  };
  const int64_t share = random(1, 10);  // of ten blocks
  const int routes[] = {0, 1, 2, 7, 64, plan.max_pass_tokens};
  const std::vector<Block> blocks = BlocksOf(model);
  const bool caches = random(1, 3) == 1;
  for (BlockPlacement& placement : plan.blocks) {
    const bool attends = blocks[static_cast<size_t>(placement.block)].kind == BlockKind::kAttention;
    if (caches && attends && random(1, 2) == 1) placement.kv_home = Home::kHost;
    if (random(1, 10) > share) continue;
    placement.home = Home::kHost;
    // Some of what streams anyhow from the model's file: not a table, nor a head that shares it.
    const BlockKind kind = blocks[static_cast<size_t>(placement.block)].kind;
    const bool layer = kind == BlockKind::kAttention || kind == BlockKind::kFeedForward;
    if (disk && layer && random(1, 4) == 1) {
      placement.home = Home::kDisk;
      continue;
    }
    if (blocks[static_cast<size_t>(placement.block)].kind != BlockKind::kFeedForward) continue;
    placement.host_route_max_tokens =
        std::min(routes[random(0, std::ssize(routes) - 1)], plan.max_pass_tokens);
  }
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    const RingBounds bounds = RingOf(model, plan, static_cast<int>(s));
    Bytes ring = bounds.least;
    if (random(0, 2) == 1) ring += Bytes(256 * random(0, 64));
    if (random(0, 2) == 1) ring += Bytes(random(0, 2 * bounds.all.count()) / 256 * 256);
    if (bounds.least > Bytes(0)) plan.stages[s].stream_ring = ring;
  }
}

bool HasCpuBlocks(const PlacementPlan& plan) {
  return std::any_of(plan.blocks.begin(), plan.blocks.end(), [](const BlockPlacement& b) {
    return b.home == Home::kHost && b.host_route_max_tokens > 0;
  });
}

std::string Describe(const PlacementPlan& plan) {
  std::string text = absl::StrCat("pass ", plan.max_pass_tokens, ", slots ", plan.slots, ", KV ",
                                  Info(plan.kv_type).name, ":");
  for (const BlockPlacement& b : plan.blocks) {
    if (b.kv_home == Home::kHost) absl::StrAppend(&text, " ", b.name, "(cache)");
    if (b.home == Home::kDevice) continue;
    absl::StrAppend(&text, " ", b.name, b.home == Home::kDisk ? "(disk)" : "");
    if (b.host_route_max_tokens > 0) absl::StrAppend(&text, "(", b.host_route_max_tokens, ")");
  }
  for (const Stage& s : plan.stages) {
    absl::StrAppend(&text, "; ", s.device.value(), " from block ", s.first_block, ", ring ",
                    s.stream_ring.count());
  }
  return text;
}

}  // namespace millrace
