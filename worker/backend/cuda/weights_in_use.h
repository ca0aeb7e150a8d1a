// WeightsInUse: as long as it lives, work that is queued finds a group's weights in device memory.
#ifndef MILLRACE_WORKER_BACKEND_CUDA_WEIGHTS_IN_USE_H_
#define MILLRACE_WORKER_BACKEND_CUDA_WEIGHTS_IN_USE_H_

#include "worker/stream/weight_stream.h"

namespace millrace {

// The lease of a streamed group; empty for a resident one.
using WeightsInUse = WeightLease;

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_CUDA_WEIGHTS_IN_USE_H_
