// Stream owns a CUDA stream, StreamView names one. There is no default stream here: every
// asynchronous function takes a StreamView, last.
#ifndef MILLRACE_KERNELS_CUDA_STREAM_H_
#define MILLRACE_KERNELS_CUDA_STREAM_H_

#include <cuda_runtime_api.h>

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace millrace::cuda {

class StreamView {
 public:
  explicit StreamView(cudaStream_t stream);  // not null: CHECKed
  cudaStream_t get() const { return stream_; }

  // Until everything queued so far is done; DeadlineExceeded after `timeout`, and the work goes on.
  absl::Status Wait(absl::Duration timeout) const;

 private:
  cudaStream_t stream_;
};

// Move-only. Non-blocking towards the legacy default stream. The destructor does not wait: CUDA
// frees the stream when its queued work is done.
class Stream {
 public:
  static absl::StatusOr<Stream> Create(int device);
  StreamView view() const { return StreamView(stream_.get()); }
  int device() const { return device_; }

 private:
  struct Destroy {
    void operator()(cudaStream_t s) const { (void)cudaStreamDestroy(s); }
  };
  Stream(cudaStream_t stream, int device) : stream_(stream), device_(device) {}
  std::unique_ptr<CUstream_st, Destroy> stream_;
  int device_;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_STREAM_H_
