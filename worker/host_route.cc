#include "worker/host_route.h"

#include <algorithm>
#include <utility>

#include "proto/status_macros.h"

namespace millrace {

absl::StatusOr<std::unique_ptr<HostRoute>> HostRoute::Create(const Model& model, int max_tokens,
                                                             int threads) {
  BackendOptions options;
  options.max_pass_tokens = std::max(1, max_tokens);
  options.slots = 1;
  options.context = 1;
  options.threads = threads;
  MILLRACE_ASSIGN_OR_RETURN(auto backend, MakeCpuBackend(model.spec(), options));
  return std::unique_ptr<HostRoute>(new HostRoute(model, std::move(backend)));
}

absl::Status HostRoute::PlaceFeedForward(int layer) {
  MILLRACE_ASSIGN_OR_RETURN(layers_[layer],
                            millrace::PlaceFeedForward(*backend_, model_, layer, Home::kDevice));
  return absl::OkStatus();
}

absl::Status HostRoute::PlaceEmbedding() {
  return backend_->PlaceEmbedding(TensorOf(model_, TensorRole::kTokenEmbedding));
}

absl::Status HostRoute::FeedForward(const Pass& pass, int layer, FloatView hidden) {
  MILLRACE_RETURN_IF_ERROR(backend_->BeginPass(pass, {}, {}, {}));
  PassBuffers buffers = backend_->buffers();
  buffers.hidden = hidden;
  const FeedForwardWeights& weights = layers_.at(layer);
  MILLRACE_RETURN_IF_ERROR(backend_->RmsNorm(hidden, weights.norm, buffers.normed));
  return ForwardFeedForward(*backend_, model_.spec().layers[static_cast<size_t>(layer)], weights,
                            nullptr, buffers);
}

absl::Status HostRoute::Embed(const Pass& pass, FloatView out) {
  MILLRACE_RETURN_IF_ERROR(backend_->BeginPass(pass, {}, {}, {}));
  return backend_->Embed(out);
}

}  // namespace millrace
