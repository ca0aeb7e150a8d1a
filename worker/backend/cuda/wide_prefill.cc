#include "worker/backend/cuda/wide_prefill.h"

#include <algorithm>

#include "proto/status_macros.h"
#include "worker/backend/cuda/group_layout.h"

namespace millrace {
namespace {

std::vector<cuda::WideMatrix> MatricesOf(const PlacedGroup& group) {
  std::vector<cuda::WideMatrix> matrices;
  for (const WeightRun& run : group.runs) matrices.push_back({run.tiles, run.bias});
  return matrices;
}

// Two matrices of the same size without biases.
bool IsGated(const PlacedGroup& group) {
  return group.part_rows.size() == 2 && group.part_rows[0] == group.part_rows[1] &&
         group.runs[0].bias == nullptr && group.runs.back().bias == nullptr;
}

}  // namespace

int64_t WidePrefill::RowsAtOnce(int64_t cols) const {
  const int64_t atoms = size_.count() / cuda::PackedBytes(1, cols).count();
  // Whole tiles of rows where there is room for some.
  return atoms >= 32 ? atoms / 32 * 256 : atoms * 8;
}

absl::StatusOr<cuda::PackedRows> WidePrefill::Pack(const WideRows& x, cuda::StreamView stream) {
  // What is packed is only read.
  if (x.packed) return cuda::PackedRows{const_cast<__half*>(x.data), x.n, x.cols};
  const cuda::PackedRows packed = {room_, x.n, x.cols};
  MILLRACE_RETURN_IF_ERROR(cuda::PackRows(x.data, x.stride, packed, stream));
  return packed;
}

absl::Status WidePrefill::Multiply(int index, const WideRows& x, bool accumulate, float* out,
                                   int64_t ldo, cuda::StreamView stream) {
  MILLRACE_ASSIGN_OR_RETURN(const WeightLease lease, bring_(index, stream));
  const std::vector<cuda::WideMatrix> matrices = MatricesOf((*groups_)[static_cast<size_t>(index)]);
  const int64_t step = x.packed ? x.n : RowsAtOnce(x.cols);
  MILLRACE_CHECK(step > 0);
  WideRows some = x;
  for (int64_t row = 0; row < x.n; row += step) {
    some.n = std::min(step, x.n - row);
    MILLRACE_ASSIGN_OR_RETURN(const cuda::PackedRows packed, Pack(some, stream));
    MILLRACE_RETURN_IF_ERROR(
        cuda::WideMatmul(matrices, packed, accumulate, out + row * ldo, ldo, stream));
    some.data += step * x.stride;
  }
  return absl::OkStatus();
}

bool WidePrefill::TakesGated(int index, const WideRows& x) const {
  const PlacedGroup& group = (*groups_)[static_cast<size_t>(index)];
  return IsGated(group) && group.part_rows[0] % 32 == 0 &&
         cuda::WideSwiGluTakes(group.runs[0].tiles.dtype, group.runs.back().tiles.dtype) &&
         (x.packed || x.n <= RowsAtOnce(x.cols));
}

absl::Status WidePrefill::GatedMultiply(int index, const WideRows& x, const cuda::PackedRows& out,
                                        cuda::StreamView stream) {
  MILLRACE_ASSIGN_OR_RETURN(const WeightLease lease, bring_(index, stream));
  MILLRACE_ASSIGN_OR_RETURN(const cuda::PackedRows packed, Pack(x, stream));
  const auto [gate, up] = GateAndUp((*groups_)[static_cast<size_t>(index)]);
  return cuda::WideMatmulSwiGlu(gate, up, packed, out, stream);
}

bool WidePrefill::TakesNarrowGated(int index) const {
  const PlacedGroup& group = (*groups_)[static_cast<size_t>(index)];
  return IsGated(group) && group.part_rows[0] % 32 == 0 &&
         group.runs[0].tiles.dtype == group.runs.back().tiles.dtype;
}

absl::Status WidePrefill::NarrowGatedMultiply(int index, const WideRows& x,
                                              const cuda::PackedRows& out,
                                              cuda::StreamView stream) {
  MILLRACE_ASSIGN_OR_RETURN(const WeightLease lease, bring_(index, stream));
  MILLRACE_ASSIGN_OR_RETURN(const cuda::PackedRows packed, Pack(x, stream));
  const auto [gate, up] = GateAndUp((*groups_)[static_cast<size_t>(index)]);
  return cuda::NarrowMatmulSwiGlu(gate, up, packed, out, stream);
}

absl::Status WidePrefill::NarrowGatedMultiply(int index, const WideRows& x, __half* out,
                                              int64_t ldo, cuda::StreamView stream) {
  MILLRACE_ASSIGN_OR_RETURN(const WeightLease lease, bring_(index, stream));
  MILLRACE_ASSIGN_OR_RETURN(const cuda::PackedRows packed, Pack(x, stream));
  const auto [gate, up] = GateAndUp((*groups_)[static_cast<size_t>(index)]);
  return cuda::NarrowMatmulSwiGlu(gate, up, packed, out, ldo, stream);
}

}  // namespace millrace
