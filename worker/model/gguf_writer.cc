#include "worker/model/gguf_writer.h"

#include <utility>

#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr int64_t kAlignment = 32;

int64_t AlignUp(int64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

template <typename T>
void Append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void AppendString(std::string& out, absl::string_view text) {
  Append<uint64_t>(out, text.size());
  out.append(text.data(), text.size());
}

}  // namespace

void GgufWriter::Key(absl::string_view key, GgufType type) {
  AppendString(metadata_, key);
  Append<uint32_t>(metadata_, static_cast<uint32_t>(type));
  ++keys_;
}

void GgufWriter::SetUint32(absl::string_view key, uint32_t value) {
  Key(key, GgufType::kUint32);
  Append(metadata_, value);
}

void GgufWriter::SetUint16(absl::string_view key, uint16_t value) {
  Key(key, GgufType::kUint16);
  Append(metadata_, value);
}

void GgufWriter::SetInt32(absl::string_view key, int32_t value) {
  Key(key, GgufType::kInt32);
  Append(metadata_, value);
}

void GgufWriter::SetFloat32(absl::string_view key, float value) {
  Key(key, GgufType::kFloat32);
  Append(metadata_, value);
}

void GgufWriter::SetBool(absl::string_view key, bool value) {
  Key(key, GgufType::kBool);
  Append<uint8_t>(metadata_, value ? 1 : 0);
}

void GgufWriter::SetString(absl::string_view key, absl::string_view value) {
  Key(key, GgufType::kString);
  AppendString(metadata_, value);
}

void GgufWriter::SetStrings(absl::string_view key, absl::Span<const std::string> values) {
  Key(key, GgufType::kArray);
  Append(metadata_, static_cast<uint32_t>(GgufType::kString));
  Append<uint64_t>(metadata_, values.size());
  for (const std::string& v : values) AppendString(metadata_, v);
}

void GgufWriter::SetInt32s(absl::string_view key, absl::Span<const int32_t> values) {
  Key(key, GgufType::kArray);
  Append(metadata_, static_cast<uint32_t>(GgufType::kInt32));
  Append<uint64_t>(metadata_, values.size());
  for (int32_t v : values) Append(metadata_, v);
}

void GgufWriter::SetFloat32s(absl::string_view key, absl::Span<const float> values) {
  Key(key, GgufType::kArray);
  Append(metadata_, static_cast<uint32_t>(GgufType::kFloat32));
  Append<uint64_t>(metadata_, values.size());
  for (float v : values) Append(metadata_, v);
}

void GgufWriter::SetRaw(absl::string_view key, GgufType type, absl::string_view bytes) {
  Key(key, type);
  metadata_.append(bytes.data(), bytes.size());
}

void GgufWriter::AddTensor(absl::string_view name, DType dtype, std::vector<int64_t> shape) {
  MILLRACE_CHECK(!shape.empty());
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < shape.size(); ++d) rows *= shape[d];
  RawTensor tensor{std::string(name), dtype, std::move(shape), 0, Bytes(data_size_), Bytes(0)};
  tensor.size = rows * RowBytes(dtype, tensor.shape.back());
  data_size_ = AlignUp(data_size_ + tensor.size.count());
  tensors_.push_back(std::move(tensor));
}

std::string GgufWriter::Header() const {
  std::string out = "GGUF";
  Append<uint32_t>(out, 3);
  Append<uint64_t>(out, tensors_.size());
  Append<uint64_t>(out, static_cast<uint64_t>(keys_));
  out += metadata_;
  for (const RawTensor& t : tensors_) {
    AppendString(out, t.name);
    Append<uint32_t>(out, static_cast<uint32_t>(t.shape.size()));
    for (auto extent = t.shape.rbegin(); extent != t.shape.rend(); ++extent) {
      Append<uint64_t>(out, static_cast<uint64_t>(*extent));
    }
    Append<uint32_t>(out, static_cast<uint32_t>(Info(t.dtype).ggml_type));
    Append<uint64_t>(out, static_cast<uint64_t>(t.offset.count()));
  }
  out.resize(AlignUp(static_cast<int64_t>(out.size())), '\0');
  return out;
}

std::vector<RawTensor> GgufWriter::Tensors() const {
  const Bytes start(static_cast<int64_t>(Header().size()));
  std::vector<RawTensor> placed = tensors_;
  for (RawTensor& t : placed) t.offset += start;
  return placed;
}

int64_t GgufWriter::FileSize() const { return static_cast<int64_t>(Header().size()) + data_size_; }

}  // namespace millrace
