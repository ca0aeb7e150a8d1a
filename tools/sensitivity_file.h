// Sensitivity files: what `millrace calibrate` writes beside a model and `--precision auto` reads.
//
//   {"format": "millrace sensitivity", "version": 1,
//    "model": "quill.gguf", "model_fingerprint": "0123456789abcdef",
//    "text": "text.txt", "windows": 8, "context": 512, "scored": 2040, "kv_q8_0": 1e-5,
//    "groups": [{"role": "attn_v", "third": 0, "type": "q4_K", "weights": 32768,
//                "divergence": 1.2e-4}, ...]}
// A group's divergence is the model's, in nats per token, where just that group is held in that
// type.
#ifndef MILLRACE_TOOLS_SENSITIVITY_FILE_H_
#define MILLRACE_TOOLS_SENSITIVITY_FILE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/sensitivities.h"
#include "proto/model_spec.h"

namespace millrace {

struct MeasuredGroup {
  SensitivityGroup group;
  DType dtype{};        // that it was measured in
  int64_t weights = 0;  // of the group's tensors
  double divergence = 0;
};

struct SensitivityFile {
  std::string model, model_fingerprint, text;
  int windows = 0, context = 0;
  int64_t scored = 0;  // predictions compared
  double kv_q8_0 = 0;  // divergence of q8_0 caches
  std::vector<MeasuredGroup> groups;
};

// "MODEL.sensitivity.json" beside a file or folder; empty for the embedded model.
std::string SensitivityPathOf(const std::string& model);

std::string ToJson(const SensitivityFile& file);

// NotFound names the path. DataLoss: not such a file; names file and field. FailedPrecondition:
// measured on another model.
absl::StatusOr<Sensitivities> ReadSensitivities(const std::string& path, const ModelSpec& model);

// Of the file beside `model` where there is one, else the default table. Errors as
// ReadSensitivities.
absl::StatusOr<Sensitivities> SensitivitiesOf(const std::string& reference, const ModelSpec& model);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_SENSITIVITY_FILE_H_
