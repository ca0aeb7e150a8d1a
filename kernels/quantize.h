// Quantising: rows of F32, F16 or BF16 into the blocks of GGUF's formats (kernels/quant_blocks.h).
//
// The same input gives the same bytes on every machine and with any number of threads.
//
// What is minimised in a block: sum of w[i] (x[i] - y[i])^2, y the value that the block stands for.
//   Q8_0: no search. d = max |x| / 127, codes x / d rounded to the nearest, ties away from zero:
//   the
//         formula that the format is published with.
//   K types: w[i] = rms(x) + |x[i]|, for a large weight moves a product more than a small one.
//   Scales
//         (and minima) of a sub-block: weighted least squares for fixed codes and nearest codes for
//         fixed scales, in turn, from several starts. Then the block's f16 scales and the
//         sub-blocks' integer ones the same way. Values that some block of the type stands for
//         exactly, with its largest integer scale (and minimum) in use, are found again.
#ifndef MILLRACE_KERNELS_QUANTIZE_H_
#define MILLRACE_KERNELS_QUANTIZE_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/thread_pool.h"
#include "kernels/views.h"
#include "proto/stored_types.h"

namespace millrace {

// Writes from's rows as rows of RowBytes(to, cols) each, without gaps. `from` may have any
// alignment, `to` is one of kQuantizeTypes and from.cols a multiple of its block (CHECKed, as is
// the source's type). InvalidArgument names `tensor` and the row: a value that is no finite number,
// or so large that the type's f16 scales cannot hold it. Magnitudes below f16's become coarser and
// at last zero.
absl::Status Quantize(const WeightView& from, DType to, absl::string_view tensor, void* out,
                      ThreadPool& pool);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_QUANTIZE_H_
