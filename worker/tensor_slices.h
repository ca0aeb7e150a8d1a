// TensorSlices: some rows of a matrix, or some columns of all rows, as matrices of their own that lie in
// the whole one's bytes.
#ifndef MILLRACE_WORKER_TENSOR_SLICES_H_
#define MILLRACE_WORKER_TENSOR_SLICES_H_

#include <cstdint>
#include <deque>
#include <map>

#include "proto/model_spec.h"
#include "worker/backend/host_tensor.h"

namespace millrace {

// Holds the specs of the slices it has made, which are good while it lives.
class TensorSlices {
 public:
  // kDevice: slices become tiles, with the whole matrix's multiplier, for which that is read once.
  enum class Use { kHost, kDevice };
  explicit TensorSlices(Use use) : use_(use) {}

  // [begin, end) of a matrix without gaps, not empty. Columns in whole blocks of its type.
  HostTensor Rows(const HostTensor& matrix, int64_t begin, int64_t end);
  HostTensor Columns(const HostTensor& matrix, int64_t begin, int64_t end);

 private:
  // A slice of that shape whose bytes are for the caller to fill in.
  HostTensor SliceOf(const HostTensor& matrix, int64_t rows, int64_t cols);

  const Use use_;
  std::deque<TensorSpec> specs_;
  std::map<const std::byte*, int> exponents_;  // of whole matrices, by their bytes
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_TENSOR_SLICES_H_
