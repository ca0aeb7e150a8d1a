#include "worker/kv_cache.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"

namespace millrace {

absl::StatusOr<KvCache> KvCache::Create(Backend& backend, const ModelSpec& model,
                                        const std::vector<int>& layers, const KvShape& shape) {
  KvCache cache;
  cache.views_.resize(model.layers.size());
  const DTypeInfo& info = Info(shape.dtype);
  if (shape.dtype != DType::kF32 && shape.dtype != DType::kF16 && shape.dtype != DType::kBF16 &&
      shape.dtype != DType::kQ8_0) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV cache type ", info.name, ": use f32, f16, bf16 or q8_0"));
  }
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
  if (total == Bytes(0)) return cache;
  MILLRACE_ASSIGN_OR_RETURN(cache.memory_, backend.Allocate(total, "KV cache"));
  std::byte* at = cache.memory_->data();
  for (int layer : layers) {
    const LayerSpec& l = model.layers[layer];
    const int64_t half = KvCacheBytes(l, shape.dtype, shape.context, shape.slots).count() / 2;
    cache.views_[layer] = {at,          at + half,  shape.dtype, shape.slots, shape.context,
                           l.kv_heads, l.head_dim};
    at += 2 * half;
  }
  return cache;
}

const KvView& KvCache::layer(int layer) const {
  MILLRACE_CHECK(views_[layer].k != nullptr);
  return views_[layer];
}

}  // namespace millrace
