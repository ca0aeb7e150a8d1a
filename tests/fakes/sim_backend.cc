#include "tests/fakes/sim_backend.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "proto/device_layout.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(30);
constexpr absl::Duration kLeast = absl::Nanoseconds(1);
// Every other one is read at a product's begin, the rest at its end.
constexpr size_t kLine = 512;

size_t Padded(const HostTensor& matrix) {
  return static_cast<size_t>(RoundUp(matrix.spec->size, kDeviceAlignment).count());
}

Bytes RawBytes(absl::Span<const HostTensor> matrices) {
  Bytes bytes;
  for (const HostTensor& m : matrices) bytes += m.spec->size;
  return bytes;
}

}  // namespace

class SimBackend::Memory : public DeviceMemory {
 public:
  Memory(SimBackend* backend, std::unique_ptr<DeviceMemory> memory)
      : backend_(backend), memory_(std::move(memory)) {}
  ~Memory() override { backend_->Synchronize().IgnoreError(); }
  std::byte* data() const override { return memory_->data(); }
  Bytes size() const override { return memory_->size(); }

 private:
  SimBackend* const backend_;
  const std::unique_ptr<DeviceMemory> memory_;
};

SimBackend::SimBackend(const ModelSpec& model, const BackendOptions& options,
                       const SimBackendSpec& spec, std::unique_ptr<Backend> cpu)
    : model_(model), options_(options), spec_(spec), cpu_(std::move(cpu)) {
  host_rows_.resize(static_cast<size_t>(options.max_pass_tokens) *
                    static_cast<size_t>(model.d_model));
  int64_t bytes = 0;
  for (const Block& block : BlocksOf(model)) {
    if (block.kind == BlockKind::kFeedForward) bytes += block.weights.count();
  }
  mean_feed_forward_ = Bytes(bytes / static_cast<int64_t>(model.layers.size()));
  SimStreamSpec device;
  device.ring = options.stream_ring;
  device.slots = spec.slots;
  device.max_queued_copies = spec.max_queued_copies;
  device.link = spec.link;
  device.place = spec.place;
  device.stages = spec.stages;
  device_ = std::make_unique<SimStreamDevice>(device);
}

absl::StatusOr<std::unique_ptr<SimBackend>> SimBackend::Create(const ModelSpec& model,
                                                               const BackendOptions& options,
                                                               const SimBackendSpec& spec) {
  MILLRACE_ASSIGN_OR_RETURN(auto cpu, MakeCpuBackend(model, options));
  return std::unique_ptr<SimBackend>(new SimBackend(model, options, spec, std::move(cpu)));
}

absl::StatusOr<WeightsId> SimBackend::PlaceMatrices(absl::Span<const HostTensor> matrices,
                                                    absl::Span<const HostTensor> biases) {
  MILLRACE_ASSIGN_OR_RETURN(const WeightsId id, cpu_->PlaceMatrices(matrices, biases));
  MILLRACE_CHECK(id.value == static_cast<int>(group_bytes_.size()));
  group_bytes_.push_back(RawBytes(matrices));
  return id;
}

absl::StatusOr<WeightsId> SimBackend::StreamMatrices(absl::Span<const HostTensor> matrices,
                                                     absl::Span<const HostTensor> biases) {
  MILLRACE_CHECK(stream_ == nullptr);
  Streamed streamed;
  streamed.index = static_cast<int>(streamed_.size());
  streamed.matrices.assign(matrices.begin(), matrices.end());
  size_t size = 0;
  for (const HostTensor& m : matrices) size += Padded(m);
  streamed.registers.resize(size);
  std::vector<HostTensor> placed = streamed.matrices;
  size_t at = 0;
  for (HostTensor& m : placed) {
    m.bytes = absl::MakeConstSpan(streamed.registers)
                  .subspan(at, static_cast<size_t>(m.spec->size.count()));
    m.row_stride = Bytes(0);
    at += Padded(m);
  }
  MILLRACE_ASSIGN_OR_RETURN(const WeightsId id, PlaceMatrices(placed, biases));
  streamed_.emplace(id.value, std::move(streamed));
  return id;
}

absl::StatusOr<std::unique_ptr<DeviceMemory>> SimBackend::Allocate(Bytes size, const char* what) {
  MILLRACE_ASSIGN_OR_RETURN(auto memory, cpu_->Allocate(size, what));
  return std::make_unique<Memory>(this, std::move(memory));
}

// Bytes where the matrix has no gaps, whole rows where it has.
std::vector<StreamChunk> SimBackend::ChunksOf(const HostTensor& matrix) const {
  std::vector<StreamChunk> chunks;
  StreamChunk chunk;
  if (matrix.row_stride == Bytes(0)) {
    const auto step = static_cast<size_t>(spec_.chunk.count());
    for (size_t at = 0; at < matrix.bytes.size(); at += step) {
      chunk.bytes = matrix.bytes.subspan(at, std::min(step, matrix.bytes.size() - at));
      chunk.offset = Bytes(static_cast<int64_t>(at));
      chunks.push_back(chunk);
    }
    return chunks;
  }
  const TensorSpec& spec = *matrix.spec;
  chunk.row_bytes = RowBytes(spec.dtype, spec.cols());
  chunk.row_stride = matrix.row_stride;
  const int64_t step = std::max<int64_t>(1, spec_.chunk.count() / chunk.row_bytes.count());
  for (int64_t row = 0; row < spec.rows(); row += step) {
    chunk.rows = std::min(step, spec.rows() - row);
    const Bytes length = chunk.row_stride * (chunk.rows - 1) + chunk.row_bytes;
    chunk.bytes = matrix.bytes.subspan(static_cast<size_t>((chunk.row_stride * row).count()),
                                       static_cast<size_t>(length.count()));
    chunk.offset = chunk.row_bytes * row;
    chunks.push_back(chunk);
  }
  return chunks;
}

StreamGroup SimBackend::GroupOf(const Streamed& streamed) const {
  StreamGroup group;
  group.name = streamed.matrices[0].spec->name;
  group.ring_bytes = Bytes(static_cast<int64_t>(streamed.registers.size()));
  size_t begin = 0;
  for (size_t p = 0; p < streamed.matrices.size(); ++p) {
    const HostTensor& m = streamed.matrices[p];
    group.parts.push_back(m.spec->name);
    for (StreamChunk chunk : ChunksOf(m)) {
      chunk.group = streamed.index;
      chunk.part = static_cast<int>(p);
      chunk.offset += Bytes(static_cast<int64_t>(begin));
      group.chunks.push_back(chunk);
    }
    begin += Padded(m);
  }
  return group;
}

absl::Status SimBackend::FinishLoading() {
  if (streamed_.empty()) return absl::OkStatus();
  if (spec_.make_source) source_ = spec_.make_source(*device_);
  ChunkSource* const source = source_ ? source_.get() : options_.stream_source;
  if (source == nullptr) {
    return absl::InternalError("streamed weights without a source");
  }
  std::vector<StreamGroup> groups(streamed_.size());
  for (const auto& [id, streamed] : streamed_) {
    groups[static_cast<size_t>(streamed.index)] = GroupOf(streamed);
  }
  WeightStreamOptions options;
  options.drive = spec_.drive;
  MILLRACE_ASSIGN_OR_RETURN(
      stream_, WeightStream::Create(device_.get(), source, std::move(groups), options));
  return absl::OkStatus();
}

void SimBackend::RunUntil(absl::Time time) {
  const bool walks = stream_ != nullptr && spec_.drive == WeightStreamOptions::Drive::kCaller;
  do {
    device_->AdvanceTo(walks ? std::min(time, device_->next_copy_end()) : time);
    if (walks) stream_->Pump();
  } while (device_->Now() < time);
}

absl::Status SimBackend::Synchronize() {
  RunUntil(device_->compute_end());
  return failure_;
}

absl::Duration SimBackend::ProductTime(WeightsId weights, int64_t rows) const {
  const Bytes bytes = group_bytes_[static_cast<size_t>(weights.value)];
  absl::Duration time = std::max(kLeast, bytes / spec_.hbm);
  if (spec_.flops > 0) {
    // Two operations per weight and row, of weights in f16.
    const double operations = static_cast<double>(bytes.count()) * static_cast<double>(rows);
    time = std::max(time, absl::Seconds(operations / spec_.flops));
  }
  return time;
}

absl::Duration SimBackend::HostBlockTime() const {
  return spec_.dram > Bandwidth() ? mean_feed_forward_ / spec_.dram : absl::ZeroDuration();
}

void SimBackend::Queue(Op op) {
  device_->Compute(absl::ZeroDuration(), nullptr,
                   [this, op = std::move(op)](absl::Span<std::byte>) { failure_.Update(op()); });
}

void SimBackend::Read(Streamed& streamed, absl::Span<const std::byte> group, bool odd_lines) {
  const size_t size = streamed.registers.size();
  for (size_t at = odd_lines ? kLine : 0; at < size; at += 2 * kLine) {
    std::memcpy(streamed.registers.data() + at, group.data() + at, std::min(kLine, size - at));
  }
}

bool SimBackend::IsWhole(const Streamed& streamed) {
  size_t at = 0;
  for (const HostTensor& m : streamed.matrices) {
    const auto size = static_cast<size_t>(m.spec->size.count());
    const bool gaps = m.row_stride > Bytes(0);
    const size_t row = gaps ? size / static_cast<size_t>(m.spec->rows()) : size;
    for (size_t r = 0; r * row < size; ++r) {
      const std::byte* expected = m.bytes.data() + r * static_cast<size_t>(m.row_stride.count());
      if (std::memcmp(streamed.registers.data() + at + r * row, expected, row) != 0) return false;
    }
    at += Padded(m);
  }
  return true;
}

absl::Status SimBackend::Queue(WeightsId weights, int64_t rows, Op op) {
  const absl::Duration time = ProductTime(weights, rows);
  device_part_ += group_bytes_[static_cast<size_t>(weights.value)];
  const auto found = streamed_.find(weights.value);
  if (found == streamed_.end()) {
    device_->Compute(time, nullptr,
                     [this, op = std::move(op)](absl::Span<std::byte>) { failure_.Update(op()); });
    return absl::OkStatus();
  }
  Streamed& streamed = found->second;
  MILLRACE_ASSIGN_OR_RETURN(WeightLease lease, stream_->Acquire(streamed.index, kTimeout));
  MILLRACE_RETURN_IF_ERROR(lease.ComputeAfterArrival());
  const auto at = static_cast<size_t>(lease.ring_offset().count());
  device_->Compute(
      time,
      [&streamed, at](absl::Span<std::byte> ring) { Read(streamed, ring.subspan(at), false); },
      [this, &streamed, at, op = std::move(op)](absl::Span<std::byte> ring) {
        Read(streamed, ring.subspan(at), true);
        if (!IsWhole(streamed)) device_->CountWrongRead();
        failure_.Update(op());
      });
  return lease.Release();
}

BackendFactory SimBackends(const SimBackendSpec& spec, std::vector<SimBackend*>* made) {
  return [spec, made](const ModelSpec& model,
                      const BackendOptions& options) -> absl::StatusOr<std::unique_ptr<Backend>> {
    MILLRACE_ASSIGN_OR_RETURN(auto backend, SimBackend::Create(model, options, spec));
    if (made != nullptr) made->push_back(backend.get());
    return backend;
  };
}

}  // namespace millrace
