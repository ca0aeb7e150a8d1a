// HostTensor: a tensor of the model file, as backends are given it.
#ifndef MILLRACE_WORKER_BACKEND_HOST_TENSOR_H_
#define MILLRACE_WORKER_BACKEND_HOST_TENSOR_H_

#include <cstddef>

#include "absl/types/span.h"
#include "proto/model_spec.h"

namespace millrace {

// A tensor of the model file, or some columns of one: `bytes`, from the first row's begin to the last
// one's end, outlives the backend (less where Backend::copies_weights), and so does `spec`.
struct HostTensor {
  const TensorSpec* spec = nullptr;
  absl::Span<const std::byte> bytes;
  Bytes row_stride{};  // from row to row where there are gaps between them; 0: none
  // Biased exponent of the largest magnitude of BF16 and F32 values, or a larger one, where it is known.
  int largest_exponent = -1;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_HOST_TENSOR_H_
