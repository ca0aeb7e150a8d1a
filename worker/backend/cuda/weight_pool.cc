#include "worker/backend/cuda/weight_pool.h"

#include <algorithm>
#include <cmath>
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

template <typename Word>
Word LargestWord(absl::Span<const std::byte> bytes, Word mask) {
  Word largest = 0;
  for (size_t at = 0; at + sizeof(Word) <= bytes.size(); at += sizeof(Word)) {
    Word w;
    std::memcpy(&w, bytes.data() + at, sizeof(w));
    largest = std::max<Word>(largest, w & mask);
  }
  return largest;
}

// Biased exponent of the largest magnitude.
int LargestExponent(const HostTensor& matrix) {
  if (matrix.spec->dtype == DType::kBF16) {
    return LargestWord<uint16_t>(matrix.bytes, 0x7fff) >> 7;
  }
  if (matrix.spec->dtype == DType::kF32) {
    return static_cast<int>(LargestWord<uint32_t>(matrix.bytes, 0x7fffffffu) >> 23);
  }
  return 0;
}

bool Joins(const HostTensor& before, const HostTensor& next) {
  return before.spec->dtype == next.spec->dtype && before.spec->rows() % kTileRows == 0;
}

}  // namespace

float TileMultiplier(absl::Span<const HostTensor> matrices) {
  int exponent = 0;
  for (const HostTensor& m : matrices) exponent = std::max(exponent, LargestExponent(m));
  return exponent == 0 ? 1.0f : std::ldexp(1.0f, std::min(exponent, 254) - 127 - 14);
}

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
  PlacedGroup group;
  for (size_t first = 0; first < matrices.size();) {
    size_t end = first + 1;
    while (end < matrices.size() && Joins(matrices[end - 1], matrices[end])) ++end;
    const absl::Span<const HostTensor> parts = matrices.subspan(first, end - first);
    WeightRun run;
    run.tiles.dtype = TiledType(parts[0].spec->dtype);
    run.tiles.cols = parts[0].spec->cols();
    run.tiles.multiplier = TileMultiplier(parts);
    for (const HostTensor& m : parts) run.tiles.rows += m.spec->rows();
    MILLRACE_ASSIGN_OR_RETURN(std::byte * memory,
                              Take(TiledBytes(run.tiles.dtype, run.tiles.rows, run.tiles.cols)));
    auto* data = reinterpret_cast<uint8_t*>(memory);
    run.tiles.data = data;
    for (const HostTensor& m : parts) {
      WeightTiles part = run.tiles;
      part.rows = m.spec->rows();
      part.data = data;
      MILLRACE_RETURN_IF_ERROR(UploadTiles(m, part, data));
      data += TiledBytes(part.dtype, part.rows, part.cols).count();
      group.part_rows.push_back(part.rows);
    }
    if (!biases.empty()) {
      MILLRACE_ASSIGN_OR_RETURN(run.bias, PlaceVectors(biases.subspan(first, end - first)));
    }
    group.rows += run.tiles.rows;
    group.cols = run.tiles.cols;
    group.runs.push_back(run);
    first = end;
  }
  return group;
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
