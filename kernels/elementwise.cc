#include "kernels/elementwise.h"

#include <cmath>

#include "kernels/matmul.h"
#include "kernels/ops_dispatch.h"
#include "proto/status_macros.h"

namespace millrace {

void Embed(const CpuContext& ctx, const WeightView& table, absl::Span<const TokenId> tokens,
           FloatView out) {
  MILLRACE_CHECK(out.rows == static_cast<int64_t>(tokens.size()) && out.cols == table.cols);
  const int64_t row_bytes = RowBytes(table.dtype, table.cols).count();
  ctx.pool->ParallelFor(out.rows, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      MILLRACE_CHECK(tokens[r] >= 0 && tokens[r] < table.rows);
      DequantizeRow(table.dtype, static_cast<const char*>(table.data) + tokens[r] * row_bytes,
                    table.cols, out.row(r));
    }
  });
}

void SwiGlu(const CpuContext& ctx, FloatView gate, FloatView up) {
  MILLRACE_CHECK(gate.rows == up.rows && gate.cols == up.cols);
  const OpsKernels& kernels = OpsKernelsFor(ctx);
  ctx.pool->ParallelFor(gate.rows, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) kernels.swiglu_row(gate.row(r), up.row(r), gate.cols);
  });
}

void SwiGluReference(FloatView gate, FloatView up) {
  for (int64_t r = 0; r < gate.rows; ++r) {
    for (int64_t i = 0; i < gate.cols; ++i) {
      const double g = gate.row(r)[i];
      gate.row(r)[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * up.row(r)[i]);
    }
  }
}

}  // namespace millrace
