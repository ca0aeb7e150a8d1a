// From the names that files give tensors to the roles that millrace knows.
#ifndef MILLRACE_WORKER_MODEL_TENSOR_NAMES_H_
#define MILLRACE_WORKER_MODEL_TENSOR_NAMES_H_

#include <string>

#include "absl/strings/string_view.h"
#include "proto/model_spec.h"

namespace millrace {

enum class TensorNaming : uint8_t { kGguf, kHuggingFace };

struct TensorKey {
  enum class Kind : uint8_t {
    kKnown,    // role and layer are set
    kIgnored,  // known to be of no consequence (a stored rotary table)
    kRefused,  // would change the result if left out: experts, biases we do not apply
    kUnknown,  // nobody's: left alone
  };
  Kind kind = Kind::kUnknown;
  TensorRole role{};
  int layer = -1;
};

// "blk.3.attn_q.weight" or "model.layers.3.self_attn.q_proj.weight" -> {kKnown, kAttnQ, 3}.
TensorKey ParseTensorName(TensorNaming naming, absl::string_view name);

// The name that a tensor of `role` has in files of `naming`.
std::string TensorName(TensorNaming naming, TensorRole role, int layer = -1);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_TENSOR_NAMES_H_
