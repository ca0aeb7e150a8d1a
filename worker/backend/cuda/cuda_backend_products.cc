#include "worker/backend/cuda/cuda_backend_class.h"

#include "kernels/narrow_choice.h"
#include "kernels/norm_cuda.h"

namespace millrace {

// One of the two areas that norms alternate between.
cuda::DeferredNorm CudaBackend::NormRoom(int which) const {
  cuda::DeferredNorm norm;
  norm.sums = At(layout_.norms + static_cast<size_t>(which) * cuda::kDeferredNormBytes);
  norm.prescale = norm.sums + cuda::kDeferredNormRows * cuda::kDeferredNormParts;
  norm.d = model_.d_model;
  norm.epsilon = model_.norm_epsilon;
  return norm;
}

absl::Status CudaBackend::RmsNorm(FloatView hidden, const float* weight,
                                  const Activations& normed) {
  auto* out = static_cast<__half*>(normed.data);
  norm_ = {};
  // All that read these rows then take them packed.
  normed_packed_ =
      wide_ && hidden.rows >= cuda::kLeastNarrowRows && cuda::RmsNormPacks(hidden.cols);
  if (normed_packed_) {
    return cuda::RmsNormPacked(hidden.data, hidden.stride, weight, model_.norm_epsilon,
                               {out, hidden.rows, hidden.cols}, stream());
  }
  if (hidden.rows > cuda::kDeferredNormRows) {
    return cuda::RmsNormHalf(hidden.data, hidden.stride, nullptr, hidden.rows, hidden.cols, weight,
                             model_.norm_epsilon, out, stream());
  }
  norm_ = NormRoom(0);
  norm_.parts = 1;
  return cuda::RmsNormDeferred(hidden.data, hidden.stride, hidden.rows, weight, norm_, out,
                               stream());
}

cuda::MatmulInput CudaBackend::InputOf(const Activations& x) const {
  cuda::MatmulInput in;
  in.x = static_cast<const __half*>(x.data);
  in.ldx = x.stride;
  in.n = static_cast<int>(x.rows);
  if (x.data == At<void>(layout_.normed)) in.norm = norm_;
  return in;
}

WideRows CudaBackend::WideRowsOf(const Activations& x) const {
  const bool packed = (x.data == At<void>(layout_.normed) && normed_packed_) ||
                      (x.data == At<void>(layout_.act) && act_packed_);
  return {static_cast<const __half*>(x.data), x.rows, x.cols, x.stride, packed};
}

bool CudaBackend::UsesWide(const Activations& x, int64_t matrix_rows) const {
  return wide_ && (x.rows > kGpuSmallBatchTokens || WideRowsOf(x).packed ||
                   cuda::NarrowIsFaster(matrix_rows, x.rows, false));
}

absl::Status CudaBackend::Multiply(const Activations& x, WeightsId weights, bool accumulate,
                                   FloatView out) {
  if (UsesWide(x, out.cols)) {
    return wide_->Multiply(weights.value, WideRowsOf(x), accumulate, out.data, out.stride, stream());
  }
  if (x.rows > kGpuSmallBatchTokens) {
    return prefill_->Multiply(weights.value, static_cast<const __half*>(x.data), x.rows, x.stride,
                              accumulate, out.data, out.stride, stream());
  }
  float* column = out.data;
  cuda::MatmulInput in = InputOf(x);
  MILLRACE_ASSIGN_OR_RETURN(const WeightLease lease, Bring(weights.value, stream()));
  const std::vector<WeightRun>& runs = groups_[static_cast<size_t>(weights.value)].runs;
  in.leads = runs.size() > 1;
  for (const WeightRun& run : runs) {
    MILLRACE_RETURN_IF_ERROR(
        cuda::SmallMatmul(run.tiles, in, run.bias, accumulate, column, out.stride, stream()));
    column += run.tiles.rows;
    in.leads = false;
    in.follows = true;
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::AddMatmul(const Activations& x, WeightsId weights, FloatView hidden,
                                    const float* next_norm, const Activations& normed) {
  const PlacedGroup& group = groups_[static_cast<size_t>(weights.value)];
  const int rows = static_cast<int>(x.rows);
  const bool deferred = next_norm != nullptr && norm_.sums != nullptr && group.runs.size() == 1 &&
                        rows <= kGpuSmallBatchTokens && cuda::NormFits(group.runs[0].tiles, rows);
  if (!deferred) {
    MILLRACE_RETURN_IF_ERROR(Multiply(x, weights, true, hidden));
    return next_norm != nullptr ? RmsNorm(hidden, next_norm, normed) : absl::OkStatus();
  }
  MILLRACE_ASSIGN_OR_RETURN(const WeightLease lease, Bring(weights.value, stream()));
  const WeightRun& run = group.runs[0];
  cuda::NextNorm next;
  next.before = norm_;
  next.weight = next_norm;
  next.out = static_cast<__half*>(normed.data);
  next.ldo = normed.stride;
  next.after = NormRoom(norm_.sums == NormRoom(0).sums ? 1 : 0);
  MILLRACE_RETURN_IF_ERROR(cuda::SmallMatmulThenNorm(run.tiles, InputOf(x), run.bias, hidden.data,
                                                     hidden.stride, next, stream()));
  norm_ = next.after;
  return absl::OkStatus();
}

absl::Status CudaBackend::GatedMatmul(const Activations& x, WeightsId weights, FloatView gate_up,
                                      const Activations& out) {
  act_packed_ = false;
  if (x.rows > kGpuSmallBatchTokens) return GatedMany(x, weights, gate_up, out);
  const PlacedGroup& group = groups_[static_cast<size_t>(weights.value)];
  auto* to = static_cast<__half*>(out.data);
  if (UsesWide(x, group.rows) && wide_->TakesNarrowGated(weights.value)) {
    // Down reads them, and has as many rows as a hidden state has values.
    act_packed_ = cuda::NarrowIsFaster(model_.d_model, x.rows, true);
    if (!act_packed_) {
      return wide_->NarrowGatedMultiply(weights.value, WideRowsOf(x), to, out.stride, stream());
    }
    const cuda::PackedRows packed = {to, x.rows, group.part_rows[0]};
    return wide_->NarrowGatedMultiply(weights.value, WideRowsOf(x), packed, stream());
  }
  if (!WideRowsOf(x).packed && group.runs[0].tiles.dtype == group.runs.back().tiles.dtype) {
    MILLRACE_ASSIGN_OR_RETURN(const WeightLease lease, Bring(weights.value, stream()));
    const auto [gate, up] = GateAndUp(group);
    return cuda::SmallMatmulSwiGlu(gate, up, InputOf(x), to, out.stride, stream());
  }
  MILLRACE_RETURN_IF_ERROR(Matmul(x, weights, gate_up));
  return cuda::SwiGluHalf(gate_up.data, gate_up.stride, x.rows, group.part_rows[0], to, stream());
}

// More rows than the decode kernels take.
absl::Status CudaBackend::GatedMany(const Activations& x, WeightsId weights, FloatView gate_up,
                                    const Activations& out) {
  const int64_t d_ff = groups_[static_cast<size_t>(weights.value)].part_rows[0];
  auto* to = static_cast<__half*>(out.data);
  if (wide_ && wide_->TakesGated(weights.value, WideRowsOf(x))) {
    MILLRACE_RETURN_IF_ERROR(
        wide_->GatedMultiply(weights.value, WideRowsOf(x), {to, x.rows, d_ff}, stream()));
    act_packed_ = true;
    return absl::OkStatus();
  }
  if (!wide_ && d_ff % 8 == 0) {
    auto* halves = reinterpret_cast<__half*>(gate_up.data);
    MILLRACE_RETURN_IF_ERROR(prefill_->MultiplyToHalf(weights.value,
                                                      static_cast<const __half*>(x.data), x.rows,
                                                      x.stride, halves, 2 * d_ff, stream()));
    return cuda::SwiGluOfHalves(halves, 2 * d_ff, x.rows, d_ff, to, stream());
  }
  MILLRACE_RETURN_IF_ERROR(Matmul(x, weights, gate_up));
  return cuda::SwiGluHalf(gate_up.data, gate_up.stride, x.rows, d_ff, to, stream());
}

}  // namespace millrace
