// KvCache: the K and V rows of every attention block of one stage, all sequences' slots.
#ifndef MILLRACE_WORKER_KV_CACHE_H_
#define MILLRACE_WORKER_KV_CACHE_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/attention.h"
#include "proto/model_spec.h"
#include "worker/backend/backend.h"

namespace millrace {

struct KvShape {
  int slots = 1;
  int context = 0;  // tokens per slot
  DType dtype = DType::kF16;
};

// Belongs to its stage's thread. One allocation for each memory; pages of unused context are not
// resident on a CPU.
class KvCache {
 public:
  // `layers`: the layers whose attention half the stage holds; `on_host`: those of a device that
  // has theirs in host memory. InvalidArgument when the type cannot hold the head size (q8_0 wants
  // a multiple of 32).
  static absl::StatusOr<KvCache> Create(Backend& backend, const ModelSpec& model,
                                        const std::vector<int>& layers,
                                        const std::vector<int>& on_host, const KvShape& shape);

  const KvView& layer(int layer) const;
  Bytes size() const { return memory_ ? memory_->size() : Bytes(0); }  // on the device

 private:
  // Of the layers, one after the other from `memory` on.
  void View(const ModelSpec& model, const std::vector<int>& layers, const KvShape& shape,
            const DeviceMemory& memory);

  std::vector<KvView> views_;  // by layer of the model; empty views where the stage has none
  std::unique_ptr<DeviceMemory> memory_, host_memory_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_KV_CACHE_H_
