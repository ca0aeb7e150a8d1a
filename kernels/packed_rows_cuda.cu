#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/packed_place.cuh"
#include "kernels/packed_rows_cuda.h"
#include "proto/status_macros.h"

namespace millrace::cuda {
namespace {

constexpr int kThreads = 256, kRows = kThreads / 8;

// A thread writes a piece: four pairs of one row, eight columns apart.
__global__ void __launch_bounds__(kThreads)
    PackKernel(const __half* x, int64_t ldx, int n, int atoms, int cols, uint8_t* out) {
  LetNextStart();
  const int row = static_cast<int>(blockIdx.x) * kRows + static_cast<int>(threadIdx.x) / 8;
  const int piece = static_cast<int>(threadIdx.x) % 8;
  const int column = static_cast<int>(blockIdx.y) * 64 + piece / 4 * 32 + piece % 4 * 2;
  WaitForPrevious();
  if (row >= 8 * atoms) return;
  uint32_t v[4] = {0, 0, 0, 0};
  if (row < n && column < cols) {
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      v[t] = *reinterpret_cast<const uint32_t*>(x + row * ldx + column + 8 * t);
    }
  }
  *reinterpret_cast<uint4*>(out + PackedPlace(atoms, row, column)) =
      make_uint4(v[0], v[1], v[2], v[3]);
}

}  // namespace

absl::Status PackRows(const __half* x, int64_t ldx, const PackedRows& out, StreamView stream) {
  MILLRACE_CHECK(out.n > 0 && out.cols > 0 && out.cols % 32 == 0 && ldx % 8 == 0 &&
                 ldx >= out.cols);
  const dim3 grid(static_cast<unsigned>((out.n + kRows - 1) / kRows),
                  static_cast<unsigned>((out.cols + 63) / 64));
  return Launch(PackKernel, grid, kThreads, 0, stream, x, ldx, static_cast<int>(out.n),
                static_cast<int>(PackedAtoms(out.n)), static_cast<int>(out.cols),
                reinterpret_cast<uint8_t*>(out.data));
}

}  // namespace millrace::cuda
