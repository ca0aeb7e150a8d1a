#include "worker/probe_cuda.h"

#ifdef MILLRACE_HAVE_CUDA
#include "kernels/cuda/device_probe.h"
#include "kernels/cuda/upload_load.h"
#include "kernels/wide_matmul_cuda.h"
#include "worker/backend/cuda/cuda_backend.h"
#include "worker/probe_times.h"
#endif
#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

// Dense f16 multiply-adds per multiprocessor and cycle, f32 accumulation; from the vendor's
// whitepapers (peak flops / 2 / multiprocessors / boost clock). Where cards of one capability
// differ, the lower.
double MultiplyAddsPerCycle(int sm) {
  if (sm >= 120) return 256;   // consumer Blackwell
  if (sm >= 100) return 4096;  // B100, B200
  if (sm >= 90) return 2048;   // H100, H200
  if (sm >= 86) return 256;    // consumer Ampere and Ada
  if (sm >= 80) return 1024;   // A100
  if (sm >= 70) return 512;    // V100, T4
  return 64;                   // no tensor cores
}

}  // namespace

double EstimatedPrefillFlops(int sm, int multiprocessors, double clock_hz) {
  constexpr double kSustained = 0.7;
  return 2 * MultiplyAddsPerCycle(sm) * multiprocessors * clock_hz * kSustained;
}

#ifdef MILLRACE_HAVE_CUDA

GpuSource CudaGpus() {
  GpuSource source;
  source.list = [] {
    cuda::DeviceNames listed = cuda::ListDeviceNames();
    return GpuList{std::move(listed.names), std::move(listed.reason)};
  };
  source.probe = [](int index, Bytes budget) -> absl::StatusOr<GpuReport> {
    MILLRACE_ASSIGN_OR_RETURN(const cuda::DeviceProbe probe, cuda::ProbeDevice(index, budget));
    GpuReport report;
    report.name = probe.name;
    report.total = probe.total_memory;
    report.free = probe.free_memory + probe.context;
    report.direct_products = cuda::HasWideMatmul(index);
    report.overhead =
        probe.context + (report.direct_products ? kCudaKernelReserve : kCudaLibraryReserve);
    report.memory_bandwidth = probe.read;
    report.h2d_bandwidth = probe.upload;
    report.key = absl::StrCat(probe.name, " sm", probe.sm, " cuda", probe.driver);
    report.prefill_flops = EstimatedPrefillFlops(probe.sm, probe.multiprocessors, probe.clock_hz);
    return report;
  };
  source.upload = [](int index,
                     absl::Span<const std::byte> from) -> absl::StatusOr<std::shared_ptr<void>> {
    MILLRACE_ASSIGN_OR_RETURN(auto load, cuda::UploadLoad::Start(index, from));
    return std::shared_ptr<cuda::UploadLoad>(std::move(load));
  };
  source.measure_times = [](int index, Bytes room) {
    return MeasureDeviceTimes({DeviceId(absl::StrCat("gpu", index)), room, MakeCudaBackend});
  };
  return source;
}

absl::StatusOr<Bytes> FreeGpuMemory(int index) { return cuda::FreeMemory(index); }

#else

GpuSource CudaGpus() {
  GpuSource source;
  source.list = [] { return GpuList{{}, "this build has no CUDA"}; };
  source.probe = [](int, Bytes) -> absl::StatusOr<GpuReport> {
    return absl::UnimplementedError("this build has no CUDA");
  };
  return source;
}

absl::StatusOr<Bytes> FreeGpuMemory(int) {
  return absl::UnimplementedError("this build has no CUDA");
}

#endif

}  // namespace millrace
