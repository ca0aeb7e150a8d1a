// The quantised block formats of GGUF, and how one block becomes codes, scales and minima.
// Source of the formats: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs
//
// Every format is one rule over sub-blocks of 16 or 32 values:
//     value = scale * (code - offset) - minimum
// with an unsigned code, a per-format constant offset and per-sub-block scale and minimum. Unpack
// puts the codes of a whole block in order (32 at a time, from the `at`-th 32 on), writes its scales,
// and (only where kHasMin) its minima.
// Everything has internal linkage: translation units for different instruction sets include this.
#ifndef MILLRACE_KERNELS_QUANT_BLOCKS_H_
#define MILLRACE_KERNELS_QUANT_BLOCKS_H_

#include <stdint.h>

#include "kernels/fp16.h"
#include "proto/dtype.h"

namespace millrace {
namespace {

// Sixteen and 32 bytes at a time, on the compiler's vector extensions.
typedef uint8_t V16 __attribute__((vector_size(16)));
typedef uint8_t V32 __attribute__((vector_size(32)));

template <typename V>
static inline V LoadV(const uint8_t* p) {
  V v;
  memcpy(&v, p, sizeof(v));
  return v;
}

// out[i] = factor * v[i] for sixteen small integers.
typedef int8_t S16 __attribute__((vector_size(16)));
template <typename V>
static inline void ScaleSixteen(V v, float factor, float* out) {
  typedef float F16x __attribute__((vector_size(64)));
  const F16x f = __builtin_convertvector(v, F16x) * factor;
  memcpy(out, &f, sizeof(f));
}

// Where Unpack puts codes, 32 at a time: memory, or (for the vector kernels) registers, because wide
// loads of what narrower stores have just written would stall.
struct MemoryCodes {
  uint8_t* u;
  inline void Put(int i, V32 v) { memcpy(u + 32 * i, &v, sizeof(v)); }
};
struct RegisterCodes {
  V32 v[8];
  inline void Put(int i, V32 codes) { v[i] = codes; }
};

// 16 bytes of nibbles to 32 codes: low nibbles first.
static inline V32 Nibbles32(const uint8_t* p) {
  const V16 v = LoadV<V16>(p);
  const V16 low = static_cast<V16>(v & 15), high = static_cast<V16>(v >> 4);
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                                 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
}

template <DType T>
struct Codec;

// 32 values: f16 d, int8 q[32].
template <>
struct Codec<DType::kQ8_0> {
  static constexpr int kBlock = 32, kSub = 32, kBytes = 34, kOffset = 128;
  static constexpr bool kHasMin = false;
  template <typename Out>
  static inline void Unpack(const uint8_t* b, int at, Out& out, float* s, float*) {
    s[0] = HalfToFloat(LoadU16(b));
    out.Put(at, static_cast<V32>(LoadV<V32>(b + 2) ^ 0x80));
  }
};

// 32 values: f16 d, 16 bytes of nibbles: low nibbles are values 0..15, high ones 16..31.
template <>
struct Codec<DType::kQ4_0> {
  static constexpr int kBlock = 32, kSub = 32, kBytes = 18, kOffset = 8;
  static constexpr bool kHasMin = false;
  template <typename Out>
  static inline void Unpack(const uint8_t* b, int at, Out& out, float* s, float*) {
    s[0] = HalfToFloat(LoadU16(b));
    out.Put(at, Nibbles32(b + 2));
  }
};

// 32 values: f16 d, f16 m (added), nibbles as Q4_0.
template <>
struct Codec<DType::kQ4_1> {
  static constexpr int kBlock = 32, kSub = 32, kBytes = 20, kOffset = 0;
  static constexpr bool kHasMin = true;
  template <typename Out>
  static inline void Unpack(const uint8_t* b, int at, Out& out, float* s, float* m) {
    s[0] = HalfToFloat(LoadU16(b));
    m[0] = -HalfToFloat(LoadU16(b + 2));
    out.Put(at, Nibbles32(b + 4));
  }
};

// Fifth bits: bit i of a 32-bit word belongs to value i.
static inline V32 FiveBits32(const uint8_t* high, const uint8_t* nibbles) {
  const V32 bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128,
                   1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  V32 fifth;
  for (int i = 0; i < 4; ++i) memset(reinterpret_cast<uint8_t*>(&fifth) + 8 * i, high[i], 8);
  const V32 set = (V32)((fifth & bit) != 0);
  return static_cast<V32>(Nibbles32(nibbles) | (set & 16));
}

// 32 values: f16 d, 4 bytes of fifth bits, nibbles.
template <>
struct Codec<DType::kQ5_0> {
  static constexpr int kBlock = 32, kSub = 32, kBytes = 22, kOffset = 16;
  static constexpr bool kHasMin = false;
  template <typename Out>
  static inline void Unpack(const uint8_t* b, int at, Out& out, float* s, float*) {
    s[0] = HalfToFloat(LoadU16(b));
    out.Put(at, FiveBits32(b + 2, b + 6));
  }
};

// 32 values: f16 d, f16 m (added), fifth bits, nibbles.
template <>
struct Codec<DType::kQ5_1> {
  static constexpr int kBlock = 32, kSub = 32, kBytes = 24, kOffset = 0;
  static constexpr bool kHasMin = true;
  template <typename Out>
  static inline void Unpack(const uint8_t* b, int at, Out& out, float* s, float* m) {
    s[0] = HalfToFloat(LoadU16(b));
    m[0] = -HalfToFloat(LoadU16(b + 2));
    out.Put(at, FiveBits32(b + 4, b + 8));
  }
};

// The 12 bytes of Q4_K and Q5_K: eight 6-bit scales and eight 6-bit minima. Bytes 0-3 hold scales
// 0-3 and bytes 4-7 minima 0-3 in their low six bits; scales and minima 4-7 take their low nibbles
// from bytes 8-11 and their two high bits from the top of bytes 0-3 and 4-7.
static inline void UnpackSixBitPairs(const uint8_t* p, float d, float dmin, float* s, float* m) {
  uint32_t a, b, c;
  memcpy(&a, p, 4);
  memcpy(&b, p + 4, 4);
  memcpy(&c, p + 8, 4);
  typedef uint8_t U8 __attribute__((vector_size(8)));
  typedef float F8 __attribute__((vector_size(32)));
  const uint32_t scales[2] = {a & 0x3f3f3f3fu, (c & 0x0f0f0f0fu) | ((a >> 2) & 0x30303030u)};
  const uint32_t minima[2] = {b & 0x3f3f3f3fu, ((c >> 4) & 0x0f0f0f0fu) | ((b >> 2) & 0x30303030u)};
  U8 s8, m8;
  memcpy(&s8, scales, 8);
  memcpy(&m8, minima, 8);
  const F8 sf = __builtin_convertvector(s8, F8) * d;
  const F8 mf = __builtin_convertvector(m8, F8) * dmin;
  memcpy(s, &sf, 32);
  memcpy(m, &mf, 32);
}

// 256 values: f16 d, f16 dmin, 12 bytes of scales and minima, 128 bytes of nibbles: each 32 bytes
// hold 64 values, low nibbles first.
template <>
struct Codec<DType::kQ4_K> {
  static constexpr int kBlock = 256, kSub = 32, kBytes = 144, kOffset = 0;
  static constexpr bool kHasMin = true;
  template <typename Out>
  static inline void Unpack(const uint8_t* b, int at, Out& out, float* s, float* m) {
    UnpackSixBitPairs(b + 4, HalfToFloat(LoadU16(b)), HalfToFloat(LoadU16(b + 2)), s, m);
    const uint8_t* q = b + 16;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const V32 v = LoadV<V32>(q + 32 * j);
      out.Put(at + 2 * j, static_cast<V32>(v & 15));
      out.Put(at + 2 * j + 1, static_cast<V32>(v >> 4));
    }
  }
};

// As Q4_K with 32 bytes of fifth bits before the nibbles: bit 2j (and 2j + 1) of byte i belongs to
// value 64j + i (and 64j + 32 + i).
template <>
struct Codec<DType::kQ5_K> {
  static constexpr int kBlock = 256, kSub = 32, kBytes = 176, kOffset = 0;
  static constexpr bool kHasMin = true;
  template <typename Out>
  static inline void Unpack(const uint8_t* b, int at, Out& out, float* s, float* m) {
    UnpackSixBitPairs(b + 4, HalfToFloat(LoadU16(b)), HalfToFloat(LoadU16(b + 2)), s, m);
    const V32 h = LoadV<V32>(b + 16);
    const uint8_t* q = b + 48;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const V32 v = LoadV<V32>(q + 32 * j);
      out.Put(at + 2 * j, static_cast<V32>((v & 15) | (((h >> (2 * j)) & 1) << 4)));
      out.Put(at + 2 * j + 1, static_cast<V32>((v >> 4) | (((h >> (2 * j + 1)) & 1) << 4)));
    }
  }
};

// 256 values: 128 bytes of low nibbles, 64 bytes of high bit pairs, int8 scales[16], f16 d.
template <>
struct Codec<DType::kQ6_K> {
  static constexpr int kBlock = 256, kSub = 16, kBytes = 210, kOffset = 32;
  static constexpr bool kHasMin = false;
  template <typename Out>
  static inline void Unpack(const uint8_t* b, int at, Out& out, float* s, float*) {
    const float d = HalfToFloat(LoadU16(b + 208));
    S16 scales;
    memcpy(&scales, b + 192, sizeof(scales));
    ScaleSixteen(scales, d, s);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const V32 first = LoadV<V32>(b + 64 * half), second = LoadV<V32>(b + 64 * half + 32);
      const V32 h = LoadV<V32>(b + 128 + 32 * half);
      out.Put(at + 4 * half, static_cast<V32>((first & 15) | ((h & 3) << 4)));
      out.Put(at + 4 * half + 1, static_cast<V32>((second & 15) | ((h & 12) << 2)));
      out.Put(at + 4 * half + 2, static_cast<V32>((first >> 4) | (h & 48)));
      out.Put(at + 4 * half + 3, static_cast<V32>((second >> 4) | ((h & 192) >> 2)));
    }
  }
};

// Two-bit codes of Q2_K and Q3_K: byte i of each 32 holds values i, 32 + i, 64 + i, 96 + i of a half.
// Codes 32k .. 32k + 31 of the block whose 64 bytes are at q.
static inline V32 TwoBits32(const uint8_t* q, int k) {
  return static_cast<V32>((LoadV<V32>(q + 32 * (k / 4)) >> (2 * (k % 4))) & 3);
}

// 256 values: 32 bytes of third bits (bit k of byte i: value 32k + i), 64 bytes of two-bit codes, 12
// bytes of sixteen 6-bit scales (stored + 32), f16 d.
template <>
struct Codec<DType::kQ3_K> {
  static constexpr int kBlock = 256, kSub = 16, kBytes = 110, kOffset = 4;
  static constexpr bool kHasMin = false;
  template <typename Out>
  static inline void Unpack(const uint8_t* b, int at, Out& out, float* s, float*) {
    const float d = HalfToFloat(LoadU16(b + 108));
    const uint8_t* p = b + 96;
    uint32_t low[2], high;
    memcpy(low, p, 8);
    memcpy(&high, p + 8, 4);
    uint32_t packed[4];
    for (int j = 0; j < 4; ++j) {
      packed[j] = ((low[j % 2] >> (4 * (j / 2))) & 0x0f0f0f0fu) |
                  (((high >> (2 * j)) & 0x03030303u) << 4);
    }
    S16 scales;
    memcpy(&scales, packed, sizeof(scales));
    ScaleSixteen(static_cast<S16>(scales - 32), d, s);
    const V32 third = LoadV<V32>(b);
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      out.Put(at + k, static_cast<V32>(TwoBits32(b + 32, k) | (((third >> k) & 1) << 2)));
    }
  }
};

// 256 values: sixteen bytes of 4-bit scale (low) and minimum (high), 64 bytes of two-bit codes,
// f16 d, f16 dmin.
template <>
struct Codec<DType::kQ2_K> {
  static constexpr int kBlock = 256, kSub = 16, kBytes = 84, kOffset = 0;
  static constexpr bool kHasMin = true;
  template <typename Out>
  static inline void Unpack(const uint8_t* b, int at, Out& out, float* s, float* m) {
    const float d = HalfToFloat(LoadU16(b + 80)), dmin = HalfToFloat(LoadU16(b + 82));
    const V16 both = LoadV<V16>(b);
    ScaleSixteen(static_cast<V16>(both & 15), d, s);
    ScaleSixteen(static_cast<V16>(both >> 4), dmin, m);
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) out.Put(at + k, TwoBits32(b + 16, k));
  }
};

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_QUANT_BLOCKS_H_
