// One GGUF file (v2 or v3): header, metadata, tensor table. Weights are not touched.
#ifndef MILLRACE_WORKER_MODEL_GGUF_FILE_H_
#define MILLRACE_WORKER_MODEL_GGUF_FILE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/gguf_metadata.h"
#include "worker/model/raw_tensor.h"
#include "worker/weights/file_reader.h"

namespace millrace {

// How much of a file has to be there: all of it, or what comes before the weights (header, metadata
// and tensor table).
enum class GgufExtent : uint8_t { kWhole, kMetadata };

struct GgufFile {
  uint32_t version = 0;
  GgufMetadata metadata;
  std::vector<RawTensor> tensors;  // file = 0; offsets from the start of the file
  // Its size where all of it is there, else what the table says that it is: to the alignment, as
  // writers pad it.
  Bytes whole_size;
};

// Checks every count, length, product, sum and offset before use, so that what comes back can be
// used without further checks; with kMetadata tensors may lie past the end of the file. DataLoss names
// file and field; Unimplemented names a tensor type that millrace does not know. The metadata views
// `reader`'s map: it must outlive the result.
absl::StatusOr<GgufFile> ParseGguf(const FileReader& reader,
                                   GgufExtent extent = GgufExtent::kWhole);

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_GGUF_FILE_H_
