// HostTensor: a tensor of the model file, as backends are given it.
#ifndef MILLRACE_WORKER_BACKEND_HOST_TENSOR_H_
#define MILLRACE_WORKER_BACKEND_HOST_TENSOR_H_

#include <cstddef>

#include "absl/types/span.h"
#include "proto/model_spec.h"

namespace millrace {

// A tensor of the model file: `bytes` outlives the backend.
struct HostTensor {
  const TensorSpec* spec = nullptr;
  absl::Span<const std::byte> bytes;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_HOST_TENSOR_H_
