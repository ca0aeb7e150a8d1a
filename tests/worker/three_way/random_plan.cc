#include "tests/worker/three_way/random_plan.h"

#include <algorithm>
#include <climits>
#include <set>

#include "absl/strings/str_cat.h"
#include "proto/stored_types.h"
#include "proto/stream_layout.h"
#include "tests/fakes/plans.h"

namespace millrace {

namespace {

// The units of a feed-forward block that the CPU computes in some passes, whole blocks left out.
std::vector<int> CutsOf(const PlacementPlan& plan, const BlockPlacement& placement, int d_ff) {
  std::set<int> cuts = {CpuWorkOf(placement).Units(plan.max_pass_tokens, d_ff)};
  for (const CpuShare& share : placement.cpu_shares) {
    cuts.insert(CpuWorkOf(placement).Units(std::min(share.max_tokens, plan.max_pass_tokens), d_ff));
  }
  cuts.erase(d_ff);
  return {cuts.begin(), cuts.end()};
}

// Shares at random for host-homed feed-forward blocks.
void SplitBlocks(std::mt19937_64& rng, const ModelSpec& model, PlacementPlan& plan) {
  const auto random = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(rng);
  };
  const std::vector<Block> blocks = BlocksOf(model);
  for (BlockPlacement& placement : plan.blocks) {
    const Block& block = blocks[static_cast<size_t>(placement.block)];
    if (placement.home != Home::kHost || block.kind != BlockKind::kFeedForward) continue;
    const int d_ff = model.layers[static_cast<size_t>(block.layer)].d_ff;
    int tokens = placement.host_route_max_tokens;
    for (const int limit : {1, 2, 7, 20, 64, plan.max_pass_tokens}) {
      if (limit <= tokens || random(1, 3) == 1) continue;
      tokens = limit;
      const int units = kUnitGrain * static_cast<int>(random(0, d_ff / kUnitGrain));
      placement.cpu_shares.push_back({tokens, units});
    }
  }
}

}  // namespace

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
    placement.stored_types = StoredTypesOf(model, blocks[b]);
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
    std::vector<int> cuts = {0};
    if (block.kind == BlockKind::kFeedForward) {
      cuts = CutsOf(plan, placement, model.layers[static_cast<size_t>(block.layer)].d_ff);
    }
    for (const int cut : cuts) {
      for (const StreamedGroup& group : StreamedGroupsOf(model, block, cut)) {
        bounds.least = std::max(bounds.least, group.tiled);
        if (cut == cuts.front()) bounds.all += group.tiled;
      }
    }
  }
  return bounds;
}

void MoveToHost(std::mt19937_64& rng, const ModelSpec& model, PlacementPlan& plan, bool disk,
                bool split) {
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
  if (split) SplitBlocks(rng, model, plan);
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
    return b.home == Home::kHost && b.block > 0 && CpuWorkOf(b).LargestPass(INT_MAX) > 0;
  });
}

bool HasSplitBlocks(const PlacementPlan& plan) {
  return std::any_of(plan.blocks.begin(), plan.blocks.end(),
                     [](const BlockPlacement& b) { return !b.cpu_shares.empty(); });
}

std::string Describe(const PlacementPlan& plan) {
  std::string text = absl::StrCat("pass ", plan.max_pass_tokens, ", slots ", plan.slots, ", KV ",
                                  Info(plan.kv_type).name, ":");
  for (const BlockPlacement& b : plan.blocks) {
    if (b.kv_home == Home::kHost) absl::StrAppend(&text, " ", b.name, "(cache)");
    if (b.home == Home::kDevice) continue;
    absl::StrAppend(&text, " ", b.name, b.home == Home::kDisk ? "(disk)" : "");
    if (b.host_route_max_tokens > 0) absl::StrAppend(&text, "(", b.host_route_max_tokens, ")");
    for (const CpuShare& share : b.cpu_shares) {
      absl::StrAppend(&text, "[", share.max_tokens, ":", share.units, "]");
    }
  }
  for (const Stage& s : plan.stages) {
    absl::StrAppend(&text, "; ", s.device.value(), " from block ", s.first_block, ", ring ",
                    s.stream_ring.count());
  }
  return text;
}

}  // namespace millrace
