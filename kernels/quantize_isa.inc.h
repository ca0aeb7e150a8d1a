// The quantisers of K types, compiled per instruction set: the same bytes from all of them, for
// lanes and the order of sums are fixed and products are never fused. The file that includes this
// defines MILLRACE_QUANTIZE_KERNELS, the function that returns the table.
#include "kernels/quantize_k.h"
#include "kernels/quantize_q45_k.inc.h"
#include "kernels/quantize_q6_k.inc.h"

namespace millrace {

const QuantizeKernels& MILLRACE_QUANTIZE_KERNELS() {
  static constexpr QuantizeKernels kKernels = {QuantizeQ4K, QuantizeQ5K, QuantizeQ6K};
  return kKernels;
}

}  // namespace millrace
