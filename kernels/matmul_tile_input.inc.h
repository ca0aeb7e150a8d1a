// Part of the tile kernels: x as operand tiles.
//
// Columns keep their blocks of 256 but not their places in them: tile kFirst[k] of a block holds
// the even columns of groups kFirst[k] and kSecond[k] (32 columns each), tile kSecond[k] the odd
// ones, with kFirst and kSecond of NibbleOrder. That is what the codes of Q4_K are with one shift
// and one table each. Columns past the last whole block: each group by itself, even columns first.
#ifndef MILLRACE_KERNELS_MATMUL_TILE_INPUT_INC_H_
#define MILLRACE_KERNELS_MATMUL_TILE_INPUT_INC_H_

#include "kernels/matmul_unpack_bf16.inc.h"

namespace millrace {
namespace {

constexpr int kTileValues = 16 * 32;  // bf16 values of one operand tile: 16 rows by 32 columns
constexpr int kBlockSteps = kTileBlock / 32;
static_assert(kTileBlock == kChunk);

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

// The tiles of block `block` and group `group` of 16 rows of x, one for each 32 columns, before
// those of the next group; all groups of a block lie together.
inline int64_t TileOffset(int64_t n, int64_t cols, int64_t block, int64_t group) {
  const int64_t groups = (n + 15) / 16, left = cols / 32 - block * kBlockSteps;
  return (block * kBlockSteps * groups + group * (left < kBlockSteps ? left : kBlockSteps)) *
         kTileValues;
}

inline void StoreTransposed(__m512 (&v)[16], uint16_t* tile) {
  Transpose16(v);
  for (int k = 0; k < 16; ++k) _mm512_storeu_ps(tile + 32 * k, v[k]);
}

inline __m512i LoadAsBf16(const float* from) {
  return ToBf16(_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16));
}

// Up to 16 rows' columns of two groups to the tiles of the even and of the odd ones.
inline void PackTwoGroups(const float* first, const float* second, int64_t stride, int64_t rows,
                          uint16_t* even, uint16_t* odd) {
  const __m512i evens =
      _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26,
                       24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odds = _mm512_or_si512(evens, _mm512_set1_epi16(1));
  __m512 v[16], u[16];
  for (int j = 0; j < 16; ++j, first += stride, second += stride) {
    v[j] = u[j] = _mm512_setzero_ps();
    if (j >= rows) continue;
    const __m512i a = LoadAsBf16(first), b = LoadAsBf16(second);
    v[j] = (__m512)_mm512_permutex2var_epi16(a, evens, b);
    u[j] = (__m512)_mm512_permutex2var_epi16(a, odds, b);
  }
  StoreTransposed(v, even);
  StoreTransposed(u, odd);
}

inline void PackOneGroup(const float* from, int64_t stride, int64_t rows, uint16_t* tile) {
  __m512 v[16];
  for (int j = 0; j < 16; ++j, from += stride) {
    v[j] = j < rows ? (__m512)EvenThenOdd(LoadAsBf16(from)) : _mm512_setzero_ps();
  }
  StoreTransposed(v, tile);
}

// See TileKernels::pack. Within a tile row k, place j holds words 2 k and 2 k + 1 of row j of the
// group; zeros past row n.
void PackTiles(const float* x, int64_t stride, int64_t n, int64_t cols, int64_t first, int64_t last,
               uint16_t* tiles) {
  const int64_t groups = (n + 15) / 16;
  for (int64_t unit = first; unit < last; ++unit) {
    const int64_t block = unit / groups, group = unit % groups;
    const int64_t rows = n - 16 * group < 16 ? n - 16 * group : 16;
    const float* from = x + 16 * group * stride + block * kTileBlock;
    uint16_t* to = tiles + TileOffset(n, cols, block, group);
    const int64_t left = cols - block * kTileBlock;
    if (left < kTileBlock) {
      for (int64_t s = 0; 32 * s < left; ++s) {
        PackOneGroup(from + 32 * s, stride, rows, to + s * kTileValues);
      }
      continue;
    }
    for (int k = 0; k < 4; ++k) {
      const int a = NibbleOrder::kFirst[k], b = NibbleOrder::kSecond[k];
      PackTwoGroups(from + 32 * a, from + 32 * b, stride, rows, to + a * kTileValues,
                    to + b * kTileValues);
    }
  }
}

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_TILE_INPUT_INC_H_
