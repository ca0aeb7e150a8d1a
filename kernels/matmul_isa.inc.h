// Matmul's inner loops, written once on kernels/simd.h and compiled per instruction set. The file
// that includes this defines MILLRACE_MATMUL_KERNELS, the name of the function that returns the
// table.
//
// Quantised product of one row w and one row x, with value = s (u - offset) - m per sub-block, and
// x quantised in blocks as long as the sub-blocks:
//   sum_sub s * dx * dot(u, xq)  -  sum_sub (m + s * offset) * dx * sum(xq)
// The first sum is integer within a sub-block, the second uses the sums of x taken beforehand.

#include "kernels/matmul_float.inc.h"
#include "kernels/matmul_panel.inc.h"
#if defined(__AVX512VNNI__)
#include "kernels/matmul_vector_vnni.inc.h"
#else
#include "kernels/matmul_vector.inc.h"
#endif

namespace millrace {
namespace {

void Vector(const MatmulArgs& a, int64_t begin, int64_t end) {
  switch (a.dtype) {
#define CASE(T)  \
  case DType::T: \
    return VectorQuantized<DType::T>(a, begin, end);
    MILLRACE_FOR_QUANTIZED(CASE)
#undef CASE
#define CASE(T)  \
  case DType::T: \
    return VectorFloat<DType::T>(a, begin, end);
    MILLRACE_FOR_FLOAT(CASE)
#undef CASE
  }
}

void PanelDispatch(const MatmulArgs& a, int64_t begin, int64_t end, void* scratch) {
  switch (a.dtype) {
#define CASE(T)  \
  case DType::T: \
    return PanelQuantized<DType::T>(a, begin, end, scratch);
    MILLRACE_FOR_QUANTIZED(CASE)
#undef CASE
    default:
      return;  // float types have no panels
  }
}

void DequantizeDispatch(DType dtype, const void* row, int64_t cols, float* out) {
  const uint8_t* bytes = static_cast<const uint8_t*>(row);
  switch (dtype) {
#define CASE(T)  \
  case DType::T: \
    return DequantizeBlocks<DType::T>(bytes, cols, out);
    MILLRACE_FOR_QUANTIZED(CASE)
#undef CASE
#define CASE(T)  \
  case DType::T: \
    return WidenRow<DType::T>(bytes, cols, out);
    MILLRACE_FOR_FLOAT(CASE)
#undef CASE
  }
}

}  // namespace

const MatmulKernels& MILLRACE_MATMUL_KERNELS() {
  static constexpr MatmulKernels kKernels = {kLanes, QuantizeRow, Vector, PanelDispatch,
                                             DequantizeDispatch};
  return kKernels;
}

}  // namespace millrace
