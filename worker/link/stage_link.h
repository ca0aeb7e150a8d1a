// StageLink: the seam between a stage and the next one.
#ifndef MILLRACE_WORKER_LINK_STAGE_LINK_H_
#define MILLRACE_WORKER_LINK_STAGE_LINK_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/hidden_states.h"
#include "worker/pass.h"

namespace millrace {

// Contract:
// 1. Forward hands a pass and its hidden states [n, d_model] f32 to the next stage and returns what
//    the last stage made of them. It blocks the caller for that pass, at most until `deadline`.
//    The caller may overwrite pass and hidden states when it returns.
// 2. Unavailable: the peer is gone or did not answer in time, the message names it.
//    FailedPrecondition: it runs another plan (epoch). The link stays usable only if the peer does.
// 3. Cancel may be called from any thread: a Forward under way returns Cancelled soon.
// 4. Forward is called by one thread at a time (the stage's owner).
// 5. Hidden states that lie on a device are given only where takes_device_rows() says so.
class StageLink {
 public:
  virtual ~StageLink() = default;
  virtual absl::StatusOr<PassResult> Forward(const Pass& pass, const HiddenStates& hidden,
                                             absl::Time deadline) = 0;
  // The next stage computes in this process, on a device that can copy from other devices.
  virtual bool takes_device_rows() const { return false; }
  virtual void Cancel() = 0;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_LINK_STAGE_LINK_H_
