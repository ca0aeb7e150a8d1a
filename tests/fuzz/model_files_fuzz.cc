#include "tests/fuzz/model_files_fuzz.h"

#include <cstring>
#include <memory>
#include <utility>

#include "proto/status_macros.h"
#include "worker/model/gguf_model.h"
#include "worker/model/safetensors.h"

namespace millrace {
namespace {

// Memory of exactly `size` bytes, page data excluded, so that a read past the end is seen.
struct Exact {
  Exact(const uint8_t* data, size_t size) : bytes(new std::byte[size]), view(bytes.get(), size) {
    if (size > 0) std::memcpy(bytes.get(), data, size);
  }
  std::unique_ptr<std::byte[]> bytes;
  absl::Span<const std::byte> view;
};

// Reads first and last byte; the sum only keeps the reads alive.
void Touch(absl::Span<const std::byte> bytes) {
  MILLRACE_CHECK(!bytes.empty());
  volatile unsigned sum =
      static_cast<unsigned>(bytes.front()) + static_cast<unsigned>(bytes.back());
  (void)sum;
}

// What a plan is made of where the weights are cut off.
void CheckMetadata(const Exact& memory) {
  auto files = OpenGguf(ReadMemory("fuzz.gguf", memory.view), GgufExtent::kMetadata);
  if (!files.ok()) return;
  auto model = OpenGgufModel("fuzz.gguf", *std::move(files));
  if (!model.ok()) return;
  MILLRACE_CHECK((*model)->missing() >= Bytes(0));
  const ModelSpec& spec = (*model)->spec();
  for (const TensorSpec& t : spec.tensors) {
    MILLRACE_CHECK(t.offset + t.size <= spec.files[t.file].size);
  }
  MILLRACE_CHECK(spec.weight_bytes() <= spec.files.front().size);
}

}  // namespace

void FuzzGguf(const uint8_t* data, size_t size) {
  const Exact memory(data, size);
  CheckMetadata(memory);
  auto files = OpenGguf(ReadMemory("fuzz.gguf", memory.view));
  if (!files.ok()) return;
  auto model = OpenGgufModel("fuzz.gguf", *std::move(files));
  if (!model.ok()) return;
  const ModelSpec& spec = (*model)->spec();
  for (size_t i = 0; i < spec.tensors.size(); ++i) {
    Touch((*model)->TensorBytes(static_cast<int>(i)));
  }
  const Vocabulary& v = (*model)->vocabulary();
  MILLRACE_CHECK(v.types.size() == v.tokens.size());
  MILLRACE_CHECK(v.bos < static_cast<int64_t>(v.tokens.size()));
}

void FuzzSafetensors(const uint8_t* data, size_t size) {
  const Exact memory(data, size);
  auto reader = ReadMemory("fuzz.safetensors", memory.view);
  auto tensors = ParseSafetensors(*reader);
  if (!tensors.ok()) return;
  for (const RawTensor& t : *tensors) {
    Touch(reader->Map().subspan(t.offset.count(), t.size.count()));
  }
}

}  // namespace millrace
