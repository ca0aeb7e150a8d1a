// TensorSlices: some rows of a matrix, or some columns of all rows, as matrices of their own that lie in
// the whole one's bytes.
#ifndef MILLRACE_WORKER_TENSOR_SLICES_H_
#define MILLRACE_WORKER_TENSOR_SLICES_H_

#include <cstdint>
#include <deque>

#include "proto/model_spec.h"
#include "worker/backend/host_tensor.h"

namespace millrace {

// Holds the specs of the slices it has made, which are good while it lives.
class TensorSlices {
 public:
  // [begin, end) of a matrix without gaps, not empty. Columns in whole blocks of its type.
  HostTensor Rows(const HostTensor& matrix, int64_t begin, int64_t end);
  HostTensor Columns(const HostTensor& matrix, int64_t begin, int64_t end);

 private:
  const TensorSpec* SpecOf(const HostTensor& matrix, int64_t rows, int64_t cols);

  std::deque<TensorSpec> specs_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_TENSOR_SLICES_H_
