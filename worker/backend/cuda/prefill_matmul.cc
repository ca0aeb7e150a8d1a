#include "worker/backend/cuda/prefill_matmul.h"

#include <algorithm>
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

void PrefillMatmul::Cut(int index) {
  const PlacedGroup& group = (*groups_)[static_cast<size_t>(index)];
  const int64_t most = capacity_ / group.cols / kTileRows * kTileRows;
  MILLRACE_CHECK(most > 0);
  const size_t first = pieces_.size();
  int64_t column = 0;
  for (size_t r = 0; r < group.runs.size(); ++r) {
    const int64_t rows = group.runs[r].tiles.rows;
    // Equal pieces, rather than a small last one.
    const int64_t count = (rows + most - 1) / most;
    const int64_t step = ((rows + count - 1) / count + kTileRows - 1) / kTileRows * kTileRows;
    for (int64_t row = 0; row < rows; row += step) {
      pieces_.push_back({index, r, row, std::min(step, rows - row), column + row, false, false});
    }
    column += rows;
  }
  pieces_[first].begins = true;
  pieces_.back().ends = true;
}

void PrefillMatmul::Expect(absl::Span<const int> order) {
  pieces_.clear();
  lease_ = WeightLease();
  next_ = 0;
  for (int group : order) Cut(group);
  for (Buffer& buffer : buffers_) buffer.at = -1;
}

absl::Status PrefillMatmul::Prepare(size_t at) {
  Buffer& buffer = buffers_[at % 2];
  if (buffer.at == static_cast<int64_t>(at)) return absl::OkStatus();
  const Piece& piece = pieces_[at];
  MILLRACE_RETURN_IF_ERROR(buffer.free.Block(side_.view()));
  if (piece.begins) {
    MILLRACE_ASSIGN_OR_RETURN(lease_, bring_(piece.group, side_.view()));
  }
  const PlacedGroup& group = (*groups_)[static_cast<size_t>(piece.group)];
  WeightTiles tiles = group.runs[piece.run].tiles;
  tiles.data += TiledBytes(tiles.dtype, piece.first_row, tiles.cols).count();
  tiles.rows = piece.rows;
  MILLRACE_RETURN_IF_ERROR(cuda::DequantizeTiles(tiles, buffer.data, group.cols, side_.view()));
  if (piece.ends) MILLRACE_RETURN_IF_ERROR(lease_.Release());
  buffer.at = static_cast<int64_t>(at);
  return buffer.ready.Record(side_.view());
}

absl::Status PrefillMatmul::ForPieces(
    int index, cuda::StreamView stream,
    absl::FunctionRef<absl::Status(const __half*, int64_t, float, int64_t)> product) {
  MILLRACE_CHECK(next_ < pieces_.size() && pieces_[next_].group == index && pieces_[next_].begins);
  for (bool last = false; !last; ++next_) {
    const Piece& piece = pieces_[next_];
    last = piece.ends;
    MILLRACE_RETURN_IF_ERROR(Prepare(next_));
    Buffer& buffer = buffers_[next_ % 2];
    MILLRACE_RETURN_IF_ERROR(buffer.ready.Block(stream));
    const PlacedGroup& group = (*groups_)[static_cast<size_t>(index)];
    MILLRACE_RETURN_IF_ERROR(product(buffer.data, piece.rows,
                                     group.runs[piece.run].tiles.multiplier, piece.column));
    MILLRACE_RETURN_IF_ERROR(buffer.free.Record(stream));
    if (next_ + 1 < pieces_.size()) MILLRACE_RETURN_IF_ERROR(Prepare(next_ + 1));
  }
  return absl::OkStatus();
}

absl::Status PrefillMatmul::Multiply(int index, const __half* x, int64_t n, int64_t ldx,
                                     bool accumulate, float* out, int64_t ldo,
                                     cuda::StreamView stream) {
  const PlacedGroup& group = (*groups_)[static_cast<size_t>(index)];
  MILLRACE_RETURN_IF_ERROR(ForPieces(
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
  return ForPieces(index, stream,
                 [&](const __half* w, int64_t rows, float multiplier, int64_t row) {
                   return engine_.GemmHalf(x, n, group.cols, ldx, w, rows, group.cols, multiplier,
                                           out + row, ldo, stream);
                 });
}

}  // namespace millrace
