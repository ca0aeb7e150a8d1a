// config.json of a Hugging Face model folder -> the dimensions of a ModelSpec.
#ifndef MILLRACE_WORKER_MODEL_HF_CONFIG_H_
#define MILLRACE_WORKER_MODEL_HF_CONFIG_H_

#include "absl/status/statusor.h"
#include "proto/model_spec.h"
#include "worker/model/json_file.h"

namespace millrace {

struct HfConfig {
  ModelSpec spec;  // dimensions and rope; no tensors yet
  bool tied_output = false;
};

// Both forms of the rotary parameters are read: rope_theta beside rope_scaling, and
// rope_parameters. Unimplemented: a model type, activation or rope type that is not known.
absl::StatusOr<HfConfig> ReadHfConfig(const JsonFields& config);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_HF_CONFIG_H_
