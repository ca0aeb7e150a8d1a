// StageRunner: runs one stage (a contiguous run of blocks on one device) of a pass.
#ifndef MILLRACE_WORKER_STAGE_RUNNER_H_
#define MILLRACE_WORKER_STAGE_RUNNER_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/bytes.h"
#include "proto/placement_plan.h"
#include "worker/hidden_states.h"
#include "worker/link/stage_link.h"
#include "worker/model/model.h"
#include "worker/pass.h"

namespace millrace {

class Backend;
struct BackendOptions;
using BackendFactory = std::function<absl::StatusOr<std::unique_ptr<Backend>>(
    const ModelSpec& model, const BackendOptions& options)>;

struct StageOptions {
  int threads = 0;      // CPU threads; 0 = UsableThreads()
  Bytes memory_budget;  // refuse to load past this (ResourceExhausted); 0 = no limit
  // Called while weights fault in; may be null.
  std::function<void(Bytes done, Bytes total)> on_load_progress;
  // Makes the backend of a GPU stage in CUDA's place; the pages of weights in host memory are then
  // brought in and not locked. Empty: CUDA.
  BackendFactory make_gpu_backend;
};

// Created, called and destroyed by the one thread that owns its device (stage_thread.h); a stage
// alone may be created by one thread and used by another afterwards. Holds the stage's weights (views of the Model), KV
// cache and activation arena.
class StageRunner {
 public:
  // FailedPrecondition: plan and model differ (fingerprint, dimensions), named.
  // ResourceExhausted: memory. `next` is null for the last stage.
  static absl::StatusOr<std::unique_ptr<StageRunner>> Create(std::shared_ptr<const Model> model,
                                                             const PlacementPlan& plan, int stage,
                                                             std::unique_ptr<StageLink> next,
                                                             const StageOptions& options);
  virtual ~StageRunner() = default;

  // `hidden` [n, d_model] f32 from the stage before; empty for the first stage, which embeds
  // pass.tokens. Returns the last stage's result. Validates the pass (token range, slots, positions
  // within the context, rows): InvalidArgument names what is wrong. DeadlineExceeded / Unavailable
  // come from the link. A pass without outputs may still be computed on a device after it returned;
  // what comes later waits for it there.
  virtual absl::StatusOr<PassResult> Run(const Pass& pass, const HiddenStates& hidden,
                                         absl::Time deadline) = 0;

  // Any thread: makes a Run that waits for the next stage return Cancelled.
  virtual void Cancel() = 0;

  // Whether Run takes hidden states that lie on a device.
  virtual bool takes_device_rows() const { return false; }
  virtual int stage() const = 0;
  virtual Bytes resident_bytes() const = 0;  // weights + KV + activations as allocated
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STAGE_RUNNER_H_
