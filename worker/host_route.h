// HostRoute: the CPU's part of a GPU stage. It computes feed-forward blocks whose weights are in host
// memory, straight from the file's pages, on rows that the device has sent over.
#ifndef MILLRACE_WORKER_HOST_ROUTE_H_
#define MILLRACE_WORKER_HOST_ROUTE_H_

#include <map>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "worker/backend/backend.h"
#include "worker/decoder_block.h"
#include "worker/model/model.h"
#include "worker/pass.h"

namespace millrace {

// Belongs to its stage's thread. The model outlives it.
class HostRoute {
 public:
  // For passes of up to `max_tokens`; 0: only Embed is called, with any number. threads: 0 =
  // UsableThreads().
  static absl::StatusOr<std::unique_ptr<HostRoute>> Create(const Model& model, int max_tokens,
                                                           int threads);

  absl::Status PlaceFeedForward(int layer);
  // The layer's first `units`, to be computed by FeedForwardPart; a second time for the same does nothing.
  absl::Status PlacePart(int layer, int units);
  absl::Status PlaceEmbedding();

  // hidden [n, d_model] f32 += the layer's feed-forward half, n = the pass's tokens.
  absl::Status FeedForward(const Pass& pass, int layer, FloatView hidden);
  // What the layer's first `units` add to `hidden` [n, d_model] f32, which is only read, to `out`
  // [n, d_model] f32.
  absl::Status FeedForwardPart(const Pass& pass, int layer, int units, FloatView hidden,
                               FloatView out);
  // The pass's tokens to `out` [n, d_model] f32.
  absl::Status Embed(const Pass& pass, FloatView out);

  Bytes activation_bytes() const { return backend_->activation_bytes(); }

 private:
  HostRoute(const Model& model, std::unique_ptr<Backend> backend)
      : model_(model), backend_(std::move(backend)) {}

  const Model& model_;
  TensorSlices slices_{TensorSlices::Use::kHost};
  std::unique_ptr<Backend> backend_;
  std::map<int, FeedForwardWeights> layers_;
  std::map<int, const float*> norms_;  // of layers with parts
  std::map<std::pair<int, int>, FeedForwardWeights> parts_;  // by layer and units
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_HOST_ROUTE_H_
