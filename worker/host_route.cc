#include "worker/host_route.h"

#include <algorithm>
#include <utility>

#include "proto/status_macros.h"

namespace millrace {
namespace {

// Longer than what the GPU takes between two blocks of the CPU.
constexpr absl::Duration kLinger = absl::Milliseconds(2);

}  // namespace

absl::StatusOr<std::unique_ptr<HostRoute>> HostRoute::Create(const Model& model, int max_tokens,
                                                             int threads) {
  BackendOptions options;
  options.max_pass_tokens = std::max(1, max_tokens);
  options.slots = 1;
  options.context = 1;
  options.threads = threads;
  options.pool_linger = kLinger;
  MILLRACE_ASSIGN_OR_RETURN(auto backend, MakeCpuBackend(model.spec(), options));
  return std::unique_ptr<HostRoute>(new HostRoute(model, std::move(backend)));
}

absl::Status HostRoute::PlaceFeedForward(int layer) {
  MILLRACE_ASSIGN_OR_RETURN(layers_[layer],
                            millrace::PlaceFeedForward(*backend_, model_, layer, Home::kDevice));
  return absl::OkStatus();
}

absl::Status HostRoute::PlacePart(int layer, int units) {
  if (parts_.contains({layer, units})) return absl::OkStatus();
  if (!norms_.contains(layer)) {
    MILLRACE_ASSIGN_OR_RETURN(
        norms_[layer], backend_->PlaceVector(TensorOf(model_, TensorRole::kFfnNorm, layer)));
  }
  MILLRACE_ASSIGN_OR_RETURN(const FeedForwardWeights part,
                            PlaceUnits(*backend_, model_, layer, Home::kDevice, {0, units},
                                       norms_[layer], slices_));
  parts_[{layer, units}] = part;
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
  return ForwardFeedForward(*backend_, weights, nullptr, buffers);
}

absl::Status HostRoute::FeedForwardPart(const Pass& pass, int layer, int units, FloatView hidden,
                                        FloatView out) {
  MILLRACE_RETURN_IF_ERROR(backend_->BeginPass(pass, {}, {}, {}));
  const PassBuffers buffers = backend_->buffers();
  const FeedForwardWeights& weights = parts_.at({layer, units});
  MILLRACE_RETURN_IF_ERROR(backend_->RmsNorm(hidden, weights.norm, buffers.normed));
  return FeedForwardOnly(*backend_, weights, buffers, out);
}

absl::Status HostRoute::Embed(const Pass& pass, FloatView out) {
  MILLRACE_RETURN_IF_ERROR(backend_->BeginPass(pass, {}, {}, {}));
  return backend_->Embed(out);
}

}  // namespace millrace
