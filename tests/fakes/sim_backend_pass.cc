// Passes on the simulated device; loading, streaming and time are in sim_backend.cc.
#include <algorithm>
#include <cstring>
#include <utility>

#include "proto/status_macros.h"
#include "tests/fakes/sim_backend.h"

namespace millrace {

absl::Status SimBackend::BeginPass(const Pass& pass, absl::Span<const AttentionSegment> segments,
                                   absl::Span<const int> positions, const HiddenStates& hidden) {
  MILLRACE_CHECK(hidden.device == nullptr);
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
  MILLRACE_RETURN_IF_ERROR(SendHidden());
  return AwaitHidden();
}

absl::Status SimBackend::SendHidden() {
  const FloatView rows = RowsOfHost(static_cast<int64_t>(pass_.tokens.size()));
  Queue([this, rows] {
    CopyRows(cpu_->buffers().hidden, rows);
    return absl::OkStatus();
  });
  hidden_sent_ = std::max(device_->Now(), device_->compute_end());
  device_part_ = Bytes(0);
  return absl::OkStatus();
}

absl::StatusOr<FloatView> SimBackend::AwaitHidden() {
  RunUntil(hidden_sent_);
  MILLRACE_RETURN_IF_ERROR(failure_);
  return RowsOfHost(static_cast<int64_t>(pass_.tokens.size()));
}

absl::StatusOr<FloatView> SimBackend::PartRows() {
  part_rows_.resize(host_rows_.size());
  return FloatView(part_rows_.data(), static_cast<int64_t>(pass_.tokens.size()), model_.d_model);
}

// The CPU has computed since AwaitHidden what the device does not.
absl::Status SimBackend::AddPart() {
  if (spec_.dram > Bandwidth()) {
    const Bytes part = std::max(Bytes(0), mean_feed_forward_ - device_part_);
    RunUntil(device_->Now() + part / spec_.dram);
  }
  MILLRACE_ASSIGN_OR_RETURN(const FloatView more, PartRows());
  Queue([this, more] {
    const FloatView hidden = cpu_->buffers().hidden;
    for (int64_t r = 0; r < more.rows; ++r) {
      for (int64_t c = 0; c < more.cols; ++c) hidden.row(r)[c] += more.row(r)[c];
    }
    return absl::OkStatus();
  });
  return absl::OkStatus();
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

}  // namespace millrace
