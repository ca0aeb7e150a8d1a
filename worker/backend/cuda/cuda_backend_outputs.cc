#include "worker/backend/cuda/cuda_backend_class.h"

#include <algorithm>

#include "kernels/cuda/host_copy.h"
#include "kernels/norm_cuda.h"
#include "worker/backend/row_output.h"
#include "worker/sampler.h"

namespace millrace {

absl::Status CudaBackend::Head(const float* norm, WeightsId head, int first, int count) {
  if (!outputs_written_) {
    // Later rounds of a pass with many outputs: the kernels that read the earlier ones are done.
    WriteOutputs(*pass_, first, count, meta(), pinned_meta(), to_host_);
    MILLRACE_RETURN_IF_ERROR(
        cuda::CopyByKernel(Meta<std::byte>(0), pinned_meta(), SizeOf(meta().bytes), stream()));
  }
  const Activations rows = {At<void>(layout_.logit_rows), count, model_.d_model, model_.d_model};
  MILLRACE_RETURN_IF_ERROR(cuda::RmsNormHalf(
      At(layout_.hidden), model_.d_model, Meta<int32_t>(meta().output_rows), count, model_.d_model,
      norm, model_.norm_epsilon, static_cast<__half*>(rows.data), stream()));
  MILLRACE_RETURN_IF_ERROR(
      Matmul(rows, head, FloatView(At(layout_.logits), count, model_.vocab)));
  auto* results = At<cuda::SampleResult>(layout_.sampling);
  void* workspace = At<void>(layout_.sampling + kMaxGpuHeadRows * sizeof(cuda::SampleResult));
  MILLRACE_RETURN_IF_ERROR(cuda::SampleRows(
      At(layout_.logits), count, model_.vocab, Meta<cuda::SampleRequest>(meta().requests),
      Meta<int32_t>(meta().recent), workspace, results, stream()));
  return cuda::CopyAsync(this->results(), results,
                   SizeOf(static_cast<size_t>(count) * sizeof(cuda::SampleResult)), stream());
}

// Output first + i, which stands in row i of the logits.
absl::StatusOr<RowOutput> CudaBackend::OutputAt(int first, int i) {
  const OutputRequest& request = pass_->outputs[static_cast<size_t>(first + i)];
  if (to_host_[static_cast<size_t>(i)]) {
    std::vector<float> logits(static_cast<size_t>(model_.vocab));
    MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(logits.data(), At(layout_.logits) + i * model_.vocab,
                                       SizeOf(logits.size() * sizeof(float)), stream()));
    MILLRACE_RETURN_IF_ERROR(stream().Wait(kPassTimeout));
    return OutputOf(request, logits);
  }
  const cuda::SampleResult& result = results()[i];
  RowOutput out;
  if (request.kind == OutputRequest::Kind::kLogProb) {
    out.log_prob = static_cast<float>(result.target_logit - result.log_sum_exp);
    return out;
  }
  const Sampled sampled = SampleFromCandidates(
      absl::MakeSpan(result.best, static_cast<size_t>(result.count)), result.log_sum_exp,
      request.sampling, request.sample_index);
  out.token = sampled.token;
  out.log_prob = sampled.log_prob;
  return out;
}

absl::StatusOr<std::vector<RowOutput>> CudaBackend::Collect(int first, int count) {
  MILLRACE_RETURN_IF_ERROR(stream().Wait(kPassTimeout));
  std::vector<RowOutput> out;
  for (int i = 0; i < count; ++i) {
    MILLRACE_ASSIGN_OR_RETURN(RowOutput row, OutputAt(first, i));
    out.push_back(std::move(row));
  }
  outputs_written_ = false;
  return out;
}

}  // namespace millrace
