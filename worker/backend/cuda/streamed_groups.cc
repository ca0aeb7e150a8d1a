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
  pending_.push_back({{matrices.begin(), matrices.end()}, layout});
  return absl::OkStatus();
}

absl::Status StreamedGroups::Start(cuda::DeviceAllocator& allocator, Bytes ring,
                                   cuda::StreamView compute, ChunkSource* source) {
  if (source == nullptr) return absl::InternalError("streamed weights without a source");
  Bytes largest, strip;
  for (const Pending& p : pending_) {
    largest = std::max(largest, RawBytes(p.matrices));
    for (const HostTensor& m : p.matrices) {
      strip = std::max(strip, RowBytes(m.spec->dtype, m.spec->cols()) * kTileRows);
    }
  }
  const CudaStreamOptions options = OptionsFor(StreamStaging(largest), strip);
  std::vector<StreamGroup> groups;
  std::vector<GroupLayout> layouts;
  for (Pending& p : pending_) {
    MILLRACE_ASSIGN_OR_RETURN(
        StreamGroup group, MakeStreamGroup(static_cast<int>(groups.size()), p.matrices, p.layout,
                                           options.chunk_bytes));
    groups.push_back(std::move(group));
    layouts.push_back(std::move(p.layout));
  }
  pending_.clear();
  MILLRACE_ASSIGN_OR_RETURN(auto ring_memory, allocator.Allocate(ring, "stream ring"));
  MILLRACE_ASSIGN_OR_RETURN(auto staging,
                            allocator.Allocate(options.staging_bytes(), "stream staging"));
  MILLRACE_ASSIGN_OR_RETURN(
      device_, CudaStreamDevice::Create(options, compute, std::move(ring_memory),
                                        std::move(staging), std::move(layouts)));
  MILLRACE_ASSIGN_OR_RETURN(stream_, WeightStream::Create(device_.get(), source, std::move(groups),
                                                          WeightStreamOptions()));
  return absl::OkStatus();
}

absl::Status StreamedGroups::BeginPass(absl::Span<const int> order) {
  if (stream_ == nullptr) return absl::OkStatus();
  std::vector<int> streamed;
  for (int id : order) {
    const auto found = index_.find(id);
    if (found != index_.end()) streamed.push_back(found->second);
  }
  return stream_->BeginPass(streamed);
}

absl::StatusOr<WeightLease> StreamedGroups::Bring(int id, cuda::StreamView reader,
                                                  PlacedGroup& placed) {
  const auto found = index_.find(id);
  if (found == index_.end()) return WeightLease();
  MILLRACE_CHECK(stream_ != nullptr);
  MILLRACE_ASSIGN_OR_RETURN(WeightLease lease, stream_->Acquire(found->second, kBringTimeout));
  device_->ReadBy(reader);
  MILLRACE_RETURN_IF_ERROR(lease.ComputeAfterArrival());
  placed = device_->Placed(found->second, lease.ring_offset());
  return lease;
}

std::optional<StreamStats> StreamedGroups::TakeCopies(std::vector<BusySpan>& spans) {
  if (stream_ == nullptr) return std::nullopt;
  for (const CopyEvent& e : stream_->TakeEvents()) {
    spans.push_back(
        {0, Resource::kCopy, e.begin, e.end, stream_->group(e.group).name, e.bytes});
  }
  return stream_->stats();
}

}  // namespace millrace
