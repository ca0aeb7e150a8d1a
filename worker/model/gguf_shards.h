// A GGUF model of one or several files opened as one.
#ifndef MILLRACE_WORKER_MODEL_GGUF_SHARDS_H_
#define MILLRACE_WORKER_MODEL_GGUF_SHARDS_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/model/gguf_file.h"
#include "worker/model/gguf_metadata.h"
#include "worker/model/raw_tensor.h"
#include "worker/weights/file_reader.h"

namespace millrace {

// "dir/name-00002-of-00005.gguf" -> {"dir/name", 2, 5}.
struct ShardName {
  std::string stem;
  int number = 0;  // from 1
  int count = 0;
};
std::optional<ShardName> ParseShardName(absl::string_view path);
std::string ShardPath(const ShardName& name, int number);

struct GgufModelFiles {
  GgufMetadata metadata;  // the first shard's; views files[0]
  std::vector<RawTensor> tensors;
  std::vector<std::unique_ptr<FileReader>> files;
  std::vector<Bytes> whole_sizes;  // GgufFile::whole_size of each
};

// Any shard of a sharded model opens all of them. NotFound names a shard that is missing; DataLoss
// a shard whose split.no, split.count or split.tensors.count do not agree with the others.
absl::StatusOr<GgufModelFiles> OpenGguf(const std::string& path,
                                        GgufExtent extent = GgufExtent::kWhole);

// A single file already open (the embedded model).
absl::StatusOr<GgufModelFiles> OpenGguf(std::unique_ptr<FileReader> reader,
                                        GgufExtent extent = GgufExtent::kWhole);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_GGUF_SHARDS_H_
