#include "planner/home_counts.h"

namespace millrace {
namespace {

void Add(const PlacementPlan& plan, const Stage& stage, HomeCounts& counts) {
  for (int b = stage.first_block; b < stage.end_block; ++b) {
    const BlockPlacement& p = plan.blocks[b];
    BlockCount* count = &counts.streamed;
    const bool split = !p.cpu_shares.empty() && p.cpu_shares.front().units > 0;
    if (stage.device_kind == DeviceKind::kCpu) {
      count = &counts.cpu;
    } else if (p.home == Home::kDevice) {
      count = &counts.resident;
    } else if (b == 0) {
      counts.table_in_ram = true;
      count = nullptr;
    } else if (p.home == Home::kDisk) {
      count = &counts.disk;
    } else if (p.host_route_max_tokens > 0) {
      count = &counts.cpu;
    } else if (split) {
      count = &counts.split;
    }
    counts.caches_in_ram += p.kv_home == Home::kHost;
    if (count == nullptr) continue;
    ++count->blocks;
    count->weights += p.weights;
  }
}

}  // namespace

HomeCounts CountHomes(const PlacementPlan& plan, const Stage& stage) {
  HomeCounts counts;
  Add(plan, stage, counts);
  return counts;
}

HomeCounts CountHomes(const PlacementPlan& plan) {
  HomeCounts counts;
  for (const Stage& stage : plan.stages) Add(plan, stage, counts);
  return counts;
}

}  // namespace millrace
