// Non-owning views that ops take by value. Nothing here owns memory; the caller keeps it alive for
// the length of the call.
#ifndef MILLRACE_KERNELS_VIEWS_H_
#define MILLRACE_KERNELS_VIEWS_H_

#include <cstdint>

#include "proto/bytes.h"
#include "proto/dtype.h"

namespace millrace {

// Row-major float matrix, rows `stride` elements apart. Activations are always f32.
struct FloatView {
  float* data = nullptr;  // [rows, cols] f32
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // elements between rows, >= cols

  FloatView() = default;
  FloatView(float* d, int64_t r, int64_t c) : data(d), rows(r), cols(c), stride(c) {}
  FloatView(float* d, int64_t r, int64_t c, int64_t s) : data(d), rows(r), cols(c), stride(s) {}
  float* row(int64_t r) const { return data + r * stride; }
};

// Weights as they lie in the model file: `rows` rows of RowBytes(dtype, cols) each, without gaps, or
// some columns of wider rows. `data` may have any alignment.
struct WeightView {
  const void* data = nullptr;  // [rows, cols] dtype
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  Bytes row_stride{};  // from row to row; 0: no gaps

  Bytes stride() const { return row_stride > Bytes(0) ? row_stride : RowBytes(dtype, cols); }
};

}  // namespace millrace

#endif  // MILLRACE_KERNELS_VIEWS_H_
