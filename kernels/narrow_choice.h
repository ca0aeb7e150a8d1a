// Which kernel multiplies 17 to 64 rows of x, and how it is cut. Nothing here knows a device.
#ifndef MILLRACE_KERNELS_NARROW_CHOICE_H_
#define MILLRACE_KERNELS_NARROW_CHOICE_H_

#include <cstdint>

namespace millrace::cuda {

// From this many rows of x on the narrow kernel can win; up to sixteen the decode kernels do.
inline constexpr int64_t kLeastNarrowRows = 17;

// Whether the narrow kernel takes less than SmallMatmul for a matrix of so many rows. `packed`: x
// costs nothing to have packed; else that is a launch of its own. Microseconds on an H200, small
// kernel and narrow one as it was before blocks halved columns and four row tiles shared x:
//   gate and up [57344, 8192], q4_K: 17 rows 144, 121; 32: 147, 123; 48: 263, 173; 64: 295, 179
//     q6_K 32: 207, 134; q8_0 32: 226, 160; f16 32: 242, 240; f16 64: 464, 243
//   query, key, value [10240, 8192], q4_K 32: 43, 37; 64: 70, 46; q6_K 32: 52, 40
//   output [8192, 8192], q4_K 32: 25, 31; 64: 51, 44
//   down [8192, 28672], q4_K 32: 75, 86; 64: 131, 142
constexpr bool NarrowIsFaster(int64_t rows, int64_t n, bool packed) {
  if (n < kLeastNarrowRows) return false;
  return n > 32 || rows > (packed ? 8192 : 16384);
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
