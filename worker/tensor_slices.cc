#include "worker/tensor_slices.h"

#include <utility>

#include "proto/status_macros.h"
#include "worker/backend/cuda/group_layout.h"

namespace millrace {

HostTensor TensorSlices::SliceOf(const HostTensor& matrix, int64_t rows, int64_t cols) {
  MILLRACE_CHECK(matrix.spec->shape.size() == 2 && matrix.row_stride == Bytes(0));
  MILLRACE_CHECK(rows > 0 && cols > 0);
  TensorSpec spec = *matrix.spec;
  spec.shape = {rows, cols};
  spec.size = RowBytes(spec.dtype, cols) * rows;
  specs_.push_back(std::move(spec));
  HostTensor slice = {&specs_.back(), {}};
  if (use_ == Use::kDevice) {
    const auto [known, added] = exponents_.try_emplace(matrix.bytes.data(), 0);
    if (added) known->second = LargestExponent(matrix);
    slice.largest_exponent = known->second;
  }
  return slice;
}

HostTensor TensorSlices::Rows(const HostTensor& matrix, int64_t begin, int64_t end) {
  MILLRACE_CHECK(begin >= 0 && end <= matrix.spec->rows());
  const int64_t cols = matrix.spec->cols();
  const int64_t row = RowBytes(matrix.spec->dtype, cols).count();
  HostTensor slice = SliceOf(matrix, end - begin, cols);
  slice.bytes = matrix.bytes.subspan(static_cast<size_t>(begin * row),
                                     static_cast<size_t>((end - begin) * row));
  return slice;
}

HostTensor TensorSlices::Columns(const HostTensor& matrix, int64_t begin, int64_t end) {
  const TensorSpec& whole = *matrix.spec;
  MILLRACE_CHECK(begin >= 0 && end <= whole.cols());
  const Bytes stride = RowBytes(whole.dtype, whole.cols());
  const Bytes skip = RowBytes(whole.dtype, begin), row = RowBytes(whole.dtype, end - begin);
  const Bytes length = stride * (whole.rows() - 1) + row;
  HostTensor slice = SliceOf(matrix, whole.rows(), end - begin);
  slice.bytes = matrix.bytes.subspan(static_cast<size_t>(skip.count()),
                                     static_cast<size_t>(length.count()));
  if (row < stride) slice.row_stride = stride;
  return slice;
}

}  // namespace millrace
