#include "worker/backend/cuda/prefill_matmul.h"

#include <utility>

#include "kernels/elementwise_cuda.h"
#include "kernels/weight_tiles_cuda.h"
#include "proto/status_macros.h"

namespace millrace {

absl::StatusOr<PrefillMatmul> PrefillMatmul::Create(int device, cuda::GemmEngine engine,
                                                    std::array<__half*, 2> buffers,
                                                    size_t capacity,
                                                    const std::vector<PlacedGroup>* groups) {
  MILLRACE_ASSIGN_OR_RETURN(auto side, cuda::Stream::Create(device));
  PrefillMatmul out(std::move(engine), std::move(side), groups);
  out.capacity_ = static_cast<int64_t>(capacity);
  for (__half* data : buffers) {
    MILLRACE_ASSIGN_OR_RETURN(auto ready, cuda::Event::Create(device));
    MILLRACE_ASSIGN_OR_RETURN(auto free, cuda::Event::Create(device));
    out.buffers_.push_back({data, -1, std::move(ready), std::move(free)});
  }
  return out;
}

absl::Status PrefillMatmul::Prepare(int index) {
  Buffer& buffer = buffers_[static_cast<size_t>(index % 2)];
  if (buffer.group == index) return absl::OkStatus();
  const PlacedGroup& group = (*groups_)[static_cast<size_t>(index)];
  MILLRACE_RETURN_IF_ERROR(buffer.free.Block(side_.view()));
  __half* to = buffer.data;
  for (const WeightRun& run : group.runs) {
    MILLRACE_RETURN_IF_ERROR(cuda::DequantizeTiles(run.tiles, to, group.cols, side_.view()));
    to += run.tiles.rows * group.cols;
  }
  buffer.group = index;
  return buffer.ready.Record(side_.view());
}

absl::Status PrefillMatmul::Multiply(int index, const __half* x, int64_t n, int64_t ldx,
                                     bool accumulate, float* out, int64_t ldo,
                                     cuda::StreamView stream) {
  MILLRACE_CHECK((*groups_)[static_cast<size_t>(index)].rows *
                     (*groups_)[static_cast<size_t>(index)].cols <= capacity_);
  MILLRACE_RETURN_IF_ERROR(Prepare(index));
  Buffer& buffer = buffers_[static_cast<size_t>(index % 2)];
  const PlacedGroup& group = (*groups_)[static_cast<size_t>(index)];
  MILLRACE_RETURN_IF_ERROR(buffer.ready.Block(stream));
  // Runs of one multiplier are one product.
  const __half* w = buffer.data;
  for (size_t first = 0; first < group.runs.size();) {
    size_t end = first;
    int64_t rows = 0;
    const float multiplier = group.runs[first].tiles.multiplier;
    while (end < group.runs.size() && group.runs[end].tiles.multiplier == multiplier) {
      rows += group.runs[end++].tiles.rows;
    }
    MILLRACE_RETURN_IF_ERROR(engine_.Gemm(x, n, group.cols, ldx, w, rows, group.cols, multiplier, out,
                                          ldo, accumulate, stream));
    float* column = out;
    for (size_t i = first; i < end; ++i) {
      const WeightRun& run = group.runs[i];
      if (run.bias != nullptr) {
        MILLRACE_RETURN_IF_ERROR(cuda::AddBias(column, ldo, n, run.tiles.rows, run.bias, stream));
      }
      column += run.tiles.rows;
    }
    w += rows * group.cols;
    out += rows;
    first = end;
  }
  MILLRACE_RETURN_IF_ERROR(buffer.free.Record(stream));
  const size_t next = static_cast<size_t>(index) + 1;
  const bool another =
      next < groups_->size() && (*groups_)[next].rows * (*groups_)[next].cols <= capacity_;
  return another ? Prepare(index + 1) : absl::OkStatus();
}

}  // namespace millrace
