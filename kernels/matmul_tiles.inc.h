// Quantised products on tile registers, for five rows of x and more; a template over the tiles, so
// that the tests run it on emulated ones. The file that includes this names the tiles' class.
//
// W is dequantised to bf16 a few KiB at a time, x is rounded to bf16 once, and the tile registers
// accumulate in f32 over all columns. Why not int8 tiles, which have twice the rate: the scales of
// 32 (or 16) columns would end every tile product after 32 (or 16) of its 64 columns, so that the
// rate is halved (or quartered), and the int32 results would have to leave the tiles, be converted,
// scaled by w's and x's scale and added: 48 vector instructions for each tile product of 16 cycles.
// Here a tile product is followed by the next. The rounding of w and x to 8 bits of mantissa costs
// 0.23% where int8 blocks of x cost 0.4 to 0.5%.
//
// Unpacking W is what limits small n, and it runs beside the tile unit: while the products of one
// chunk of columns are under way, the rows of the next chunk are unpacked between them.
#ifndef MILLRACE_KERNELS_MATMUL_TILES_INC_H_
#define MILLRACE_KERNELS_MATMUL_TILES_INC_H_

#include "kernels/matmul_unpack_bf16.inc.h"

namespace millrace {
namespace {

constexpr int kTileValues = 16 * 32;  // bf16 values of one operand tile: 16 rows by 32 columns

// Rows of 16 dwords to columns, in place.
inline void Transpose16(__m512 (&v)[16]) {
  __m512 u[16];
  for (int i = 0; i < 16; i += 2) {
    u[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
    u[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const __m512d a = _mm512_castps_pd(u[i + j]), b = _mm512_castps_pd(u[i + j + 2]);
      v[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      v[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  }
  for (int j = 0; j < 4; ++j) {
    u[j] = _mm512_shuffle_f32x4(v[j], v[4 + j], 0x88);
    u[4 + j] = _mm512_shuffle_f32x4(v[j], v[4 + j], 0xdd);
    u[8 + j] = _mm512_shuffle_f32x4(v[8 + j], v[12 + j], 0x88);
    u[12 + j] = _mm512_shuffle_f32x4(v[8 + j], v[12 + j], 0xdd);
  }
  for (int j = 0; j < 4; ++j) {
    v[j] = _mm512_shuffle_f32x4(u[j], u[8 + j], 0x88);
    v[8 + j] = _mm512_shuffle_f32x4(u[j], u[8 + j], 0xdd);
    v[4 + j] = _mm512_shuffle_f32x4(u[4 + j], u[12 + j], 0x88);
    v[12 + j] = _mm512_shuffle_f32x4(u[4 + j], u[12 + j], 0xdd);
  }
}

// ---- x as operand tiles
// --------------------------------------------------------------------------

// Columns [32 * first, 32 * last) of x [n, cols] to tiles [ceil(n / 16), cols / 32, 16, 16, 2]:
// tile (g, s), row k, place j holds values 2 k and 2 k + 1 of columns 32 s ... in EvenThenOdd order
// of row 16 g + j, zeros past row n.
void PackTiles(const float* x, int64_t stride, int64_t n, int64_t cols, int64_t first, int64_t last,
               uint16_t* tiles) {
  const int64_t steps = cols / 32;
  for (int64_t group = 0; 16 * group < n; ++group) {
    const int64_t rows = n - 16 * group < 16 ? n - 16 * group : 16;
    for (int64_t step = first; step < last; ++step) {
      const float* from = x + 16 * group * stride + 32 * step;
      __m512 v[16];
      for (int j = 0; j < 16; ++j, from += stride) {
        v[j] = _mm512_setzero_ps();
        if (j >= rows) continue;
        v[j] = (__m512)EvenThenOdd(ToBf16(_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16)));
      }
      Transpose16(v);
      uint16_t* tile = tiles + (group * steps + step) * kTileValues;
      for (int k = 0; k < 16; ++k) _mm512_storeu_ps(tile + 32 * k, v[k]);
    }
  }
}

// ---- rows of W ----------------------------------------------------------------------------------

// Up to kTilePanelRows rows of W and the scratch of one call.
struct TilePanel {
  const MatmulArgs& a;
  int64_t begin, rows, chunk;  // chunk: columns unpacked at a time
  uint16_t* w[2];              // two chunks in turn, each [rows / 16, chunk / 32, 16, 32] bf16
  float* c;                    // [rows / 16, ceil(n / 16), 16, 16]: sums of W rows by x rows

  int64_t ColumnsOf(int64_t column) const {
    return a.cols - column < chunk ? a.cols - column : chunk;
  }
  uint16_t* Tile(int which, int64_t row_block, int64_t step) const {
    return w[which] + (row_block * (chunk / 32) + step) * kTileValues;
  }
  float* Sums(int64_t row_block, int64_t group) const {
    return c + (row_block * ((a.n + 15) / 16) + group) * 256;
  }
};

// Unpacks `count` rows' columns from `column` on and asks for the same rows' next chunk; at the end
// of the rows for those that take their place in the next panel.
template <DType T>
void UnpackPanelRows(const TilePanel& p, int64_t column, int64_t first, int64_t count, int which) {
  using C = Codec<T>;
  const int64_t columns = p.ColumnsOf(column), bytes = columns / C::kBlock * C::kBytes;
  const uint8_t* b = p.a.w + (p.begin + first) * p.a.row_bytes + column / C::kBlock * C::kBytes;
  const int64_t skipped = column / C::kBlock * C::kBytes;
  const int64_t ahead = column + columns < p.a.cols ? bytes : p.rows * p.a.row_bytes - skipped;
  for (int64_t row = first; row < first + count; ++row, b += p.a.row_bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(b + ahead + i);
    ColumnsToBf16<T>(b, columns, p.Tile(which, row / 16, 0) + 32 * (row % 16), kTileValues);
  }
}

// Unpacks the next chunk's rows evenly over the steps of the current chunk's products, a few rows
// at a time.
template <DType T>
struct UnpackAhead {
  static constexpr int64_t kRows = 4;
  const TilePanel& p;
  int64_t column;  // of the next chunk; none if past the end
  int which;
  int64_t steps;
  int64_t done = 0, credit = 0;

  inline void Step() {
    if (column >= p.a.cols) return;
    credit += p.rows;
    if (credit < kRows * steps) return;
    const int64_t rows = credit / steps;
    Unpack(rows);
    credit -= rows * steps;
  }
  void Finish() {
    if (column < p.a.cols) Unpack(p.rows - done);
  }
  void Unpack(int64_t rows) {
    UnpackPanelRows<T>(p, column, done, rows, which);
    done += rows;
  }
};

// ---- products -----------------------------------------------------------------------------------

// Tiles 0-3: sums of row blocks (r, r + 1) with groups (g, g + 1); 4, 5: W; 6, 7: x. kPair: the
// second group exists.
template <DType T, bool kPair, typename Tiles>
inline void MultiplyBlock(Tiles& tiles, const TilePanel& p, int64_t column, int which, int64_t r,
                          int64_t g, UnpackAhead<T>& ahead) {
  const int64_t steps = p.ColumnsOf(column) / 32, all = p.a.cols / 32;
  const uint16_t* x = p.a.xt + (g * all + column / 32) * kTileValues;
  for (int64_t s = 0; s < steps; ++s, x += kTileValues) {
    tiles.template Load<6>(x);
    tiles.template Load<4>(p.Tile(which, r, s));
    tiles.template Dot<0, 4, 6>();
    tiles.template Load<5>(p.Tile(which, r + 1, s));
    tiles.template Dot<2, 5, 6>();
    if constexpr (kPair) {
      tiles.template Load<7>(x + all * kTileValues);
      tiles.template Dot<1, 4, 7>();
      tiles.template Dot<3, 5, 7>();
    }
    ahead.Step();
  }
}

template <typename Tiles>
inline void BeginSums(Tiles& tiles, const TilePanel& p, bool from_zero, int64_t r, int64_t g,
                      bool pair) {
  tiles.template Zero<0>();
  tiles.template Zero<1>();
  tiles.template Zero<2>();
  tiles.template Zero<3>();
  if (from_zero) return;
  tiles.template Load<0>(p.Sums(r, g));
  tiles.template Load<2>(p.Sums(r + 1, g));
  if (!pair) return;
  tiles.template Load<1>(p.Sums(r, g + 1));
  tiles.template Load<3>(p.Sums(r + 1, g + 1));
}

template <typename Tiles>
inline void EndSums(Tiles& tiles, const TilePanel& p, int64_t r, int64_t g, bool pair) {
  tiles.template Store<0>(p.Sums(r, g));
  tiles.template Store<2>(p.Sums(r + 1, g));
  if (!pair) return;
  tiles.template Store<1>(p.Sums(r, g + 1));
  tiles.template Store<3>(p.Sums(r + 1, g + 1));
}

// All products of one panel. Where two row blocks and two groups are all there is, the sums stay in
// the tiles from the first column to the last.
template <DType T, typename Tiles>
void MultiplyPanel(const TilePanel& p) {
  Tiles tiles;
  const int64_t groups = (p.a.n + 15) / 16, blocks = (p.rows + 31) / 32 * 2;
  const bool resident = groups <= 2 && blocks == 2;
  UnpackPanelRows<T>(p, 0, 0, p.rows, 0);
  int which = 0;
  for (int64_t column = 0; column < p.a.cols; column += p.chunk, which ^= 1) {
    const int64_t steps = p.ColumnsOf(column) / 32 * (blocks / 2) * ((groups + 1) / 2);
    UnpackAhead<T> ahead{p, column + p.chunk, which ^ 1, steps};
    const bool last = column + p.chunk >= p.a.cols;
    for (int64_t r = 0; r < blocks; r += 2) {
      for (int64_t g = 0; g < groups; g += 2) {
        const bool pair = g + 1 < groups;
        if (column == 0 || !resident) BeginSums(tiles, p, column == 0, r, g, pair);
        pair ? MultiplyBlock<T, true>(tiles, p, column, which, r, g, ahead)
             : MultiplyBlock<T, false>(tiles, p, column, which, r, g, ahead);
        if (last || !resident) EndSums(tiles, p, r, g, pair);
      }
    }
    ahead.Finish();
  }
}

// ---- results ------------------------------------------------------------------------------------

inline void StoreSums(const TilePanel& p, int64_t row_block, int64_t group) {
  const int64_t rows = p.rows - 16 * row_block < 16 ? p.rows - 16 * row_block : 16;
  const int64_t tokens = p.a.n - 16 * group < 16 ? p.a.n - 16 * group : 16;
  __m512 v[16];
  for (int i = 0; i < 16; ++i) v[i] = _mm512_loadu_ps(p.Sums(row_block, group) + 16 * i);
  Transpose16(v);
  for (int64_t t = 0; t < tokens; ++t) {
    StorePanel(p.a.out, 16 * group + t, p.begin + 16 * row_block, static_cast<int>(rows), (VF)v[t]);
  }
}

template <DType T, typename Tiles>
void RunTilePanel(const MatmulArgs& a, int64_t begin, int64_t end, void* scratch) {
  uint16_t* w = static_cast<uint16_t*>(scratch);
  const int64_t chunk = end - begin <= 32 ? kTileChunk / 2 : kTileChunk;
  const int64_t blocks = (end - begin + 31) / 32 * 2, values = blocks * 16 * chunk;
  const TilePanel p{a,     begin,           end - begin,
                    chunk, {w, w + values}, reinterpret_cast<float*>(w + 2 * values)};
  if ((end - begin) % 32 != 0)
    memset(w, 0, static_cast<size_t>(4 * values));  // rows that are not there
  MultiplyPanel<T, Tiles>(p);
  for (int64_t g = 0; 16 * g < a.n; ++g) {
    for (int64_t r = 0; 16 * r < p.rows; ++r) StoreSums(p, r, g);
  }
}

template <typename Tiles>
void TilePanelOf(const MatmulArgs& a, int64_t begin, int64_t end, void* scratch) {
  switch (a.dtype) {
#define CASE(T)  \
  case DType::T: \
    return RunTilePanel<DType::T, Tiles>(a, begin, end, scratch);
    MILLRACE_FOR_QUANTIZED(CASE)
#undef CASE
    default:
      return;  // float types have no tile kernel
  }
}

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_TILES_INC_H_
