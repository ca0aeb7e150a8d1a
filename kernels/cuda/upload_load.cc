#include "kernels/cuda/upload_load.h"

#include <algorithm>
#include <utility>

#include "kernels/cuda/device.h"
#include "proto/status_macros.h"

namespace millrace::cuda {
namespace {

constexpr Bytes kChunk = 16_MiB;
constexpr absl::Duration kTimeout = absl::Seconds(10);

}  // namespace

absl::StatusOr<std::unique_ptr<UploadLoad>> UploadLoad::Start(int device,
                                                              absl::Span<const std::byte> from) {
  MILLRACE_ASSIGN_OR_RETURN(const ScopedDevice scope, ScopedDevice::Create(device));
  MILLRACE_ASSIGN_OR_RETURN(
      HostRegistration host,
      HostRegistration::Create(device, from.data(), Bytes(static_cast<int64_t>(from.size())),
                               HostRegistration::Access::kReadWrite));
  MILLRACE_ASSIGN_OR_RETURN(DeviceBuffer to, DeviceBuffer::Create(device, kChunk * 2));
  MILLRACE_ASSIGN_OR_RETURN(Stream stream, Stream::Create(device));
  MILLRACE_ASSIGN_OR_RETURN(Event first, Event::Create(device));
  MILLRACE_ASSIGN_OR_RETURN(Event second, Event::Create(device));
  return std::unique_ptr<UploadLoad>(new UploadLoad(
      std::move(host), std::move(to), std::move(stream), std::move(first), std::move(second)));
}

UploadLoad::UploadLoad(HostRegistration from, DeviceBuffer to, Stream stream, Event first,
                       Event second)
    : from_(std::move(from)),
      to_(std::move(to)),
      stream_(std::move(stream)),
      arrived_{std::move(first), std::move(second)},
      thread_([this] { Loop(); }) {}

UploadLoad::~UploadLoad() {
  stop_ = true;
  thread_.join();
}

// What fails here only makes the load end: who measures beside it sees faster rates.
void UploadLoad::Loop() {
  const auto scope = ScopedDevice::Create(to_.device());
  for (int64_t turn = 0; scope.ok() && !stop_ && CopyNext(turn).ok(); ++turn) {
  }
  stream_.view().Wait(kTimeout).IgnoreError();
}

absl::Status UploadLoad::CopyNext(int64_t turn) {
  const int64_t chunks = std::max<int64_t>(1, from_.size().count() / kChunk.count());
  const Event& arrived = arrived_[turn % 2];
  if (turn >= 2) MILLRACE_RETURN_IF_ERROR(arrived.Wait(kTimeout));
  const auto* from = static_cast<const std::byte*>(from_.data());
  auto* to = static_cast<std::byte*>(to_.data());
  MILLRACE_RETURN_IF_ERROR(CopyAsync(to + turn % 2 * kChunk.count(),
                                     from + turn % chunks * kChunk.count(),
                                     std::min(kChunk, from_.size()), stream_.view()));
  return arrived.Record(stream_.view());
}

}  // namespace millrace::cuda
