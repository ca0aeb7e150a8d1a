// Pass and PassResult to and from the messages of the stage link. Hidden states travel beside them
// in chunks (worker/link/hidden_chunks in this header): f32, row-major, little-endian.
#ifndef MILLRACE_WORKER_LINK_PASS_MESSAGES_H_
#define MILLRACE_WORKER_LINK_PASS_MESSAGES_H_

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/views.h"
#include "millrace/v1/worker.pb.h"
#include "worker/pass.h"

namespace millrace {

// `timeout`: what is left of the pass's deadline.
v1::PassHeader ToProto(const Pass& pass, FloatView hidden, absl::Duration timeout);
// Checks what the message alone can tell: counts and kinds. The stage runner validates tokens,
// slots and positions against the model.
absl::StatusOr<Pass> FromProto(const v1::PassHeader& header);

// Calls `send` with pieces of at most kChunkBytes that make up `hidden` in order; stops at the
// first error.
absl::Status ForEachChunk(FloatView hidden,
                          absl::FunctionRef<absl::Status(absl::string_view)> send);

// Collects chunks into [rows, cols] f32.
class HiddenAssembler {
 public:
  // InvalidArgument when the shape is negative or above `max_elements`.
  absl::Status Start(int64_t rows, int64_t cols, int64_t max_elements);
  absl::Status Add(absl::string_view chunk);
  bool complete() const { return filled_ == buffer_.size() * sizeof(float); }
  FloatView view() { return FloatView(buffer_.data(), rows_, cols_); }

 private:
  std::vector<float> buffer_;  // [rows, cols] f32
  int64_t rows_ = 0, cols_ = 0;
  size_t filled_ = 0;  // bytes
};

// Cuts a result into messages well under the limit: whole rows while they fit, long rows of logits
// over several parts.
absl::Status ForEachPart(const PassResult& result,
                         absl::FunctionRef<absl::Status(const v1::PassResultPart&)> send);

// Puts parts together again. True when the last part is in.
class ResultAssembler {
 public:
  explicit ResultAssembler(size_t outputs) { result_.outputs.resize(outputs); }
  absl::StatusOr<bool> Add(const v1::PassResultPart& part);
  PassResult Take() { return std::move(result_); }

 private:
  PassResult result_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_LINK_PASS_MESSAGES_H_
