// The receiving side of weight streaming on a GPU. Chunks are copied as they lie in the file into
// one of a few stages on the device, then a kernel puts their tiles into the ring: the copy engine
// and the ring's readers never wait for the host.
//
// Three queues: copies, arrivals (the kernels that make tiles) and the backend's compute stream.
//   copies:   wait until the stage's last chunk was tiled, copy
//   arrivals: wait for the copy; before a group's first tiles, for the releases of what was there
#ifndef MILLRACE_WORKER_STREAM_CUDA_STREAM_DEVICE_H_
#define MILLRACE_WORKER_STREAM_CUDA_STREAM_DEVICE_H_

#include <memory>
#include <vector>

#include "kernels/cuda/buffers.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/stream.h"
#include "worker/backend/cuda/group_layout.h"
#include "worker/stream/stream_device.h"

namespace millrace {

struct CudaStreamOptions {
  Bytes chunk_bytes = 16_MiB;  // largest StreamChunk; MakeStreamGroup's
  int stages = 3;              // of chunk_bytes each
  int slots = 128;             // groups in the ring at a time
  int max_queued_copies = 32;

  Bytes staging_bytes() const { return chunk_bytes * stages; }
};

class CudaStreamDevice : public StreamDevice {
 public:
  // `ring`, `staging` (options.staging_bytes()) and `compute` are of one device; `compute` outlives
  // this. `layouts[g]` is how group g's tiles lie, biases (resident, device memory) already in it.
  static absl::StatusOr<std::unique_ptr<CudaStreamDevice>> Create(const CudaStreamOptions& options,
                                                                  cuda::StreamView compute,
                                                                  cuda::DeviceBuffer ring,
                                                                  cuda::DeviceBuffer staging,
                                                                  std::vector<GroupLayout> layouts);
  // Waits, not for ever, for what is queued.
  ~CudaStreamDevice() override;

  // A leased group where it lies, to be read by work queued after its arrival.
  PlacedGroup Placed(int group, Bytes ring_offset) const;
  // ComputeAfterArrival and RecordRelease mean this stream of the device from here on; at first it is
  // the compute stream. Compute side.
  void ReadBy(cuda::StreamView stream) { compute_ = stream; }

  Bytes ring_size() const override { return ring_.size(); }
  int slots() const override { return options_.slots; }
  int max_queued_copies() const override { return options_.max_queued_copies; }
  absl::Time Now() const override;

  absl::Status WriteAfterRelease(int slot) override;
  absl::Status Copy(const StreamChunk& chunk, const std::byte* from, Bytes ring_offset) override;
  absl::Status RecordArrival(int slot) override;
  absl::StatusOr<std::vector<CopySpan>> Finished() override;
  absl::Status WaitForCopy(absl::Duration timeout) override;
  absl::Status Quiesce(absl::Duration timeout) override;

  // Not while the compute stream is recorded into a graph: positions change from pass to pass.
  absl::Status ComputeAfterArrival(int slot) override;
  absl::Status RecordRelease(int slot) override;

 private:
  struct Stage {
    std::byte* memory = nullptr;
    cuda::Event tiled;  // what was there last is in the ring
  };
  struct Timed {
    cuda::Event begin, end;
  };
  struct Slot {
    cuda::Event arrival, release;
  };
  CudaStreamDevice(const CudaStreamOptions& options, cuda::StreamView compute,
                   cuda::DeviceBuffer ring, cuda::DeviceBuffer staging,
                   std::vector<GroupLayout> layouts, cuda::Stream copies, cuda::Stream arrivals)
      : options_(options),
        compute_(compute),
        ring_(std::move(ring)),
        staging_(std::move(staging)),
        layouts_(std::move(layouts)),
        copies_(std::move(copies)),
        arrivals_(std::move(arrivals)) {}
  absl::Status MakeEvents();
  const Timed& timed(int64_t copy) const {
    return timed_[static_cast<size_t>(copy) % timed_.size()];
  }

  const CudaStreamOptions options_;
  cuda::StreamView compute_;
  const cuda::DeviceBuffer ring_, staging_;
  const std::vector<GroupLayout> layouts_;
  const cuda::Stream copies_, arrivals_;
  std::vector<Stage> stages_;
  std::vector<Slot> slots_;

  // Of the copy side.
  std::vector<Timed> timed_;  // by number of the copy, modulo
  int64_t queued_ = 0, finished_ = 0;
  absl::Time last_end_;  // of copy finished_ - 1
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STREAM_CUDA_STREAM_DEVICE_H_
