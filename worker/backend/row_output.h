// What one row's logits come to, as its OutputRequest asks.
#ifndef MILLRACE_WORKER_BACKEND_ROW_OUTPUT_H_
#define MILLRACE_WORKER_BACKEND_ROW_OUTPUT_H_

#include "absl/types/span.h"
#include "worker/pass.h"

namespace millrace {

// logits: [vocab] f32.
RowOutput OutputOf(const OutputRequest& request, absl::Span<const float> logits);

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_ROW_OUTPUT_H_
