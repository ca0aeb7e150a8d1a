#include "worker/backend/row_output.h"

#include "worker/sampler.h"

namespace millrace {

RowOutput OutputOf(const OutputRequest& request, absl::Span<const float> logits) {
  RowOutput out;
  switch (request.kind) {
    case OutputRequest::Kind::kLogits:
      out.logits.assign(logits.begin(), logits.end());
      break;
    case OutputRequest::Kind::kLogProb:
      out.log_prob = static_cast<float>(LogProbability(logits, request.target));
      break;
    case OutputRequest::Kind::kSample: {
      const Sampled s = Sample(logits, request.sampling, request.recent, request.sample_index);
      out.token = s.token;
      out.log_prob = s.log_prob;
      break;
    }
  }
  return out;
}

}  // namespace millrace
