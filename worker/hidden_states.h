// HiddenStates: the residual stream on its way from one stage to the next.
#ifndef MILLRACE_WORKER_HIDDEN_STATES_H_
#define MILLRACE_WORKER_HIDDEN_STATES_H_

#include <functional>

#include "kernels/views.h"

namespace millrace {

class DeviceRows;  // worker/backend/cuda/device_rows.h

// The sender keeps the rows as they are until `taken` was called or the call they were given to has
// returned, whichever is first.
struct HiddenStates {
  HiddenStates() = default;
  HiddenStates(FloatView host) : rows(host) {}  // NOLINT: a host view is hidden states

  FloatView rows;                // [n, d_model] f32; empty for the first stage
  DeviceRows* device = nullptr;  // set: `rows` lie on that device, perhaps not computed yet
  // Called once by the receiving stage, on its thread, when it needs the rows no more: it has copied
  // them, or queued the copy where they lie on a device. May be empty.
  std::function<void()> taken;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_HIDDEN_STATES_H_
