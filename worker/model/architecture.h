// What millrace knows of each architecture, and the check of a model's tensors against its
// dimensions. To add an architecture of the same family: one line in the table in architecture.cc.
#ifndef MILLRACE_WORKER_MODEL_ARCHITECTURE_H_
#define MILLRACE_WORKER_MODEL_ARCHITECTURE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/model_spec.h"
#include "worker/model/raw_tensor.h"
#include "worker/model/tensor_names.h"

namespace millrace {

struct ArchitectureTraits {
  absl::string_view name;
  RopeStyle gguf_rope;     // Hugging Face checkpoints are always kHalfSplit
  bool needs_qkv_bias;     // q, k and v have biases (elsewhere they may)
  bool needs_qk_norm;      // heads are normalised before the rotation (elsewhere: refused)
  bool window_by_default;  // Hugging Face: sliding_window counts without use_sliding_window
};

// Unimplemented names the architecture and lists those that are known.
absl::StatusOr<ArchitectureTraits> FindArchitecture(absl::string_view name);

// Bounds on what files may say, so that products of dimensions stay far from overflow.
inline constexpr int kMaxLayers = 4096;
inline constexpr int kMaxWidth = 1 << 20;
inline constexpr int kMaxHeads = 1 << 14;
inline constexpr int kMaxHeadDim = 1024;
inline constexpr int kMaxVocabulary = 1 << 22;

// Checks the dimensions in `spec` (layers, widths, heads, rope), everything but the tensors.
// DataLoss messages start with `source` and name the dimension.
absl::Status CheckDimensions(const std::string& source, const ModelSpec& spec);

// Gives each tensor its role, checks every shape and type against the dimensions already in `spec`,
// names missing ones, and fills spec.tensors (in file order), spec.vocab and spec.tied_output.
// Norms and biases may be any float type. DataLoss, or Unimplemented for tensors that would change
// the result and that millrace does not compute (experts, feed-forward biases).
absl::Status AssembleTensors(const std::string& source, TensorNaming naming,
                             std::vector<RawTensor> tensors, ModelSpec& spec);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_ARCHITECTURE_H_
