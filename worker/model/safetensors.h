// Safetensors files: https://github.com/huggingface/safetensors#format
#ifndef MILLRACE_WORKER_MODEL_SAFETENSORS_H_
#define MILLRACE_WORKER_MODEL_SAFETENSORS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/raw_tensor.h"
#include "worker/weights/file_reader.h"

namespace millrace {

// The tensor table of one file, ordered by offset. Checks that every tensor has as many bytes as
// its shape and type say, lies inside the file, and that together they cover the data exactly once.
// DataLoss names file and tensor; Unimplemented a type other than F32, F16, BF16.
absl::StatusOr<std::vector<RawTensor>> ParseSafetensors(const FileReader& reader);

struct SafetensorsModel {
  std::vector<RawTensor> tensors;
  std::vector<std::unique_ptr<FileReader>> files;
};

// model.safetensors of a folder, or the shards that model.safetensors.index.json lists; every
// tensor of the index must be in the shard that the index says, and no shard may hold others.
absl::StatusOr<SafetensorsModel> OpenSafetensors(const std::string& directory);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_SAFETENSORS_H_
