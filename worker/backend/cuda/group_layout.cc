#include "worker/backend/cuda/group_layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "proto/device_layout.h"

namespace millrace {
namespace {

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

bool Joins(const HostTensor& before, const HostTensor& next) {
  return before.spec->dtype == next.spec->dtype && before.spec->rows() % kTileRows == 0;
}

}  // namespace

int LargestExponent(const HostTensor& matrix) {
  if (matrix.largest_exponent >= 0) return matrix.largest_exponent;
  if (matrix.spec->dtype == DType::kBF16) {
    return LargestWord<uint16_t>(matrix.bytes, 0x7fff) >> 7;
  }
  if (matrix.spec->dtype == DType::kF32) {
    return static_cast<int>(LargestWord<uint32_t>(matrix.bytes, 0x7fffffffu) >> 23);
  }
  return 0;
}

float TileMultiplier(absl::Span<const HostTensor> matrices) {
  int exponent = 0;
  for (const HostTensor& m : matrices) exponent = std::max(exponent, LargestExponent(m));
  return exponent == 0 ? 1.0f : std::ldexp(1.0f, std::min(exponent, 254) - 127 - 14);
}

std::pair<WeightTiles, WeightTiles> GateAndUp(const PlacedGroup& group) {
  WeightTiles gate = group.runs[0].tiles, up = group.runs.back().tiles;
  gate.rows = group.part_rows[0];
  if (group.runs.size() == 1) {
    up.rows = group.part_rows[1];
    up.data += TiledBytes(gate.dtype, gate.rows, gate.cols).count();
  }
  return {gate, up};
}

GroupLayout LayOutGroup(absl::Span<const HostTensor> matrices) {
  GroupLayout layout;
  for (size_t first = 0; first < matrices.size();) {
    size_t end = first + 1;
    while (end < matrices.size() && Joins(matrices[end - 1], matrices[end])) ++end;
    const absl::Span<const HostTensor> parts = matrices.subspan(first, end - first);
    WeightRun run;
    run.tiles.dtype = TiledType(parts[0].spec->dtype);
    run.tiles.cols = parts[0].spec->cols();
    run.tiles.multiplier = TileMultiplier(parts);
    Bytes offset;
    for (const HostTensor& m : parts) {
      GroupPart part{m.spec->dtype, layout.group.runs.size(), offset, run.tiles};
      part.tiles.rows = m.spec->rows();
      offset += TiledBytes(part.tiles.dtype, part.tiles.rows, part.tiles.cols);
      run.tiles.rows += part.tiles.rows;
      layout.group.part_rows.push_back(part.tiles.rows);
      layout.parts.push_back(part);
    }
    layout.group.rows += run.tiles.rows;
    layout.group.cols = run.tiles.cols;
    layout.group.runs.push_back(run);
    layout.run_offsets.push_back(layout.bytes);
    layout.bytes += RoundUp(offset, kDeviceAlignment);
    first = end;
  }
  return layout;
}

PlacedGroup GroupLayout::At(const std::byte* base) const {
  PlacedGroup placed = group;
  for (size_t i = 0; i < placed.runs.size(); ++i) {
    placed.runs[i].tiles.data = reinterpret_cast<const uint8_t*>(base + run_offsets[i].count());
  }
  return placed;
}

}  // namespace millrace
