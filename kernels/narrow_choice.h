// Which kernel multiplies 17 to 64 rows of x, and how it is cut. Nothing here knows a device.
#ifndef MILLRACE_KERNELS_NARROW_CHOICE_H_
#define MILLRACE_KERNELS_NARROW_CHOICE_H_

#include <cstdint>

namespace millrace::cuda {

// From this many rows of x on the narrow kernel can win; up to sixteen the decode kernels do.
inline constexpr int64_t kLeastNarrowRows = 17;

// Whether the narrow kernel takes less than SmallMatmul for a matrix of so many rows. `packed`: x
// costs nothing to have packed; else that is a launch of its own, 2 to 3 microseconds. Microseconds
// on an H200, small kernel and narrow one as it is cut there:
//   gate and up [57344, 8192], q4_K: 17 rows 146, 116; 32: 149, 116; 64: 297, 145
//     q6_K 17: 184, 129; 32: 209, 128; 64: 307, 160
//   query, key, value [10240, 8192], q4_K: 17: 42, 32; 32: 43, 33; 64: 68, 47; q6_K 32: 52, 35
//   output [8192, 8192], q4_K: 17: 25, 23; 32: 26, 24; 64: 50, 27
//   down [8192, 28672], q4_K: 17: 75, 62; 32: 76, 62; 64: 131, 72; q6_K 32: 94, 67
//   head [128256, 8192], q6_K 32: 478, 263
constexpr bool NarrowIsFaster(int64_t rows, int64_t n, bool packed) {
  if (n < kLeastNarrowRows) return false;
  return packed || n > 32 || rows > 8192;
}

// What a product takes on `clusters` clusters, to be compared with the same product cut otherwise.
// `halves`: the blocks of a cluster divide the columns. In eighths of reading 64 weight rows: x
// adds one of them per block, two beyond 32 rows.
constexpr int64_t NarrowCost(int64_t units, int64_t n, int row_parts, bool halves, int clusters) {
  const int64_t rounds = (units + clusters - 1) / clusters;
  const int64_t block = 4 * row_parts + (n > 32 ? 2 : 1);
  return halves ? rounds * block : 2 * rounds * block;
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_NARROW_CHOICE_H_
