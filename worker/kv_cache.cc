#include "worker/kv_cache.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"

namespace millrace {

namespace {

absl::StatusOr<Bytes> SizeOf(const ModelSpec& model, const std::vector<int>& layers,
                             const KvShape& shape) {
  const DTypeInfo& info = Info(shape.dtype);
  Bytes total;
  for (int layer : layers) {
    const LayerSpec& l = model.layers[layer];
    if (l.head_dim % info.block_elements != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("KV cache type ", info.name, " needs head sizes that are a multiple of ",
                       info.block_elements, ", layer ", layer, " has ", l.head_dim,
                       ": use f16, bf16 or f32"));
    }
    total += KvCacheBytes(l, shape.dtype, shape.context, shape.slots);
  }
  return total;
}

}  // namespace

absl::StatusOr<KvCache> KvCache::Create(Backend& backend, const ModelSpec& model,
                                        const std::vector<int>& layers,
                                        const std::vector<int>& on_host, const KvShape& shape) {
  if (shape.dtype != DType::kF32 && shape.dtype != DType::kF16 && shape.dtype != DType::kBF16 &&
      shape.dtype != DType::kQ8_0) {
    return absl::InvalidArgumentError(absl::StrCat("KV cache type ", Info(shape.dtype).name,
                                                   ": use f32, f16, bf16 or q8_0"));
  }
  KvCache cache;
  cache.views_.resize(model.layers.size());
  MILLRACE_ASSIGN_OR_RETURN(const Bytes here, SizeOf(model, layers, shape));
  MILLRACE_ASSIGN_OR_RETURN(const Bytes there, SizeOf(model, on_host, shape));
  if (here > Bytes(0)) {
    MILLRACE_ASSIGN_OR_RETURN(cache.memory_, backend.Allocate(here, "KV cache"));
    cache.View(model, layers, shape, *cache.memory_);
  }
  if (there > Bytes(0)) {
    MILLRACE_ASSIGN_OR_RETURN(cache.host_memory_,
                              backend.AllocateOnHost(there, "KV cache in host memory"));
    cache.View(model, on_host, shape, *cache.host_memory_);
  }
  return cache;
}

void KvCache::View(const ModelSpec& model, const std::vector<int>& layers, const KvShape& shape,
                   const DeviceMemory& memory) {
  std::byte* at = memory.data();
  for (int layer : layers) {
    const LayerSpec& l = model.layers[layer];
    const int64_t half = KvCacheBytes(l, shape.dtype, shape.context, shape.slots).count() / 2;
    views_[layer] = {at,         at + half,  shape.dtype, shape.slots, shape.context,
                     l.kv_heads, l.head_dim};
    at += 2 * half;
  }
}

const KvView& KvCache::layer(int layer) const {
  MILLRACE_CHECK(views_[layer].k != nullptr);
  return views_[layer];
}

}  // namespace millrace
