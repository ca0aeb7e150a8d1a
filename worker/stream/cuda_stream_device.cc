#include "worker/stream/cuda_stream_device.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "kernels/cuda/status.h"
#include "kernels/weight_tiles_cuda.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(60);
// Between looks at a copy that is waited for: one of 16 MiB takes about 0.3 ms.
constexpr absl::Duration kLook = absl::Microseconds(100);

absl::StatusOr<bool> Reached(const cuda::Event& event) {
  const absl::Status status = event.Wait(absl::ZeroDuration());
  if (absl::IsDeadlineExceeded(status)) return false;
  MILLRACE_RETURN_IF_ERROR(status);
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaStreamDevice>> CudaStreamDevice::Create(
    const CudaStreamOptions& options, cuda::StreamView compute, cuda::DeviceBuffer ring,
    cuda::DeviceBuffer staging, std::vector<GroupLayout> layouts) {
  MILLRACE_CHECK(options.stages > 0 && options.slots > 0 && options.max_queued_copies > 0);
  MILLRACE_CHECK(staging.size() >= options.staging_bytes() && staging.device() == ring.device());
  MILLRACE_ASSIGN_OR_RETURN(cuda::Stream copies, cuda::Stream::Create(ring.device()));
  MILLRACE_ASSIGN_OR_RETURN(cuda::Stream arrivals, cuda::Stream::Create(ring.device()));
  auto device = std::unique_ptr<CudaStreamDevice>(
      new CudaStreamDevice(options, compute, std::move(ring), std::move(staging),
                           std::move(layouts), std::move(copies), std::move(arrivals)));
  MILLRACE_RETURN_IF_ERROR(device->MakeEvents());
  return device;
}

absl::Status CudaStreamDevice::MakeEvents() {
  const int device = ring_.device();
  for (int i = 0; i < options_.stages; ++i) {
    MILLRACE_ASSIGN_OR_RETURN(cuda::Event tiled, cuda::Event::Create(device));
    auto* memory = static_cast<std::byte*>(staging_.data()) + (options_.chunk_bytes * i).count();
    stages_.push_back({memory, std::move(tiled)});
  }
  for (int i = 0; i < options_.slots; ++i) {
    MILLRACE_ASSIGN_OR_RETURN(cuda::Event arrival, cuda::Event::Create(device));
    MILLRACE_ASSIGN_OR_RETURN(cuda::Event release, cuda::Event::Create(device));
    slots_.push_back({std::move(arrival), std::move(release)});
  }
  // Two more than can be queued: the end of the copy before the oldest is still asked for.
  for (int i = 0; i < options_.max_queued_copies + 2; ++i) {
    MILLRACE_ASSIGN_OR_RETURN(cuda::Event begin,
                              cuda::Event::Create(device, cuda::Event::Timing::kOn));
    MILLRACE_ASSIGN_OR_RETURN(cuda::Event end,
                              cuda::Event::Create(device, cuda::Event::Timing::kOn));
    timed_.push_back({std::move(begin), std::move(end)});
  }
  // The device's time is told from here on, as if a copy had just ended.
  MILLRACE_RETURN_IF_ERROR(timed(0).end.Record(copies_.view()));
  MILLRACE_RETURN_IF_ERROR(copies_.view().Wait(kTimeout));
  last_end_ = absl::Now();
  queued_ = finished_ = 1;
  return absl::OkStatus();
}

CudaStreamDevice::~CudaStreamDevice() { Quiesce(kTimeout).IgnoreError(); }

PlacedGroup CudaStreamDevice::Placed(int group, Bytes ring_offset) const {
  return layouts_[static_cast<size_t>(group)].At(static_cast<const std::byte*>(ring_.data()) +
                                                 ring_offset.count());
}

absl::Time CudaStreamDevice::Now() const { return absl::Now(); }

absl::Status CudaStreamDevice::WriteAfterRelease(int slot) {
  return slots_[static_cast<size_t>(slot)].release.Block(arrivals_.view());
}

absl::Status CudaStreamDevice::Copy(const StreamChunk& chunk, const std::byte* from,
                                    Bytes ring_offset) {
  const GroupLayout& layout = layouts_[static_cast<size_t>(chunk.group)];
  const GroupPart& part = layout.parts[static_cast<size_t>(chunk.part)];
  const Bytes size = chunk.size();
  MILLRACE_CHECK(size <= options_.chunk_bytes && ring_offset + layout.bytes <= ring_.size());
  MILLRACE_CHECK(queued_ - finished_ <= options_.max_queued_copies);
  // Kernels are launched on the calling thread's device.
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaSetDevice(ring_.device()));
  const Stage& stage = stages_[static_cast<size_t>(queued_) % stages_.size()];
  MILLRACE_RETURN_IF_ERROR(stage.tiled.Block(copies_.view()));
  MILLRACE_RETURN_IF_ERROR(timed(queued_).begin.Record(copies_.view()));
  MILLRACE_RETURN_IF_ERROR(
      chunk.row_stride > Bytes(0)
          ? cuda::CopyRowsAsync(stage.memory, from, {chunk.rows, chunk.row_bytes, chunk.row_stride},
                                copies_.view())
          : cuda::CopyAsync(stage.memory, from, size, copies_.view()));
  MILLRACE_RETURN_IF_ERROR(timed(queued_).end.Record(copies_.view()));
  MILLRACE_RETURN_IF_ERROR(timed(queued_).end.Block(arrivals_.view()));
  const Bytes offset = ring_offset + layout.PartOffset(static_cast<size_t>(chunk.part));
  auto* tiles = static_cast<uint8_t*>(ring_.data()) + offset.count();
  MILLRACE_RETURN_IF_ERROR(cuda::TileRows(part.source, reinterpret_cast<uint8_t*>(stage.memory),
                                          chunk.first_row, chunk.rows, part.tiles, tiles,
                                          arrivals_.view()));
  MILLRACE_RETURN_IF_ERROR(stage.tiled.Record(arrivals_.view()));
  ++queued_;
  return absl::OkStatus();
}

absl::Status CudaStreamDevice::RecordArrival(int slot) {
  return slots_[static_cast<size_t>(slot)].arrival.Record(arrivals_.view());
}

// Each time is told from the end before it: differences of the device's clock stay short.
absl::StatusOr<std::vector<CopySpan>> CudaStreamDevice::Finished() {
  std::vector<CopySpan> spans;
  for (; finished_ < queued_; ++finished_) {
    const Timed& copy = timed(finished_);
    MILLRACE_ASSIGN_OR_RETURN(const bool done, Reached(copy.end));
    if (!done) break;
    MILLRACE_ASSIGN_OR_RETURN(const absl::Duration gap, copy.begin.Since(timed(finished_ - 1).end));
    MILLRACE_ASSIGN_OR_RETURN(const absl::Duration took, copy.end.Since(copy.begin));
    CopySpan span;
    span.begin = last_end_ + gap;
    span.end = last_end_ = span.begin + took;
    spans.push_back(span);
  }
  return spans;
}

absl::Status CudaStreamDevice::WaitForCopy(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (finished_ < queued_) {
    MILLRACE_ASSIGN_OR_RETURN(const bool done, Reached(timed(finished_).end));
    if (done || absl::Now() >= deadline) break;
    absl::SleepFor(kLook);
  }
  return absl::OkStatus();
}

absl::Status CudaStreamDevice::Quiesce(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  MILLRACE_RETURN_IF_ERROR(copies_.view().Wait(timeout));
  return arrivals_.view().Wait(std::max(absl::ZeroDuration(), deadline - absl::Now()));
}

absl::Status CudaStreamDevice::ComputeAfterArrival(int slot) {
  return slots_[static_cast<size_t>(slot)].arrival.Block(compute_);
}

absl::Status CudaStreamDevice::RecordRelease(int slot) {
  return slots_[static_cast<size_t>(slot)].release.Record(compute_);
}

}  // namespace millrace
