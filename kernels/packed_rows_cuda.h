// Activations as the wide products read them (kernels/wide_matmul_cuda.h).
//
// For each 64 columns, rows in atoms of eight: 128 bytes each, the sixteen-byte pieces of row r in
// the order of their number XOR r, which is how the tensor cores read shared memory. Columns of
// each 32 stand in the order of the weights' fragments (weight_tiles.h): place 8q + 2t + i holds
// column 8t + 2q + i.
#ifndef MILLRACE_KERNELS_PACKED_ROWS_CUDA_H_
#define MILLRACE_KERNELS_PACKED_ROWS_CUDA_H_

#include <cuda_fp16.h>

#include "absl/status/status.h"
#include "kernels/cuda/stream.h"
#include "proto/bytes.h"

namespace millrace::cuda {

// Columns past `cols` are zeros; rows that fill up the last atom hold anything.
struct PackedRows {
  __half* data = nullptr;  // 16-byte aligned, PackedBytes(n, cols)
  int64_t n = 0;
  int64_t cols = 0;  // a multiple of 32
};

inline int64_t PackedAtoms(int64_t n) { return (n + 7) / 8; }
inline Bytes PackedBytes(int64_t n, int64_t cols) {
  return Bytes((cols + 63) / 64 * PackedAtoms(n) * 1024);
}

// x: [out.n, out.cols] f16, rows ldx halves apart, 16-byte aligned, ldx a multiple of 8.
// Asynchronous.
absl::Status PackRows(const __half* x, int64_t ldx, const PackedRows& out, StreamView stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_PACKED_ROWS_CUDA_H_
