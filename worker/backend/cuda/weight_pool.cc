#include "worker/backend/cuda/weight_pool.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/matmul.h"
#include "kernels/weight_tiles_cuda.h"
#include "proto/device_layout.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(60);
constexpr size_t kSlotBytes = size_t{8} << 20;

}  // namespace

absl::StatusOr<WeightPool> WeightPool::Create(cuda::DeviceBuffer memory, std::byte* staging,
                                              Bytes staging_size, cuda::StreamView stream) {
  MILLRACE_CHECK(staging_size >= kLeastStaging);
  WeightPool pool(std::move(memory), stream);
  pool.slot_bytes_ = std::min(kSlotBytes, static_cast<size_t>(staging_size.count()) / 2);
  for (size_t i = 0; i < 2; ++i) {
    MILLRACE_ASSIGN_OR_RETURN(
        auto pinned, cuda::PinnedBuffer::Create(Bytes(static_cast<int64_t>(pool.slot_bytes_))));
    MILLRACE_ASSIGN_OR_RETURN(auto free, cuda::Event::Create(pool.memory_.device()));
    pool.slots_.push_back({std::move(pinned), std::move(free), staging + i * pool.slot_bytes_});
  }
  return pool;
}

absl::StatusOr<std::byte*> WeightPool::Take(Bytes size) {
  const size_t begin = used_;
  used_ += static_cast<size_t>(RoundUp(size, kDeviceAlignment).count());
  if (used_ > static_cast<size_t>(memory_.size().count())) {
    return absl::InternalError(absl::StrCat("weights take more than the ", memory_.size().count(),
                                            " bytes that were counted for them"));
  }
  return static_cast<std::byte*>(memory_.data()) + begin;
}

absl::StatusOr<WeightPool::Slot*> WeightPool::Fill(const std::byte* from, size_t size) {
  Slot& slot = slots_[next_slot_++ % slots_.size()];
  MILLRACE_RETURN_IF_ERROR(slot.free.Wait(kTimeout));
  std::memcpy(slot.pinned.data(), from, size);
  return &slot;
}

absl::Status WeightPool::Upload(const std::byte* from, size_t size, std::byte* to) {
  for (size_t at = 0; at < size; at += slot_bytes_) {
    const size_t part = std::min(slot_bytes_, size - at);
    MILLRACE_ASSIGN_OR_RETURN(Slot * slot, Fill(from + at, part));
    MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(to + at, slot->pinned.data(),
                                             Bytes(static_cast<int64_t>(part)), stream_));
    MILLRACE_RETURN_IF_ERROR(slot->free.Record(stream_));
  }
  return absl::OkStatus();
}

absl::Status WeightPool::UploadTiles(const HostTensor& matrix, const WeightTiles& tiles,
                                     uint8_t* data) {
  const DType source = matrix.spec->dtype;
  const size_t row_bytes = static_cast<size_t>(RowBytes(source, tiles.cols).count());
  const int64_t rows_at_a_time = static_cast<int64_t>(slot_bytes_ / row_bytes) / kTileRows * kTileRows;
  if (rows_at_a_time == 0) {
    return absl::UnimplementedError(absl::StrCat("tensor ", matrix.spec->name, ": rows of ", row_bytes,
                                                 " bytes are too long for the GPU's loader"));
  }
  for (int64_t row = 0; row < tiles.rows; row += rows_at_a_time) {
    const int64_t rows = std::min(rows_at_a_time, tiles.rows - row);
    const size_t size = static_cast<size_t>(rows) * row_bytes;
    MILLRACE_ASSIGN_OR_RETURN(Slot * slot,
                              Fill(matrix.bytes.data() + static_cast<size_t>(row) * row_bytes, size));
    MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(slot->staging, slot->pinned.data(),
                                             Bytes(static_cast<int64_t>(size)), stream_));
    MILLRACE_RETURN_IF_ERROR(cuda::TileRows(source, reinterpret_cast<uint8_t*>(slot->staging), row,
                                            rows, tiles, data, stream_));
    MILLRACE_RETURN_IF_ERROR(slot->free.Record(stream_));
  }
  return absl::OkStatus();
}

absl::StatusOr<PlacedGroup> WeightPool::PlaceMatrices(absl::Span<const HostTensor> matrices,
                                                      absl::Span<const HostTensor> biases) {
  const GroupLayout layout = LayOutGroup(matrices);
  PlacedGroup group = layout.group;
  size_t part = 0;
  for (size_t r = 0; r < group.runs.size(); ++r) {
    WeightRun& run = group.runs[r];
    MILLRACE_ASSIGN_OR_RETURN(std::byte * memory,
                              Take(TiledBytes(run.tiles.dtype, run.tiles.rows, run.tiles.cols)));
    auto* data = reinterpret_cast<uint8_t*>(memory);
    run.tiles.data = data;
    const size_t first = part;
    for (; part < layout.parts.size() && layout.parts[part].run == r; ++part) {
      WeightTiles tiles = layout.parts[part].tiles;
      uint8_t* to = data + layout.parts[part].offset.count();
      tiles.data = to;
      MILLRACE_RETURN_IF_ERROR(UploadTiles(matrices[part], tiles, to));
    }
    if (!biases.empty()) {
      MILLRACE_ASSIGN_OR_RETURN(run.bias, PlaceVectors(biases.subspan(first, part - first)));
    }
  }
  return group;
}

absl::Status WeightPool::PlaceBiases(absl::Span<const HostTensor> biases, GroupLayout* layout) {
  if (biases.empty()) return absl::OkStatus();
  MILLRACE_CHECK(biases.size() == layout->parts.size());
  size_t first = 0;
  for (size_t r = 0; r < layout->group.runs.size(); ++r) {
    size_t end = first;
    while (end < layout->parts.size() && layout->parts[end].run == r) ++end;
    MILLRACE_ASSIGN_OR_RETURN(layout->group.runs[r].bias,
                              PlaceVectors(biases.subspan(first, end - first)));
    first = end;
  }
  return absl::OkStatus();
}

absl::StatusOr<const float*> WeightPool::PlaceVectors(absl::Span<const HostTensor> vectors) {
  std::vector<float> values;
  for (const HostTensor& v : vectors) {
    if (v.spec == nullptr) continue;
    const size_t at = values.size();
    values.resize(at + static_cast<size_t>(v.spec->cols()));
    DequantizeRow(v.spec->dtype, v.bytes.data(), v.spec->cols(), values.data() + at);
  }
  if (values.empty()) return nullptr;
  const size_t size = values.size() * sizeof(float);
  MILLRACE_ASSIGN_OR_RETURN(std::byte * to, Take(Bytes(static_cast<int64_t>(size))));
  MILLRACE_RETURN_IF_ERROR(Upload(reinterpret_cast<const std::byte*>(values.data()), size, to));
  return reinterpret_cast<const float*>(to);
}

absl::StatusOr<const std::byte*> WeightPool::PlaceRaw(const HostTensor& tensor) {
  MILLRACE_ASSIGN_OR_RETURN(std::byte * to, Take(tensor.spec->size));
  MILLRACE_RETURN_IF_ERROR(Upload(tensor.bytes.data(), tensor.bytes.size(), to));
  return to;
}

absl::Status WeightPool::Finish() { return stream_.Wait(kTimeout); }

}  // namespace millrace
