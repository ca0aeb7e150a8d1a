// ConvertedTensors: the tensors of a stage that its plan holds in other types than the model
// file's, quantised into memory of the stage's own.
#ifndef MILLRACE_WORKER_WEIGHTS_CONVERTED_TENSORS_H_
#define MILLRACE_WORKER_WEIGHTS_CONVERTED_TENSORS_H_

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/thread_pool.h"
#include "proto/placement_plan.h"
#include "worker/model/model.h"

namespace millrace {

// Belongs to one thread while stages are loaded; what it has converted may then be read by any.
// Bytes of its model's converted tensors live as long as this.
class ConvertedTensors {
 public:
  // InvalidArgument as HeldModel. Without types the model is `file` itself.
  static absl::StatusOr<std::unique_ptr<ConvertedTensors>> Create(
      std::shared_ptr<const Model> file, absl::Span<const StoredType> types, int threads);

  // The model as it is held. TensorBytes of a tensor that is not converted yet, or not any more, is
  // empty.
  const std::shared_ptr<const Model>& model() const { return held_; }

  // Converts those of the tensors (indices) that are to be and have not been, all into one piece of
  // memory, and lets go of the file's pages. `progress` gets the bytes made, tensor by tensor.
  // ResourceExhausted, or InvalidArgument as of Quantize.
  absl::Status Convert(const std::vector<int>& tensors, const std::function<void(Bytes)>& progress);
  // Gives the memory of converted tensors back; they may be converted again.
  void Drop(const std::vector<int>& tensors);
  // Ends the threads: nothing more is converted soon.
  void Finish() { pool_.reset(); }

 private:
  class Reader;

  explicit ConvertedTensors(int threads) : threads_(threads) {}

  const int threads_;
  std::unique_ptr<ThreadPool> pool_;  // null until something is converted
  std::shared_ptr<const Model> file_, held_;
  std::map<int, std::shared_ptr<Reader>> readers_;  // by tensor
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_WEIGHTS_CONVERTED_TENSORS_H_
