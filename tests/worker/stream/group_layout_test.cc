// Where a group's tiles lie, and the chunks they are made from.
#include "worker/backend/cuda/group_layout.h"

#include <gmock/gmock.h>

#include <deque>
#include <random>

#include "absl/strings/str_cat.h"
#include "proto/device_layout.h"
#include "worker/stream/stream_group.h"

namespace millrace {
namespace {

// Matrices of zeros.
struct Matrices {
  void Add(DType dtype, int64_t rows, int64_t cols) {
    TensorSpec& spec = specs.emplace_back();
    spec.name = absl::StrCat("m", specs.size());
    spec.dtype = dtype;
    spec.shape = {rows, cols};
    const auto size = static_cast<size_t>((RowBytes(dtype, cols) * rows).count());
    tensors.push_back({&spec, bytes.emplace_back(size)});
  }
  std::deque<TensorSpec> specs;
  std::deque<std::vector<std::byte>> bytes;
  std::vector<HostTensor> tensors;
};

TEST(GroupLayoutTest, NeighboursOfOneTypeAreOneRun) {
  Matrices m;
  m.Add(DType::kQ4_K, 32, 256);  // q
  m.Add(DType::kQ4_K, 16, 256);  // k: joined
  m.Add(DType::kQ6_K, 16, 256);  // v: another type
  const GroupLayout layout = LayOutGroup(m.tensors);
  ASSERT_EQ(layout.group.runs.size(), 2u);
  EXPECT_EQ(layout.group.runs[0].tiles.rows, 48);
  EXPECT_EQ(layout.group.runs[1].tiles.rows, 16);
  EXPECT_EQ(layout.group.rows, 64);
  EXPECT_THAT(layout.group.part_rows, ::testing::ElementsAre(32, 16, 16));
  // 144 bytes per 256 values of Q4_K, 210 of Q6_K.
  EXPECT_EQ(layout.PartOffset(1), Bytes(32 * 144));
  EXPECT_EQ(layout.PartOffset(2), Bytes(48 * 144));
  EXPECT_EQ(layout.bytes, RoundUp(Bytes(48 * 144), 256_B) + RoundUp(Bytes(16 * 210), 256_B));
  alignas(256) std::byte memory[16384];
  const PlacedGroup placed = layout.At(memory);
  EXPECT_EQ(placed.runs[0].tiles.data, reinterpret_cast<const uint8_t*>(memory));
  EXPECT_EQ(placed.runs[1].tiles.data, reinterpret_cast<const uint8_t*>(memory) + 48 * 144);
}

TEST(GroupLayoutTest, RowsThatDoNotFillATileEndTheRun) {
  Matrices m;
  m.Add(DType::kQ8_0, 20, 64);
  m.Add(DType::kQ8_0, 16, 64);
  const GroupLayout layout = LayOutGroup(m.tensors);
  ASSERT_EQ(layout.group.runs.size(), 2u);
  EXPECT_EQ(layout.run_offsets[1], RoundUp(Bytes(32 * 68), 256_B));
}

TEST(StreamGroupTest, ChunksCoverEachMatrixInWholeStrips) {
  std::mt19937 rng(std::random_device{}());
  for (int round = 0; round < 200; ++round) {
    Matrices m;
    const int64_t cols = 256 * (1 + static_cast<int64_t>(rng() % 4));
    for (size_t i = 0; i < 1 + rng() % 3; ++i) {
      m.Add(kAllDTypes[rng() % kAllDTypes.size()], 1 + static_cast<int64_t>(rng() % 200), cols);
    }
    const GroupLayout layout = LayOutGroup(m.tensors);
    const Bytes limit(static_cast<int64_t>(70000 + rng() % 100000));
    const auto group = MakeStreamGroup(3, m.tensors, layout, limit);
    ASSERT_TRUE(group.ok()) << group.status();
    EXPECT_EQ(group->ring_bytes, layout.bytes);
    std::vector<const std::byte*> next;
    for (const HostTensor& t : m.tensors) next.push_back(t.bytes.data());
    Bytes tiles;
    for (const StreamChunk& c : group->chunks) {
      const auto part = static_cast<size_t>(c.part);
      const TensorSpec& spec = *m.tensors[part].spec;
      EXPECT_EQ(c.group, 3);
      EXPECT_EQ(c.bytes.data(), next[part]);
      next[part] += c.bytes.size();
      EXPECT_LE(c.bytes.size(), static_cast<size_t>(limit.count()));
      EXPECT_EQ(c.first_row % kTileRows, 0);
      EXPECT_EQ(static_cast<int64_t>(c.bytes.size()), RowBytes(spec.dtype, cols).count() * c.rows);
      EXPECT_TRUE(c.rows % kTileRows == 0 || c.first_row + c.rows == spec.rows());
      const Bytes end = c.offset + TiledBytes(spec.dtype, c.rows, cols);
      EXPECT_LE(end, layout.bytes);
      EXPECT_GE(c.offset, tiles);  // none lies on the one before
      tiles = end;
    }
    for (size_t i = 0; i < next.size(); ++i) {
      EXPECT_EQ(next[i], m.tensors[i].bytes.data() + m.tensors[i].bytes.size());
    }
  }
}

// Columns of a wider matrix: chunks skip from row to row, and what crosses the link has no gaps.
TEST(StreamGroupTest, ChunksOfColumnsCoverEveryRow) {
  Matrices m;
  m.Add(DType::kQ6_K, 100, 1024);
  TensorSpec spec = *m.tensors[0].spec;
  spec.shape = {100, 768};
  const Bytes stride = RowBytes(DType::kQ6_K, 1024), row = RowBytes(DType::kQ6_K, 768);
  spec.size = row * 100;
  const HostTensor columns = {&spec,
                              m.tensors[0].bytes.subspan(static_cast<size_t>((stride - row).count())),
                              stride};
  const GroupLayout layout = LayOutGroup({&columns, 1});
  const auto group = MakeStreamGroup(0, {&columns, 1}, layout, row * 40);
  ASSERT_TRUE(group.ok()) << group.status();
  int64_t rows = 0;
  Bytes crossed;
  for (const StreamChunk& c : group->chunks) {
    EXPECT_EQ(c.first_row, rows);
    EXPECT_EQ(c.bytes.data(), columns.bytes.data() + stride.count() * rows);
    EXPECT_EQ(c.row_stride, stride);
    EXPECT_EQ(c.size(), row * c.rows);
    EXPECT_EQ(Bytes(static_cast<int64_t>(c.bytes.size())), stride * (c.rows - 1) + row);
    EXPECT_EQ(c.offset, TiledBytes(DType::kQ6_K, rows, 768));
    rows += c.rows;
    crossed += c.size();
  }
  EXPECT_EQ(rows, 100);
  EXPECT_EQ(crossed, spec.size);
}

TEST(StreamGroupTest, RowsTooLongForAChunkNameTheTensor) {
  Matrices m;
  m.Add(DType::kF32, 16, 1024);
  const auto group = MakeStreamGroup(0, m.tensors, LayOutGroup(m.tensors), 65535_B);
  EXPECT_EQ(group.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(group.status().message(), ::testing::HasSubstr("m1"));
  EXPECT_TRUE(MakeStreamGroup(0, m.tensors, LayOutGroup(m.tensors), 65536_B).ok());
}

}  // namespace
}  // namespace millrace
