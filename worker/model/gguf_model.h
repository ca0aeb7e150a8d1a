// A Model from GGUF files that are already open.
#ifndef MILLRACE_WORKER_MODEL_GGUF_MODEL_H_
#define MILLRACE_WORKER_MODEL_GGUF_MODEL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/model/gguf_shards.h"
#include "worker/model/model.h"

namespace millrace {

// Errors as Model::Open.
absl::StatusOr<std::shared_ptr<const Model>> OpenGgufModel(const std::string& reference,
                                                           GgufModelFiles files);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_GGUF_MODEL_H_
