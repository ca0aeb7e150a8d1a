#include "kernels/cuda/device_probe.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/cuda/buffers.h"
#include "kernels/cuda/driver_memory.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/read_kernel.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/stream.h"

namespace millrace::cuda {
namespace {

constexpr absl::Duration kMeasureFor = absl::Milliseconds(100);
constexpr absl::Duration kTimeout = absl::Seconds(10);
constexpr int kMaxRounds = 20;
constexpr Bytes kReadBuffer = 1_GiB;
constexpr Bytes kUploadChunk = 16_MiB;
constexpr int kPinnedChunks = 4;   // held at once
constexpr int kUploadChunks = 16;  // copied per round
constexpr Bytes kLeastContext = 64_MiB;
constexpr Bytes kLargestContext = 768_MiB;  // 0.51 GiB was measured on an H200

// The best of several rounds of `queue`, which moves `bytes` by work on `stream`.
template <typename Queue>
absl::StatusOr<Bandwidth> Best(int device, StreamView stream, Bytes bytes, const Queue& queue) {
  MILLRACE_ASSIGN_OR_RETURN(const Event begin, Event::Create(device, Event::Timing::kOn));
  MILLRACE_ASSIGN_OR_RETURN(const Event end, Event::Create(device, Event::Timing::kOn));
  double best = 0;  // bytes per second
  const absl::Time start = absl::Now();
  for (int round = 0; round < kMaxRounds && absl::Now() - start < kMeasureFor; ++round) {
    MILLRACE_RETURN_IF_ERROR(begin.Record(stream));
    MILLRACE_RETURN_IF_ERROR(queue());
    MILLRACE_RETURN_IF_ERROR(end.Record(stream));
    MILLRACE_RETURN_IF_ERROR(end.Wait(kTimeout));
    MILLRACE_ASSIGN_OR_RETURN(const absl::Duration took, end.Since(begin));
    const double seconds = absl::ToDoubleSeconds(took);
    if (seconds > 0) best = std::max(best, static_cast<double>(bytes.count()) / seconds);
  }
  return Bandwidth::BytesPerSecond(best);
}

absl::StatusOr<Bandwidth> MeasureRead(int device, Bytes room, int multiprocessors) {
  const Bytes size(std::min(kReadBuffer, room).count() / 4096 * 4096 - 4096);
  MILLRACE_ASSIGN_OR_RETURN(const DeviceBuffer buffer, DeviceBuffer::Create(device, size + 4096_B));
  MILLRACE_ASSIGN_OR_RETURN(const Stream stream, Stream::Create(device));
  auto* sink = reinterpret_cast<uint32_t*>(static_cast<char*>(buffer.data()) + size.count());
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(
      buffer.data(), 1, static_cast<size_t>(buffer.size().count()), stream.view().get()));
  absl::StatusOr<Bandwidth> best = Best(device, stream.view(), size, [&] {
    return ReadAll(buffer.data(), size.count(), sink, multiprocessors, stream.view());
  });
  MILLRACE_RETURN_IF_ERROR(stream.view().Wait(kTimeout));
  return best;
}

absl::StatusOr<Bandwidth> MeasureUpload(int device, Bytes room) {
  const Bytes chunk = std::min(kUploadChunk, Bytes(room.count() / kPinnedChunks));
  const Bytes held = chunk * kPinnedChunks;
  MILLRACE_ASSIGN_OR_RETURN(const PinnedBuffer host, PinnedBuffer::Create(held));
  MILLRACE_ASSIGN_OR_RETURN(const DeviceBuffer buffer, DeviceBuffer::Create(device, held));
  MILLRACE_ASSIGN_OR_RETURN(const Stream stream, Stream::Create(device));
  const auto queue = [&]() -> absl::Status {
    for (int i = 0; i < kUploadChunks; ++i) {
      const int64_t at = (chunk * (i % kPinnedChunks)).count();
      MILLRACE_RETURN_IF_ERROR(CopyAsync(static_cast<char*>(buffer.data()) + at,
                                         static_cast<const char*>(host.data()) + at, chunk,
                                         stream.view()));
    }
    return absl::OkStatus();
  };
  absl::StatusOr<Bandwidth> best =
      Best(device, stream.view(), chunk * kUploadChunks, queue);
  MILLRACE_RETURN_IF_ERROR(stream.view().Wait(kTimeout));
  return best;
}

absl::StatusOr<int> Attribute(int device, cudaDeviceAttr attribute) {
  int value = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

absl::Status MemoryInfo(Bytes& free, Bytes& total) {
  size_t free_bytes = 0, total_bytes = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaMemGetInfo(&free_bytes, &total_bytes));
  free = Bytes(static_cast<int64_t>(free_bytes));
  total = Bytes(static_cast<int64_t>(total_bytes));
  return absl::OkStatus();
}

absl::StatusOr<DeviceProbe> ProbeHere(int index, Bytes budget) {
  DeviceProbe probe;
  char pci[32] = {};
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaDeviceGetPCIBusId(pci, sizeof(pci), index));
  const Bytes before = DriverFreeMemory(pci).value_or(Bytes(-1));
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaSetDevice(index));
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaFree(nullptr));  // makes the context
  cudaDeviceProp properties;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaGetDeviceProperties(&properties, index));
  probe.name = properties.name;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaDriverGetVersion(&probe.driver));
  probe.sm = 10 * properties.major + properties.minor;
  probe.multiprocessors = properties.multiProcessorCount;
  MILLRACE_ASSIGN_OR_RETURN(const int khz, Attribute(index, cudaDevAttrClockRate));
  probe.clock_hz = 1e3 * khz;
  MILLRACE_RETURN_IF_ERROR(MemoryInfo(probe.free_memory, probe.total_memory));
  const Bytes room = BufferRoom(budget, probe.free_memory);
  MILLRACE_ASSIGN_OR_RETURN(probe.read, MeasureRead(index, room, probe.multiprocessors));
  MILLRACE_ASSIGN_OR_RETURN(probe.upload, MeasureUpload(index, room));
  MILLRACE_RETURN_IF_ERROR(MemoryInfo(probe.free_memory, probe.total_memory));
  const Bytes after = DriverFreeMemory(pci).value_or(Bytes(-1));
  probe.context = ContextBytes(before, after, probe.total_memory, probe.free_memory);
  return probe;
}

}  // namespace

Bytes BufferRoom(Bytes budget, Bytes free) {
  constexpr Bytes kLeast = 1_MiB;
  return std::max(kLeast, Bytes(std::min(budget, free).count() / 4));
}

DeviceNames ListDeviceNames() {
  DeviceNames list;
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    (void)cudaGetLastError();
    list.reason = absl::StrCat("CUDA: ", cudaGetErrorString(error));  // for people: no line
    return list;
  }
  if (count == 0) list.reason = "the CUDA driver lists no device";
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    const bool known = MILLRACE_CUDA_STATUS(cudaGetDeviceProperties(&properties, i)).ok();
    list.names.push_back(known ? properties.name : "unknown");
  }
  return list;
}

absl::StatusOr<DeviceProbe> ProbeDevice(int index, Bytes budget) {
  // The current device belongs to the thread. Giving back the caller's would open a context there,
  // so a thread of its own does the work.
  absl::StatusOr<DeviceProbe> probe;
  std::thread thread([&] { probe = ProbeHere(index, budget); });
  thread.join();
  return probe;
}

absl::StatusOr<Bytes> FreeMemory(int index) {
  absl::StatusOr<Bytes> result;
  std::thread thread([&] {  // for the reason that ProbeDevice has
    Bytes free, total;
    absl::Status status = MILLRACE_CUDA_STATUS(cudaSetDevice(index));
    if (status.ok()) status = MemoryInfo(free, total);
    if (status.ok()) {
      result = free;
    } else {
      result = status;
    }
  });
  thread.join();
  return result;
}

Bytes ContextBytes(Bytes before, Bytes after, Bytes total, Bytes free) {
  const bool counted = before >= Bytes(0) && after >= Bytes(0);
  if (counted && before - after >= kLeastContext) return before - after;
  return std::min(total - free, kLargestContext);
}

}  // namespace millrace::cuda
