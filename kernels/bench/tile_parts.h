// Where the time of products on tile registers goes, part by part.
#ifndef MILLRACE_KERNELS_BENCH_TILE_PARTS_H_
#define MILLRACE_KERNELS_BENCH_TILE_PARTS_H_

#include <vector>

#include "absl/types/span.h"
#include "kernels/cpu_context.h"
#include "kernels/views.h"

namespace millrace {

// What one thread does in a nanosecond, alone and with all threads at work: dependent additions
// (the clock in GHz) and multiply-adds of 512 bits (where threads share a core, half as many).
void PrintCoreRates(ThreadPool& pool);

// Prints for these matrices of one type and n = x.rows (at most 256) the nanoseconds that a thread
// takes for 256 weights: 32 rows that lie in its cache, by one thread and by all of them, unpacked
// only, multiplied only (256 columns, and all), both; packing of x, spread over the same weights;
// and whole products of all matrices from memory for several shapes and ways of prefetch, with GB/s
// and Tera-op/s. `y` holds n rows of the tallest matrix, `x` has the columns of the widest. Without
// tile registers only what needs none.
void MeasureParts(const CpuContext& context, FloatView x, float* y,
                  absl::Span<const WeightView> matrices);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_BENCH_TILE_PARTS_H_
