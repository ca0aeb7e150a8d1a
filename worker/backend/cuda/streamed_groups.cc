#include "worker/backend/cuda/streamed_groups.h"

#include <algorithm>
#include <utility>

#include "proto/status_macros.h"
#include "proto/stream_layout.h"

namespace millrace {
namespace {

// For the copies of one group to be queued; reading 1 GB from a slow disk takes about ten seconds.
constexpr absl::Duration kBringTimeout = absl::Seconds(90);

Bytes RawBytes(absl::Span<const HostTensor> matrices) {
  Bytes raw;
  for (const HostTensor& m : matrices) raw += m.spec->size;
  return raw;
}

// The plan's staging, cut into as many chunks as leave sixteen rows of the widest matrix room.
CudaStreamOptions OptionsFor(Bytes staging, Bytes widest_strip) {
  CudaStreamOptions options;
  options.stages = kStreamChunks;
  while (options.stages > 1 && staging < widest_strip * options.stages) options.stages /= 2;
  options.chunk_bytes = Bytes(staging.count() / options.stages / 256 * 256);
  return options;
}

}  // namespace

absl::Status StreamedGroups::Add(int id, absl::Span<const HostTensor> matrices,
                                 GroupLayout layout) {
  index_[id] = static_cast<int>(pending_.size());
  pending_.push_back({{matrices.begin(), matrices.end()}, std::move(layout)});
  return absl::OkStatus();
}

absl::Status StreamedGroups::Start(const cuda::DeviceAllocator& allocator, Bytes ring,
                                   cuda::StreamView compute, ChunkSource* source) {
  if (source == nullptr) return absl::InternalError("streamed weights without a source");
  Bytes largest, strip;
  for (const StreamedOp& op : pending_) {
    largest = std::max(largest, RawBytes(op.matrices));
    for (const HostTensor& m : op.matrices) {
      strip = std::max(strip, RowBytes(m.spec->dtype, m.spec->cols()) * kTileRows);
    }
  }
  MILLRACE_ASSIGN_OR_RETURN(
      streamer_, CudaWeightStreamer::Create(OptionsFor(StreamStaging(largest), strip), allocator,
                                            ring, compute, source, pending_));
  pending_.clear();
  return absl::OkStatus();
}

absl::Status StreamedGroups::BeginPass(absl::Span<const int> order) {
  if (streamer_ == nullptr) return absl::OkStatus();
  std::vector<int> streamed;
  for (int id : order) {
    const auto found = index_.find(id);
    if (found != index_.end()) streamed.push_back(found->second);
  }
  return streamer_->BeginPass(streamed);
}

absl::StatusOr<WeightLease> StreamedGroups::Bring(int id, cuda::StreamView reader,
                                                  PlacedGroup& placed) {
  const auto found = index_.find(id);
  if (found == index_.end()) return WeightLease();
  MILLRACE_CHECK(streamer_ != nullptr);
  MILLRACE_ASSIGN_OR_RETURN(StreamedWeights weights,
                            streamer_->Acquire(found->second, reader, kBringTimeout));
  placed = std::move(weights.group);
  return std::move(weights.lease);
}

std::optional<StreamStats> StreamedGroups::TakeCopies(std::vector<BusySpan>& spans) {
  if (streamer_ == nullptr) return std::nullopt;
  for (const CopyEvent& e : streamer_->stream().TakeEvents()) {
    spans.push_back(
        {0, Resource::kCopy, e.begin, e.end, streamer_->stream().group(e.group).name, e.bytes});
  }
  return streamer_->stream().stats();
}

}  // namespace millrace
