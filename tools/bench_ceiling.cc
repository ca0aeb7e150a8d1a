#include "tools/bench_ceiling.h"

#include <vector>

#include "absl/time/time.h"
#include "proto/stored_types.h"

namespace millrace {
namespace {

const DeviceSpec* FindDevice(const HostSpec& host, const Stage& stage) {
  for (const DeviceSpec& device : host.devices) {
    if (device.id == stage.device) return &device;
  }
  return nullptr;
}

}  // namespace

double DecodeCeiling(const ModelSpec& model, const PlacementPlan& plan, const HostSpec& host,
                     int batch, int context) {
  const std::vector<Block> blocks =
      BlocksOf(HeldModel(model, StoredTypesOf(plan)).value_or(model));
  absl::Duration pass;
  for (const Stage& stage : plan.stages) {
    const DeviceSpec* device = FindDevice(host, stage);
    if (device == nullptr) return 0;
    Bytes bytes;
    for (int b = stage.first_block; b < stage.end_block; ++b) {
      if (blocks[b].kind != BlockKind::kEmbedding) bytes += blocks[b].weights;
      if (blocks[b].kind != BlockKind::kAttention) continue;
      bytes += KvBytesPerToken(model.layers[blocks[b].layer], plan.kv_type) * context * batch;
    }
    if (bytes > Bytes(0)) pass += bytes / device->memory_bandwidth;
  }
  if (pass <= absl::ZeroDuration() || pass == absl::InfiniteDuration()) return 0;
  return batch / absl::ToDoubleSeconds(pass);
}

double PrefillCeiling(const ModelSpec& model, const PlacementPlan& plan, const HostSpec& host) {
  const std::vector<Block> blocks = BlocksOf(model);
  double seconds = 0;  // per token
  for (const Stage& stage : plan.stages) {
    const DeviceSpec* device = FindDevice(host, stage);
    if (device == nullptr || device->prefill_flops <= 0) return 0;
    int64_t weights = 0;
    for (int b = stage.first_block; b < stage.end_block; ++b) {
      if (blocks[b].layer < 0) continue;
      for (int t : blocks[b].tensors) weights += model.tensors[t].rows() * model.tensors[t].cols();
    }
    seconds += 2.0 * static_cast<double>(weights) / device->prefill_flops;
  }
  return seconds > 0 ? 1 / seconds : 0;
}

}  // namespace millrace
