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
    m.bytes = absl::MakeConstSpan(streamed.registers).subspan(at, m.bytes.size());
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

StreamGroup SimBackend::GroupOf(const Streamed& streamed) const {
  StreamGroup group;
  group.name = streamed.matrices[0].spec->name;
  group.ring_bytes = Bytes(static_cast<int64_t>(streamed.registers.size()));
  size_t begin = 0;
  for (size_t p = 0; p < streamed.matrices.size(); ++p) {
    const HostTensor& m = streamed.matrices[p];
    group.parts.push_back(m.spec->name);
    const auto step = static_cast<size_t>(spec_.chunk.count());
    for (size_t at = 0; at < m.bytes.size(); at += step) {
      StreamChunk chunk;
      chunk.group = streamed.index;
      chunk.part = static_cast<int>(p);
      chunk.bytes = m.bytes.subspan(at, std::min(step, m.bytes.size() - at));
      chunk.offset = Bytes(static_cast<int64_t>(begin + at));
      group.chunks.push_back(chunk);
    }
    begin += Padded(m);
  }
  return group;
}

absl::Status SimBackend::Start() {
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
    if (std::memcmp(streamed.registers.data() + at, m.bytes.data(), m.bytes.size()) != 0) {
      return false;
    }
    at += Padded(m);
  }
  return true;
}

absl::Status SimBackend::Queue(WeightsId weights, int64_t rows, Op op) {
  const absl::Duration time = ProductTime(weights, rows);
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

// ---- a pass ----

absl::Status SimBackend::BeginPass(const Pass& pass, absl::Span<const AttentionSegment> segments,
                                   absl::Span<const int> positions, const HiddenStates& hidden) {
  MILLRACE_CHECK(hidden.device == nullptr);
  if (stream_ == nullptr && !streamed_.empty()) MILLRACE_RETURN_IF_ERROR(Start());
  // A pass without outputs was not waited for.
  MILLRACE_RETURN_IF_ERROR(Synchronize());
  pass_ = pass;
  segments_.assign(segments.begin(), segments.end());
  positions_.assign(positions.begin(), positions.end());
  MILLRACE_RETURN_IF_ERROR(cpu_->BeginPass(pass_, segments_, positions_, {}));
  if (hidden.rows.rows == 0) return absl::OkStatus();
  const FloatView room = RowsOfHost(hidden.rows.rows);
  if (hidden.rows.data != room.data) CopyRows(hidden.rows, room);
  QueueRowsFromHost();
  return absl::OkStatus();
}

absl::Status SimBackend::Expect(absl::Span<const WeightsId> order, WeightsId head, int heads) {
  std::vector<int> groups;
  const auto add = [&](WeightsId id) {
    const auto found = streamed_.find(id.value);
    if (found != streamed_.end()) groups.push_back(found->second.index);
  };
  for (WeightsId id : order) add(id);
  for (int i = 0; i < heads; ++i) add(head);
  return stream_ != nullptr ? stream_->BeginPass(groups) : absl::OkStatus();
}

absl::Status SimBackend::Embed(FloatView out) {
  Queue([this, out] { return cpu_->Embed(out); });
  return absl::OkStatus();
}

absl::Status SimBackend::RmsNorm(FloatView hidden, const float* weight, const Activations& normed) {
  Queue([=, this] { return cpu_->RmsNorm(hidden, weight, normed); });
  return absl::OkStatus();
}

absl::Status SimBackend::Matmul(const Activations& x, WeightsId weights, FloatView out) {
  return Queue(weights, x.rows, [=, this] { return cpu_->Matmul(x, weights, out); });
}

absl::Status SimBackend::AddMatmul(const Activations& x, WeightsId weights, FloatView hidden,
                                   const float* next_norm, const Activations& normed) {
  return Queue(weights, x.rows,
               [=, this] { return cpu_->AddMatmul(x, weights, hidden, next_norm, normed); });
}

absl::Status SimBackend::Attention(FloatView qkv, const LayerSpec& layer, const float* q_norm,
                                   const float* k_norm, const KvView& cache, const Activations& q,
                                   const Activations& out) {
  Queue([=, this, &layer] { return cpu_->Attention(qkv, layer, q_norm, k_norm, cache, q, out); });
  return absl::OkStatus();
}

absl::Status SimBackend::GatedMatmul(const Activations& x, WeightsId weights, FloatView gate_up,
                                     const Activations& out) {
  return Queue(weights, x.rows, [=, this] { return cpu_->GatedMatmul(x, weights, gate_up, out); });
}

absl::Status SimBackend::Head(const float* norm, WeightsId head, int first, int count) {
  return Queue(head, count, [=, this] { return cpu_->Head(norm, head, first, count); });
}

absl::StatusOr<std::vector<RowOutput>> SimBackend::Collect(int first, int count) {
  MILLRACE_RETURN_IF_ERROR(Synchronize());
  return cpu_->Collect(first, count);
}

std::optional<StreamStats> SimBackend::TakeCopies(std::vector<BusySpan>& spans) {
  if (stream_ == nullptr) return std::nullopt;
  for (const CopyEvent& e : stream_->TakeEvents()) {
    spans.push_back({0, Resource::kCopy, e.begin, e.end, stream_->group(e.group).name, e.bytes});
  }
  return stream_->stats();
}

// ---- hidden states on their way between host and device ----

FloatView SimBackend::RowsOfHost(int64_t n) {
  return FloatView(host_rows_.data(), n, model_.d_model);
}

void SimBackend::CopyRows(FloatView from, FloatView to) const {
  for (int64_t r = 0; r < from.rows; ++r) {
    std::memcpy(to.row(r), from.row(r), sizeof(float) * static_cast<size_t>(from.cols));
  }
}

absl::StatusOr<FloatView> SimBackend::ReadHidden() {
  const FloatView rows = RowsOfHost(static_cast<int64_t>(pass_.tokens.size()));
  Queue([this, rows] {
    CopyRows(cpu_->buffers().hidden, rows);
    return absl::OkStatus();
  });
  MILLRACE_RETURN_IF_ERROR(Synchronize());
  return rows;
}

absl::StatusOr<FloatView> SimBackend::HostRows(int64_t n) {
  MILLRACE_RETURN_IF_ERROR(Synchronize());
  return RowsOfHost(n);
}

void SimBackend::QueueRowsFromHost() {
  const FloatView rows = RowsOfHost(static_cast<int64_t>(pass_.tokens.size()));
  Queue([this, rows] {
    CopyRows(rows, cpu_->buffers().hidden);
    return absl::OkStatus();
  });
}

// The CPU has computed a block since ReadHidden.
absl::Status SimBackend::WriteHidden() {
  RunUntil(device_->Now() + HostBlockTime());
  QueueRowsFromHost();
  return absl::OkStatus();
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
