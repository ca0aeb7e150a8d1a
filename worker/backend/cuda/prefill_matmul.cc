#include "worker/backend/cuda/prefill_matmul.h"

#include <utility>

#include "kernels/elementwise_cuda.h"
#include "kernels/weight_tiles_cuda.h"
#include "proto/status_macros.h"

namespace millrace {

absl::StatusOr<PrefillMatmul> PrefillMatmul::Create(int device, cuda::GemmEngine engine,
                                                    std::array<__half*, 2> buffers,
                                                    size_t capacity,
                                                    const std::vector<PlacedGroup>* groups,
                                                    Bring bring) {
  MILLRACE_ASSIGN_OR_RETURN(auto side, cuda::Stream::Create(device));
  PrefillMatmul out(std::move(engine), std::move(side), groups, std::move(bring));
  out.capacity_ = static_cast<int64_t>(capacity);
  for (__half* data : buffers) {
    MILLRACE_ASSIGN_OR_RETURN(auto ready, cuda::Event::Create(device));
    MILLRACE_ASSIGN_OR_RETURN(auto free, cuda::Event::Create(device));
    out.buffers_.push_back({data, -1, std::move(ready), std::move(free)});
  }
  return out;
}

void PrefillMatmul::Expect(std::vector<int> order) {
  order_ = std::move(order);
  next_ = 0;
  for (Buffer& buffer : buffers_) buffer.at = -1;
}

absl::Status PrefillMatmul::Prepare(size_t at) {
  Buffer& buffer = buffers_[at % 2];
  if (buffer.at == static_cast<int64_t>(at)) return absl::OkStatus();
  const int index = order_[at];
  MILLRACE_RETURN_IF_ERROR(buffer.free.Block(side_.view()));
  MILLRACE_ASSIGN_OR_RETURN(const WeightLease in_use, bring_(index, side_.view()));
  const PlacedGroup& group = (*groups_)[static_cast<size_t>(index)];
  __half* to = buffer.data;
  for (const WeightRun& run : group.runs) {
    MILLRACE_RETURN_IF_ERROR(cuda::DequantizeTiles(run.tiles, to, group.cols, side_.view()));
    to += run.tiles.rows * group.cols;
  }
  buffer.at = static_cast<int64_t>(at);
  return buffer.ready.Record(side_.view());
}

absl::Status PrefillMatmul::ForRuns(
    int index, cuda::StreamView stream,
    absl::FunctionRef<absl::Status(const __half*, int64_t, float, int64_t)> product) {
  const PlacedGroup& group = (*groups_)[static_cast<size_t>(index)];
  MILLRACE_CHECK(group.rows * group.cols <= capacity_);
  MILLRACE_CHECK(next_ < order_.size() && order_[next_] == index);
  const size_t at = next_++;
  MILLRACE_RETURN_IF_ERROR(Prepare(at));
  Buffer& buffer = buffers_[at % 2];
  MILLRACE_RETURN_IF_ERROR(buffer.ready.Block(stream));
  int64_t row = 0;
  for (size_t i = 0; i < group.runs.size();) {
    int64_t rows = 0;
    const float multiplier = group.runs[i].tiles.multiplier;
    while (i < group.runs.size() && group.runs[i].tiles.multiplier == multiplier) {
      rows += group.runs[i++].tiles.rows;
    }
    MILLRACE_RETURN_IF_ERROR(product(buffer.data + row * group.cols, rows, multiplier, row));
    row += rows;
  }
  MILLRACE_RETURN_IF_ERROR(buffer.free.Record(stream));
  return at + 1 < order_.size() ? Prepare(at + 1) : absl::OkStatus();
}

absl::Status PrefillMatmul::Multiply(int index, const __half* x, int64_t n, int64_t ldx,
                                     bool accumulate, float* out, int64_t ldo,
                                     cuda::StreamView stream) {
  const PlacedGroup& group = (*groups_)[static_cast<size_t>(index)];
  MILLRACE_RETURN_IF_ERROR(ForRuns(
      index, stream, [&](const __half* w, int64_t rows, float multiplier, int64_t row) {
        return engine_.Gemm(x, n, group.cols, ldx, w, rows, group.cols, multiplier, out + row, ldo,
                            accumulate, stream);
      }));
  for (const WeightRun& run : group.runs) {
    if (run.bias != nullptr) {
      MILLRACE_RETURN_IF_ERROR(cuda::AddBias(out, ldo, n, run.tiles.rows, run.bias, stream));
    }
    out += run.tiles.rows;
  }
  return absl::OkStatus();
}

absl::Status PrefillMatmul::MultiplyToHalf(int index, const __half* x, int64_t n, int64_t ldx,
                                           __half* out, int64_t ldo, cuda::StreamView stream) {
  const PlacedGroup& group = (*groups_)[static_cast<size_t>(index)];
  return ForRuns(index, stream,
                 [&](const __half* w, int64_t rows, float multiplier, int64_t row) {
                   return engine_.GemmHalf(x, n, group.cols, ldx, w, rows, group.cols, multiplier,
                                           out + row, ldo, stream);
                 });
}

}  // namespace millrace
