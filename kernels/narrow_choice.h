// Which kernel multiplies 17 to 64 rows of x, and how it is cut. Nothing here knows a device.
#ifndef MILLRACE_KERNELS_NARROW_CHOICE_H_
#define MILLRACE_KERNELS_NARROW_CHOICE_H_

#include <cstdint>

#include "proto/dtype.h"

namespace millrace::cuda {

// Whether the two blocks of a cluster have the same weight rows, each half of their columns; else
// different rows. With few rows a block, x is what a block reads most of.
constexpr bool NarrowHalves(int row_parts, bool swiglu) { return row_parts < 4 && !swiglu; }

// What a product takes on `clusters` clusters, to be compared with the same product cut otherwise.
// In eighths of reading 64 weight rows: x adds one of them per block, two beyond 32 rows.
constexpr int64_t NarrowCost(int64_t units, int64_t n, int row_parts, bool swiglu, int clusters) {
  const int64_t rounds = (units + clusters - 1) / clusters;
  const int64_t block = 4 * row_parts + (n > 32 ? 2 : 1);
  return NarrowHalves(row_parts, swiglu) ? rounds * block : 2 * rounds * block;
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_NARROW_CHOICE_H_
