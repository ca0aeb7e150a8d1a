// GgufWriter: lays out a GGUF v3 file: metadata, tensor table, where each tensor's bytes go.
#ifndef MILLRACE_WORKER_MODEL_GGUF_WRITER_H_
#define MILLRACE_WORKER_MODEL_GGUF_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/model/gguf_value.h"
#include "worker/model/raw_tensor.h"

namespace millrace {

// Keys and tensors come in the order they are added. The caller writes Header() at offset 0 and
// each tensor's bytes at its `offset`, gaps as zeros up to FileSize().
class GgufWriter {
 public:
  void SetUint32(absl::string_view key, uint32_t value);
  void SetUint16(absl::string_view key, uint16_t value);
  void SetInt32(absl::string_view key, int32_t value);
  void SetFloat32(absl::string_view key, float value);
  void SetBool(absl::string_view key, bool value);
  void SetString(absl::string_view key, absl::string_view value);
  void SetStrings(absl::string_view key, absl::Span<const std::string> values);
  void SetInt32s(absl::string_view key, absl::Span<const int32_t> values);
  void SetFloat32s(absl::string_view key, absl::Span<const float> values);
  // Any value already encoded, for tests.
  void SetRaw(absl::string_view key, GgufType type, absl::string_view bytes);

  // `shape` row-major, outermost first; rows are whole blocks (CHECKed).
  void AddTensor(absl::string_view name, DType dtype, std::vector<int64_t> shape);

  // Everything before the tensor data, padded to the alignment of 32.
  std::string Header() const;
  // Tensors with their offsets from the start of the file.
  std::vector<RawTensor> Tensors() const;
  int64_t FileSize() const;

 private:
  void Key(absl::string_view key, GgufType type);

  int64_t keys_ = 0;
  std::string metadata_;
  std::vector<RawTensor> tensors_;  // offsets from the start of the data section
  int64_t data_size_ = 0;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_MODEL_GGUF_WRITER_H_
