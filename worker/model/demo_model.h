// The demo model, linked into the binary: deploy/models/quill-7m-f16.gguf.
#ifndef MILLRACE_WORKER_MODEL_DEMO_MODEL_H_
#define MILLRACE_WORKER_MODEL_DEMO_MODEL_H_

#include <cstddef>

#include "absl/types/span.h"

namespace millrace {

// The whole GGUF file, page-aligned, valid for the life of the process.
absl::Span<const std::byte> DemoModelBytes();

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_DEMO_MODEL_H_
