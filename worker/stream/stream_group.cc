#include "worker/stream/stream_group.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/device_layout.h"
#include "proto/status_macros.h"

namespace millrace {

absl::StatusOr<StreamGroup> MakeStreamGroup(int index, absl::Span<const HostTensor> matrices,
                                            const GroupLayout& layout, Bytes chunk_bytes) {
  MILLRACE_CHECK(!matrices.empty() && matrices.size() == layout.parts.size());
  StreamGroup group;
  group.name = matrices[0].spec->name;
  if (matrices.size() > 1) absl::StrAppend(&group.name, "+", matrices.size() - 1);
  group.ring_bytes = layout.bytes;
  for (size_t p = 0; p < matrices.size(); ++p) {
    const TensorSpec& spec = *matrices[p].spec;
    const WeightTiles& tiles = layout.parts[p].tiles;
    group.parts.push_back(spec.name);
    const int64_t row_bytes = RowBytes(spec.dtype, spec.cols()).count();
    const int64_t step = chunk_bytes.count() / (row_bytes * kTileRows) * kTileRows;
    if (step == 0) {
      return absl::UnimplementedError(absl::StrCat(
          "tensor ", spec.name, ": 16 rows of ", row_bytes, " bytes do not fit a chunk of ",
          FormatBytes(chunk_bytes), " on their way to the GPU"));
    }
    for (int64_t row = 0; row < spec.rows(); row += step) {
      StreamChunk chunk;
      chunk.group = index;
      chunk.part = static_cast<int>(p);
      chunk.first_row = row;
      chunk.rows = std::min(step, spec.rows() - row);
      const Bytes gapped = matrices[p].row_stride;
      const int64_t stride = gapped > Bytes(0) ? gapped.count() : row_bytes;
      chunk.bytes =
          matrices[p].bytes.subspan(static_cast<size_t>(row * stride),
                                    static_cast<size_t>((chunk.rows - 1) * stride + row_bytes));
      if (gapped > Bytes(0)) {
        chunk.row_stride = gapped;
        chunk.row_bytes = Bytes(row_bytes);
      }
      chunk.offset = layout.PartOffset(p) + TiledBytes(tiles.dtype, row, tiles.cols);
      group.chunks.push_back(chunk);
    }
  }
  return group;
}

}  // namespace millrace
