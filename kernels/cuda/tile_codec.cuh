// TileCodec: each type's planes inside a tile (kernels/weight_tiles.h): how codes and scales get in,
// and how a lane gets tensor core fragments out.
//
// A lane's eight values of one row and one group of 32 columns, k0 .. k7, come out as four pairs
// (k0,k1) (k2,k3) (k4,k5) (k6,k7) of f16. Where codes have fewer than eight bits, the planes hold the
// two codes of a pair sixteen bits apart, so that one mask cuts out both, and OR-ing 0x6400 into each
// half makes the f16 number 1024 + code.
#ifndef MILLRACE_KERNELS_CUDA_TILE_CODEC_CUH_
#define MILLRACE_KERNELS_CUDA_TILE_CODEC_CUH_

#include <cuda_fp16.h>
#include <stdint.h>

#include "proto/dtype.h"

namespace millrace::cuda {

__device__ __forceinline__ __half2 AsHalf2(uint32_t bits) {
  return *reinterpret_cast<const __half2*>(&bits);
}
__device__ __forceinline__ uint32_t AsBits(__half2 v) {
  return *reinterpret_cast<const uint32_t*>(&v);
}
// Bits p and p + 16 of `word` moved to positions `to` and `to + 16`; the caller masks.
__device__ __forceinline__ uint32_t Shift(uint32_t word, int p, int to) {
  return p >= to ? word >> (p - to) : word << (to - p);
}
// (word & mask) | magic in one instruction; the compiler alone makes two of it.
template <uint32_t kMask>
__device__ __forceinline__ uint32_t MaskOr(uint32_t word, uint32_t magic) {
  uint32_t out;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(out) : "r"(word), "n"(kMask), "r"(magic));
  return out;
}
// Pair m of a nibble word, minus `offset`. `high`: more bits of the code, where AddHighBits put them.
__device__ __forceinline__ __half2 NibblePair(uint32_t word, int m, uint32_t high, int offset) {
  const uint32_t w = m % 2 == 0 ? word : word >> 8;
  if (m < 2) {
    const uint32_t v = MaskOr<0x000f000fu>(w, 0x64006400u) | high;
    return __hsub2(AsHalf2(v), __float2half2_rn(1024.0f + static_cast<float>(offset)));
  }
  const uint32_t v = MaskOr<0x00f000f0u>(w, 0x64006400u) | high;  // sixteen times the code
  return __hfma2(AsHalf2(v), __float2half2_rn(0.0625f),
                 __float2half2_rn(-64.0f - static_cast<float>(offset)));
}
// Where the bits above a nibble stand in NibblePair's `high`.
__device__ __forceinline__ int HighBitsAt(int m) { return m < 2 ? 4 : 8; }
// Code c[0..7] to a nibble word.
__device__ __forceinline__ uint32_t PackNibbles(const uint8_t (&c)[8]) {
  uint32_t w = 0;
  const int at[8] = {0, 16, 8, 24, 4, 20, 12, 28};
#pragma unroll
  for (int i = 0; i < 8; ++i) w |= static_cast<uint32_t>(c[i] & 15) << at[i];
  return w;
}
// Eight small fields (c >> drop) & mask as pairs of `bits` bits each, pair p0 + m at bit
// bits * (p0 + m), its second half sixteen bits higher.
__device__ __forceinline__ uint32_t PackPairs(const uint8_t (&c)[8], int drop, int bits, int p0) {
  uint32_t w = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t field = (static_cast<uint32_t>(c[i]) >> drop) & ((1u << bits) - 1);
    w |= field << (bits * (p0 + i / 2) + 16 * (i % 2));
  }
  return w;
}
__device__ __forceinline__ __half HalfAt(const uint8_t* p) {
  return __ushort_as_half(static_cast<unsigned short>(p[0] | (p[1] << 8)));
}
__device__ __forceinline__ uint32_t* WordAt(uint8_t* p) { return reinterpret_cast<uint32_t*>(p); }

// Every codec:
//   kTileCols, kTileBytes; kStep: groups of 32 columns that one Codes holds
//   Scales: a lane's scales of a tile (rows g and g + 8); Codes: its codes of kStep groups
//   LoadScales(tile, lane), LoadCodes(tile, lane, step)
//   Fragments(codes, scales, step, j, a): group `step * kStep + j`; a[0..3] and a[4..7] are the A
//     operands of two m16n8k16 products (kernels/cuda/mma.cuh)
//   RawCode(block, i): code of value i of a file block, shifted to be unsigned
//   PutCodes(tile, lane, group, r, c): r = 0 for row g, 1 for row g + 8
//   PutScales(tile, row, blocks): of the file's blocks of that row in this tile; null: padding
template <DType T>
struct TileCodec;

// ---- types of 32 values per block, and F16: tiles of 64 columns -----------------------------------

template <>
struct TileCodec<DType::kF16> {
  static constexpr int kTileCols = 64, kTileBytes = 2048, kStep = 2;
  struct Scales {};
  struct Codes {
    uint4 w[2][2];  // [group][row]
  };
  __device__ static Scales LoadScales(const uint8_t*, int) { return {}; }
  __device__ static Codes LoadCodes(const uint8_t* tile, int lane, int) {
    Codes c;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      c.w[i / 2][i % 2] = *reinterpret_cast<const uint4*>(tile + 512 * i + 16 * lane);
    }
    return c;
  }
  __device__ static void Fragments(const Codes& c, const Scales&, int, int j, uint32_t (&a)[8]) {
    const uint4 u = c.w[j][0], v = c.w[j][1];
    a[0] = u.x; a[2] = u.y; a[4] = u.z; a[6] = u.w;
    a[1] = v.x; a[3] = v.y; a[5] = v.z; a[7] = v.w;
  }
};

// d (and m) of rows g and g + 8 for the two groups of a tile.
struct PairScales {
  __half2 d[2];  // [row]: (group 0, group 1)
  __device__ static PairScales Load(const uint8_t* plane, int lane) {
    const uint2 v = *reinterpret_cast<const uint2*>(plane + 8 * (lane / 4));
    return {{AsHalf2(v.x), AsHalf2(v.y)}};
  }
  __device__ __half2 At(int r, int j) const {
    return j == 0 ? __low2half2(d[r]) : __high2half2(d[r]);
  }
  __device__ static void Put(uint8_t* plane, int row, int j, __half v) {
    reinterpret_cast<__half*>(plane)[4 * (row % 8) + 2 * (row / 8) + j] = v;
  }
};

template <>
struct TileCodec<DType::kQ8_0> {
  static constexpr int kTileCols = 64, kTileBytes = 1088, kStep = 2;
  static constexpr int kBlock = 32, kBlockBytes = 34;
  using Scales = PairScales;
  struct Codes {
    uint4 w[2];  // [group]: row g, row g + 8
  };
  __device__ static Scales LoadScales(const uint8_t* tile, int lane) {
    return PairScales::Load(tile + 1024, lane);
  }
  __device__ static Codes LoadCodes(const uint8_t* tile, int lane, int) {
    return {{*reinterpret_cast<const uint4*>(tile + 16 * lane),
             *reinterpret_cast<const uint4*>(tile + 512 + 16 * lane)}};
  }
  __device__ static void Fragments(const Codes& c, const Scales& s, int, int j, uint32_t (&a)[8]) {
    const uint32_t w[2][2] = {{c.w[j].x, c.w[j].y}, {c.w[j].z, c.w[j].w}};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const __half2 d = s.At(r, j);
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const uint32_t v = __byte_perm(w[r][m / 2], 0x64646464u, m % 2 == 0 ? 0x4140 : 0x4342);
        a[2 * m + r] = AsBits(__hmul2(__hsub2(AsHalf2(v), __float2half2_rn(1152.0f)), d));
      }
    }
  }
  __device__ static uint8_t RawCode(const uint8_t* b, int i) { return b[2 + i] ^ 0x80; }
  __device__ static void PutCodes(uint8_t* tile, int lane, int group, int r, const uint8_t (&c)[8]) {
    uint8_t* to = tile + 512 * group + 16 * lane + 8 * r;
    for (int i = 0; i < 8; ++i) to[i] = c[i];
  }
  __device__ static void PutScales(uint8_t* tile, int row, const uint8_t* const (&blocks)[2]) {
    for (int j = 0; j < 2; ++j) {
      PairScales::Put(tile + 1024, row, j, blocks[j] ? HalfAt(blocks[j]) : __half(0.0f));
    }
  }
};

// Q4_0, Q4_1, Q5_0, Q5_1: value = d * (code - kOffset) + m.
template <int kBlockBytesT, bool kFifth, bool kMin, int kOffset>
struct NibbleCodec {
  static constexpr int kHighAt = 512, kScalesAt = kFifth ? 640 : 512, kMinsAt = kScalesAt + 64;
  static constexpr int kTileCols = 64, kTileBytes = 32 * kBlockBytesT, kStep = 2;
  static constexpr int kBlock = 32, kBlockBytes = kBlockBytesT;
  struct Scales {
    PairScales d, m;
  };
  struct Codes {
    uint4 w;  // group 0: rows g, g + 8; group 1: rows g, g + 8
    uint32_t high;
  };
  __device__ static Scales LoadScales(const uint8_t* tile, int lane) {
    Scales s;
    s.d = PairScales::Load(tile + kScalesAt, lane);
    if (kMin) s.m = PairScales::Load(tile + kMinsAt, lane);
    return s;
  }
  __device__ static Codes LoadCodes(const uint8_t* tile, int lane, int) {
    Codes c;
    c.w = *reinterpret_cast<const uint4*>(tile + 16 * lane);
    c.high = kFifth ? *reinterpret_cast<const uint32_t*>(tile + kHighAt + 4 * lane) : 0;
    return c;
  }
  __device__ static void Fragments(const Codes& c, const Scales& s, int, int j, uint32_t (&a)[8]) {
    const uint32_t w[2] = {j == 0 ? c.w.x : c.w.z, j == 0 ? c.w.y : c.w.w};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const __half2 d = s.d.At(r, j);
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const int to = HighBitsAt(m);
        const uint32_t high =
            kFifth ? Shift(c.high, 4 * (2 * j + r) + m, to) & (0x00010001u << to) : 0;
        const __half2 q = NibblePair(w[r], m, high, kOffset);
        a[2 * m + r] = AsBits(kMin ? __hfma2(q, d, s.m.At(r, j)) : __hmul2(q, d));
      }
    }
  }
  __device__ static uint8_t RawCode(const uint8_t* b, int i) {
    constexpr int kHeader = kMin ? 4 : 2;
    const uint8_t* nibbles = b + kHeader + (kFifth ? 4 : 0);
    uint8_t code = i < 16 ? nibbles[i] & 15 : nibbles[i - 16] >> 4;
    if (kFifth) code |= ((b[kHeader + i / 8] >> (i % 8)) & 1) << 4;
    return code;
  }
  __device__ static void PutCodes(uint8_t* tile, int lane, int group, int r, const uint8_t (&c)[8]) {
    *WordAt(tile + 16 * lane + 8 * group + 4 * r) = PackNibbles(c);
    if (kFifth) {
      uint32_t* high = WordAt(tile + kHighAt + 4 * lane);
      const uint32_t before = group == 0 && r == 0 ? 0 : *high;
      *high = before | PackPairs(c, 4, 1, 4 * (2 * group + r));
    }
  }
  __device__ static void PutScales(uint8_t* tile, int row, const uint8_t* const (&blocks)[2]) {
    for (int j = 0; j < 2; ++j) {
      const __half zero = __half(0.0f);
      PairScales::Put(tile + kScalesAt, row, j, blocks[j] ? HalfAt(blocks[j]) : zero);
      if (kMin) PairScales::Put(tile + kMinsAt, row, j, blocks[j] ? HalfAt(blocks[j] + 2) : zero);
    }
  }
};
template <>
struct TileCodec<DType::kQ4_0> : NibbleCodec<18, false, false, 8> {};
template <>
struct TileCodec<DType::kQ4_1> : NibbleCodec<20, false, true, 0> {};
template <>
struct TileCodec<DType::kQ5_0> : NibbleCodec<22, true, false, 16> {};
template <>
struct TileCodec<DType::kQ5_1> : NibbleCodec<24, true, true, 0> {};

// ---- K types: tiles of 256 columns -----------------------------------------------------------------

// Plane of nibbles, 2048 bytes: half tile h (four groups), row r of the lane: 16 bytes.
__device__ __forceinline__ uint4 NibblesOf(const uint8_t* plane, int lane, int h, int r) {
  return *reinterpret_cast<const uint4*>(plane + 1024 * h + 512 * r + 16 * lane);
}
__device__ __forceinline__ uint8_t* NibbleWord(uint8_t* plane, int lane, int group, int r) {
  return plane + 1024 * (group / 4) + 512 * r + 16 * lane + 4 * (group % 4);
}
// Plane of bit pairs, 1024 bytes: half tile h: words (row 0: groups 0,1; groups 2,3; row 1: ...).
__device__ __forceinline__ uint4 BitPairsOf(const uint8_t* plane, int lane, int h) {
  return *reinterpret_cast<const uint4*>(plane + 512 * h + 16 * lane);
}
__device__ __forceinline__ void PutBitPairs(uint8_t* plane, int lane, int group, int r,
                                            const uint8_t (&c)[8], int drop) {
  uint32_t* word = WordAt(plane + 512 * (group / 4) + 16 * lane + 8 * r + 4 * (group % 4 / 2));
  const uint32_t before = group % 2 == 0 ? 0 : *word;
  *word = before | PackPairs(c, drop, 2, 4 * (group % 2));
}
// Plane of single bits, 512 bytes: half tile h: one word for each row.
__device__ __forceinline__ uint2 BitsOf(const uint8_t* plane, int lane, int h) {
  return *reinterpret_cast<const uint2*>(plane + 16 * lane + 8 * h);
}
__device__ __forceinline__ void PutBits(uint8_t* plane, int lane, int group, int r,
                                        const uint8_t (&c)[8], int drop) {
  uint32_t* word = WordAt(plane + 16 * lane + 8 * (group / 4) + 4 * r);
  const uint32_t before = group % 4 == 0 ? 0 : *word;
  *word = before | PackPairs(c, drop, 1, 4 * (group % 4));
}
__device__ __forceinline__ uint32_t Component(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// Scale and negated minimum of each group, of one row: 16 bytes (d, -dmin, three words of six-bit
// pairs). Pairs 0..5 lie two to a word at bits 0 and 6 (minimum sixteen bits higher); pairs 6 and 7
// fill what is left: four bits at 12 of words 0 and 1, two bits at 12 and 14 of word 2.
struct SixBitScales {
  __half2 sm[8];
  __device__ static SixBitScales Load(const uint8_t* plane, int row) {
    const uint4 v = *reinterpret_cast<const uint4*>(plane + 16 * row);
    const uint32_t e[3] = {v.y, v.z, v.w};
    const __half2 d = AsHalf2(v.x);
    const __half2 minus = __hmul2(d, __float2half2_rn(-1024.0f));  // exact: a power of two
    SixBitScales out;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      uint32_t bits = 0x64006400u;
      if (i < 6) {
        bits = MaskOr<0x003f003fu>(i % 2 == 0 ? e[i / 2] : e[i / 2] >> 6, bits);
      } else {
        bits = MaskOr<0x000f000fu>(e[i - 6] >> 12, bits);
        bits = MaskOr<0x00300030u>(e[2] >> (i == 6 ? 8 : 10), bits);
      }
      out.sm[i] = __hfma2(AsHalf2(bits), d, minus);  // exact but for one rounding
    }
    return out;
  }
  // `block`: f16 d, f16 dmin, 12 bytes as the file packs them.
  __device__ static void Put(uint8_t* plane, int row, const uint8_t* block) {
    uint32_t* out = WordAt(plane + 16 * row);
    out[0] = out[1] = out[2] = out[3] = 0;
    if (block == nullptr) return;
    out[0] = (block[0] | (block[1] << 8)) |
             (static_cast<uint32_t>((block[2] | (block[3] << 8)) ^ 0x8000) << 16);
    const uint8_t* p = block + 4;
    for (int i = 0; i < 8; ++i) {
      uint32_t s, m;
      if (i < 4) {
        s = p[i] & 63;
        m = p[i + 4] & 63;
      } else {
        s = (p[i + 4] & 15) | ((p[i - 4] >> 6) << 4);
        m = (p[i + 4] >> 4) | ((p[i] >> 6) << 4);
      }
      const uint32_t pair = s | (m << 16);
      if (i < 6) {
        out[1 + i / 2] |= pair << (6 * (i % 2));
      } else {
        out[1 + i - 6] |= (pair & 0x000f000fu) << 12;
        out[3] |= (pair & 0x00300030u) << (i == 6 ? 8 : 10);
      }
    }
  }
};

// Q4_K and Q5_K: value = d * scale * code - dmin * minimum, per 32.
template <bool kFifth>
struct SixBitCodec {
  static constexpr int kHighAt = 2048, kScalesAt = kFifth ? 2560 : 2048;
  static constexpr int kTileCols = 256, kTileBytes = kScalesAt + 256, kStep = 4;
  static constexpr int kBlock = 256, kBlockBytes = kFifth ? 176 : 144;
  struct Scales {
    SixBitScales row[2];
  };
  struct Codes {
    uint4 w[2];
    uint2 high;
  };
  __device__ static Scales LoadScales(const uint8_t* tile, int lane) {
    return {{SixBitScales::Load(tile + kScalesAt, lane / 4),
             SixBitScales::Load(tile + kScalesAt, lane / 4 + 8)}};
  }
  __device__ static Codes LoadCodes(const uint8_t* tile, int lane, int step) {
    Codes c;
    c.w[0] = NibblesOf(tile, lane, step, 0);
    c.w[1] = NibblesOf(tile, lane, step, 1);
    c.high = kFifth ? BitsOf(tile + kHighAt, lane, step) : make_uint2(0, 0);
    return c;
  }
  __device__ static void Fragments(const Codes& c, const Scales& s, int step, int j,
                                   uint32_t (&a)[8]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const __half2 sm = s.row[r].sm[4 * step + j];
      const uint32_t bits = r == 0 ? c.high.x : c.high.y;
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const int to = HighBitsAt(m);
        const uint32_t high = kFifth ? Shift(bits, 4 * j + m, to) & (0x00010001u << to) : 0;
        const __half2 q = NibblePair(Component(c.w[r], j), m, high, 0);
        a[2 * m + r] = AsBits(__hfma2(q, __low2half2(sm), __high2half2(sm)));
      }
    }
  }
  __device__ static uint8_t RawCode(const uint8_t* b, int i) {
    const uint8_t byte = b[(kFifth ? 48 : 16) + 32 * (i / 64) + i % 32];
    uint8_t code = i % 64 < 32 ? byte & 15 : byte >> 4;
    if (kFifth) code |= ((b[16 + i % 32] >> (i / 32)) & 1) << 4;
    return code;
  }
  __device__ static void PutCodes(uint8_t* tile, int lane, int group, int r, const uint8_t (&c)[8]) {
    *WordAt(NibbleWord(tile, lane, group, r)) = PackNibbles(c);
    if (kFifth) PutBits(tile + kHighAt, lane, group, r, c, 4);
  }
  __device__ static void PutScales(uint8_t* tile, int row, const uint8_t* const (&blocks)[1]) {
    SixBitScales::Put(tile + kScalesAt, row, blocks[0]);
  }
};
template <>
struct TileCodec<DType::kQ4_K> : SixBitCodec<false> {};
template <>
struct TileCodec<DType::kQ5_K> : SixBitCodec<true> {};

// Scales per sixteen columns: of group j a lane needs number 2j + t / 2 only; a row's even numbered
// scales lie before its odd ones.
template <>
struct TileCodec<DType::kQ6_K> {
  static constexpr int kHighAt = 2048, kScalesAt = 3072, kDAt = 3328;
  static constexpr int kTileCols = 256, kTileBytes = 3360, kStep = 4;
  static constexpr int kBlock = 256, kBlockBytes = 210;
  struct Scales {
    __half2 s[2][4];  // [row]: groups (0,1) (2,3) (4,5) (6,7)
  };
  struct Codes {
    uint4 w[2], high;
  };
  __device__ static Scales LoadScales(const uint8_t* tile, int lane) {
    const int g = lane / 4, odd = lane % 4 / 2;
    const __half2 d = *reinterpret_cast<const __half2*>(tile + kDAt + 4 * g);
    Scales out;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint2 v =
          *reinterpret_cast<const uint2*>(tile + kScalesAt + 16 * (g + 8 * r) + 8 * odd);
      const __half2 dr = r == 0 ? __low2half2(d) : __high2half2(d);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t bits =
            __byte_perm(i < 2 ? v.x : v.y, 0x64646464u, i % 2 == 0 ? 0x4140 : 0x4342);
        out.s[r][i] = __hmul2(__hsub2(AsHalf2(bits), __float2half2_rn(1152.0f)), dr);
      }
    }
    return out;
  }
  __device__ static Codes LoadCodes(const uint8_t* tile, int lane, int step) {
    return {{NibblesOf(tile, lane, step, 0), NibblesOf(tile, lane, step, 1)},
            BitPairsOf(tile + kHighAt, lane, step)};
  }
  __device__ static void Fragments(const Codes& c, const Scales& s, int step, int j,
                                   uint32_t (&a)[8]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const __half2 both = s.s[r][2 * step + j / 2];
      const __half2 d = j % 2 == 0 ? __low2half2(both) : __high2half2(both);
      const uint32_t bits = Component(c.high, 2 * r + j / 2);
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const int to = HighBitsAt(m);
        const uint32_t high = Shift(bits, 2 * (4 * (j % 2) + m), to) & (0x00030003u << to);
        a[2 * m + r] = AsBits(__hmul2(NibblePair(Component(c.w[r], j), m, high, 32), d));
      }
    }
  }
  __device__ static uint8_t RawCode(const uint8_t* b, int i) {
    const int half = i / 128, k = i % 128;
    const uint8_t byte = b[64 * half + k % 64];
    const uint8_t low = k < 64 ? byte & 15 : byte >> 4;
    return low | (((b[128 + 32 * half + k % 32] >> (2 * (k / 32))) & 3) << 4);
  }
  __device__ static void PutCodes(uint8_t* tile, int lane, int group, int r, const uint8_t (&c)[8]) {
    *WordAt(NibbleWord(tile, lane, group, r)) = PackNibbles(c);
    PutBitPairs(tile + kHighAt, lane, group, r, c, 4);
  }
  __device__ static void PutScales(uint8_t* tile, int row, const uint8_t* const (&blocks)[1]) {
    const uint8_t* b = blocks[0];
    for (int i = 0; i < 16; ++i) {
      tile[kScalesAt + 16 * row + 8 * (i % 2) + i / 2] = b ? b[192 + i] ^ 0x80 : 0x80;
    }
    reinterpret_cast<__half*>(tile + kDAt)[2 * (row % 8) + row / 8] =
        b ? HalfAt(b + 208) : __half(0.0f);
  }
};

// Low four bits of a row's eight scales of one parity in 4 bytes, high two bits in 2 bytes.
template <>
struct TileCodec<DType::kQ3_K> {
  static constexpr int kHighAt = 1024, kLow4At = 1536, kHigh2At = 1664, kDAt = 1728;
  static constexpr int kTileCols = 256, kTileBytes = 1760, kStep = 4;
  static constexpr int kBlock = 256, kBlockBytes = 110;
  struct Scales {
    __half2 s[2][8];  // [row][group], both halves equal
  };
  struct Codes {
    uint4 low;
    uint2 high;
  };
  __device__ static Scales LoadScales(const uint8_t* tile, int lane) {
    const int g = lane / 4, odd = lane % 4 / 2;
    Scales out;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int cell = 2 * (g + 8 * r) + odd;
      const uint32_t low = *reinterpret_cast<const uint32_t*>(tile + kLow4At + 4 * cell);
      const uint32_t high = *reinterpret_cast<const uint16_t*>(tile + kHigh2At + 2 * cell);
      const float d = __half2float(*reinterpret_cast<const __half*>(tile + kDAt + 4 * g + 2 * r));
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int scale =
            static_cast<int>(((low >> (4 * i)) & 15) | (((high >> (2 * i)) & 3) << 4)) - 32;
        out.s[r][i] = __float2half2_rn(d * static_cast<float>(scale));
      }
    }
    return out;
  }
  __device__ static Codes LoadCodes(const uint8_t* tile, int lane, int step) {
    return {BitPairsOf(tile, lane, step), BitsOf(tile + kHighAt, lane, step)};
  }
  __device__ static void Fragments(const Codes& c, const Scales& s, int step, int j,
                                   uint32_t (&a)[8]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t low = Component(c.low, 2 * r + j / 2);
      const uint32_t high = r == 0 ? c.high.x : c.high.y;
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const uint32_t v = ((low >> (2 * (4 * (j % 2) + m))) & 0x00030003u) |
                           (Shift(high, 4 * j + m, 2) & 0x00040004u) | 0x64006400u;
        const __half2 q = __hsub2(AsHalf2(v), __float2half2_rn(1028.0f));
        a[2 * m + r] = AsBits(__hmul2(q, s.s[r][4 * step + j]));
      }
    }
  }
  __device__ static uint8_t RawCode(const uint8_t* b, int i) {
    const uint8_t low = (b[32 + 32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3;
    return low | (((b[i % 32] >> (i / 32)) & 1) << 2);
  }
  __device__ static void PutCodes(uint8_t* tile, int lane, int group, int r, const uint8_t (&c)[8]) {
    PutBitPairs(tile, lane, group, r, c, 0);
    PutBits(tile + kHighAt, lane, group, r, c, 2);
  }
  __device__ static void PutScales(uint8_t* tile, int row, const uint8_t* const (&blocks)[1]) {
    const uint8_t* b = blocks[0];
    uint32_t low[2] = {0, 0}, high[2] = {0, 0};
    for (int i = 0; i < 16 && b; ++i) {
      const uint32_t low4 = (b[96 + i % 8] >> (i < 8 ? 0 : 4)) & 15;
      const uint32_t high2 = (b[104 + i % 4] >> (2 * (i / 4))) & 3;
      low[i % 2] |= low4 << (4 * (i / 2));
      high[i % 2] |= high2 << (2 * (i / 2));
    }
    for (int odd = 0; odd < 2; ++odd) {
      *WordAt(tile + kLow4At + 4 * (2 * row + odd)) = low[odd];
      *reinterpret_cast<uint16_t*>(tile + kHigh2At + 2 * (2 * row + odd)) =
          static_cast<uint16_t>(high[odd]);
    }
    reinterpret_cast<__half*>(tile + kDAt)[2 * (row % 8) + row / 8] =
        b ? HalfAt(b + 108) : __half(0.0f);
  }
};

template <>
struct TileCodec<DType::kQ2_K> {
  static constexpr int kScalesAt = 1024, kDAt = 1280;
  static constexpr int kTileCols = 256, kTileBytes = 1344, kStep = 4;
  static constexpr int kBlock = 256, kBlockBytes = 84;
  struct Scales {
    __half2 sm[2][8];  // [row][group]: scale, negated minimum
  };
  struct Codes {
    uint4 low;
  };
  __device__ static Scales LoadScales(const uint8_t* tile, int lane) {
    const int g = lane / 4, odd = lane % 4 / 2;
    Scales out;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint2 v =
          *reinterpret_cast<const uint2*>(tile + kScalesAt + 16 * (g + 8 * r) + 8 * odd);
      const __half2 d = *reinterpret_cast<const __half2*>(tile + kDAt + 4 * (g + 8 * r));
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const uint32_t byte = (i < 4 ? v.x : v.y) >> (8 * (i % 4));
        const uint32_t bits = (byte & 15) | ((byte & 0xf0) << 12) | 0x64006400u;
        out.sm[r][i] = __hmul2(__hsub2(AsHalf2(bits), __float2half2_rn(1024.0f)), d);
      }
    }
    return out;
  }
  __device__ static Codes LoadCodes(const uint8_t* tile, int lane, int step) {
    return {BitPairsOf(tile, lane, step)};
  }
  __device__ static void Fragments(const Codes& c, const Scales& s, int step, int j,
                                   uint32_t (&a)[8]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t low = Component(c.low, 2 * r + j / 2);
      const __half2 sm = s.sm[r][4 * step + j];
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const uint32_t v = ((low >> (2 * (4 * (j % 2) + m))) & 0x00030003u) | 0x64006400u;
        const __half2 q = __hsub2(AsHalf2(v), __float2half2_rn(1024.0f));
        a[2 * m + r] = AsBits(__hfma2(q, __low2half2(sm), __high2half2(sm)));
      }
    }
  }
  __device__ static uint8_t RawCode(const uint8_t* b, int i) {
    return (b[16 + 32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3;
  }
  __device__ static void PutCodes(uint8_t* tile, int lane, int group, int r, const uint8_t (&c)[8]) {
    PutBitPairs(tile, lane, group, r, c, 0);
  }
  __device__ static void PutScales(uint8_t* tile, int row, const uint8_t* const (&blocks)[1]) {
    const uint8_t* b = blocks[0];
    for (int i = 0; i < 16; ++i) {
      tile[kScalesAt + 16 * row + 8 * (i % 2) + i / 2] = b ? b[i] : 0;
    }
    // d, then dmin with its sign turned.
    uint32_t d = 0;
    if (b) d = (b[80] | (b[81] << 8)) | (static_cast<uint32_t>((b[82] | (b[83] << 8)) ^ 0x8000) << 16);
    *WordAt(tile + kDAt + 4 * row) = d;
  }
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_TILE_CODEC_CUH_
