#include "kernels/bench/read_ceiling.h"

#include <algorithm>

#include "kernels/cuda/event.h"
#include "kernels/cuda/read_kernel.h"
#include "kernels/cuda/status.h"

namespace millrace {

absl::StatusOr<double> ReadCeiling(const cuda::DeviceBuffer& buffer, cuda::StreamView stream) {
  const int device = buffer.device();
  int multiprocessors = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  MILLRACE_ASSIGN_OR_RETURN(auto sink, cuda::DeviceBuffer::Create(device, Bytes(256)));
  MILLRACE_ASSIGN_OR_RETURN(auto begin, cuda::Event::Create(device, cuda::Event::Timing::kOn));
  MILLRACE_ASSIGN_OR_RETURN(auto end, cuda::Event::Create(device, cuda::Event::Timing::kOn));
  double best = 0;
  for (int i = 0; i < 10; ++i) {
    MILLRACE_RETURN_IF_ERROR(begin.Record(stream));
    MILLRACE_RETURN_IF_ERROR(cuda::ReadAll(buffer.data(), buffer.size().count(),
                                           static_cast<uint32_t*>(sink.data()), multiprocessors,
                                           stream));
    MILLRACE_RETURN_IF_ERROR(end.Record(stream));
    MILLRACE_RETURN_IF_ERROR(end.Wait(absl::Seconds(20)));
    MILLRACE_ASSIGN_OR_RETURN(const absl::Duration took, end.Since(begin));
    best = std::max(best,
                    static_cast<double>(buffer.size().count()) / absl::ToDoubleNanoseconds(took));
  }
  return best;
}

}  // namespace millrace
