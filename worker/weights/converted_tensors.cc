#include "worker/weights/converted_tensors.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/quantize.h"
#include "proto/device_layout.h"
#include "proto/status_macros.h"
#include "proto/stored_types.h"
#include "worker/stream/host_memory.h"

namespace millrace {
namespace {

constexpr int64_t kAlignment = 64;  // of a tensor in memory that it shares

}  // namespace

// A converted tensor as a file of its own: empty, or a part of memory that it keeps alive.
class ConvertedTensors::Reader : public FileReader {
 public:
  explicit Reader(std::string name) : name_(std::move(name)) {}

  void Set(std::shared_ptr<const AnonymousMemory> memory, HostBytes bytes) {
    memory_ = std::move(memory);
    bytes_ = bytes;
  }
  const std::string& name() const override { return name_; }
  Bytes size() const override { return Bytes(static_cast<int64_t>(bytes_.size())); }
  HostBytes Map() const override { return bytes_; }
  absl::Status ReadAt(Bytes offset, absl::Span<std::byte> out) const override {
    return ReadMemory(name_, bytes_)->ReadAt(offset, out);
  }

 private:
  const std::string name_;
  std::shared_ptr<const AnonymousMemory> memory_;
  HostBytes bytes_;
};

absl::StatusOr<std::unique_ptr<ConvertedTensors>> ConvertedTensors::Create(
    std::shared_ptr<const Model> file, absl::Span<const StoredType> types, int threads) {
  auto made = std::unique_ptr<ConvertedTensors>(new ConvertedTensors(threads));
  made->file_ = std::move(file);
  made->held_ = made->file_;
  if (types.empty()) return made;
  MILLRACE_ASSIGN_OR_RETURN(ModelSpec held, HeldModel(made->file_->spec(), types));
  std::map<int, std::shared_ptr<const FileReader>> readers;
  for (size_t i = 0; i < held.tensors.size(); ++i) {
    if (!held.tensors[i].file_dtype) continue;
    const int index = static_cast<int>(i);
    readers[index] = made->readers_[index] = std::make_shared<Reader>(held.tensors[i].name);
  }
  made->held_ = made->file_->WithTensors(std::move(held), readers);
  return made;
}

absl::Status ConvertedTensors::Convert(const std::vector<int>& tensors,
                                       const std::function<void(Bytes)>& progress) {
  std::vector<std::pair<int, Bytes>> wanted;  // and where in the memory
  Bytes all;
  for (int t : tensors) {
    const auto reader = readers_.find(t);
    if (reader == readers_.end() || reader->second->size() > Bytes(0)) continue;
    wanted.emplace_back(t, all);
    all += RoundUp(held_->spec().tensors[static_cast<size_t>(t)].size, Bytes(kAlignment));
  }
  if (wanted.empty()) return absl::OkStatus();
  absl::StatusOr<AnonymousMemory> asked = AnonymousMemory::Create(all);
  if (!asked.ok()) return Annotate(asked.status(), "converting weights");
  const auto memory = std::make_shared<const AnonymousMemory>(*std::move(asked));
  if (pool_ == nullptr) pool_ = std::make_unique<ThreadPool>(threads_);
  for (const auto& [t, offset] : wanted) {
    const TensorSpec& from = file_->spec().tensors[static_cast<size_t>(t)];
    const TensorSpec& to = held_->spec().tensors[static_cast<size_t>(t)];
    const WeightView view = {file_->TensorBytes(t).data(), from.dtype, from.rows(), from.cols()};
    std::byte* out = memory->data() + offset.count();
    MILLRACE_RETURN_IF_ERROR(Quantize(view, to.dtype, to.name, out, *pool_));
    readers_[t]->Set(memory, {out, static_cast<size_t>(to.size.count())});
    file_->ForgetPages(t);
    if (progress) progress(to.size);
  }
  return absl::OkStatus();
}

void ConvertedTensors::Drop(const std::vector<int>& tensors) {
  for (int t : tensors) {
    const auto reader = readers_.find(t);
    if (reader != readers_.end()) reader->second->Set(nullptr, {});
  }
}

}  // namespace millrace
