// One value of a GGUF row on a CUDA device, element by element: plain and exact, not fast. Formats:
// kernels/quant_blocks.h. Rows may have any alignment. Results equal DequantizeRow's bit for bit:
// products and differences are rounded one by one.
#ifndef MILLRACE_KERNELS_DEQUANTIZE_CUDA_CUH_
#define MILLRACE_KERNELS_DEQUANTIZE_CUDA_CUH_

#include <cuda_fp16.h>
#include <stdint.h>

#include "proto/dtype_id.h"

namespace millrace::cuda {

// Values and bytes of one block.
struct BlockShape {
  int values;
  int bytes;
};
__host__ __device__ constexpr BlockShape ShapeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return {1, 4};
    case DType::kF16:
      return {1, 2};
    case DType::kBF16:
      return {1, 2};
    case DType::kQ8_0:
      return {32, 34};
    case DType::kQ4_0:
      return {32, 18};
    case DType::kQ4_1:
      return {32, 20};
    case DType::kQ5_0:
      return {32, 22};
    case DType::kQ5_1:
      return {32, 24};
    case DType::kQ4_K:
      return {256, 144};
    case DType::kQ5_K:
      return {256, 176};
    case DType::kQ6_K:
      return {256, 210};
    case DType::kQ3_K:
      return {256, 110};
    case DType::kQ2_K:
      return {256, 84};
  }
  return {1, 0};
}

namespace dequantize {

__device__ __forceinline__ uint32_t U16(const uint8_t* p) {
  return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8;
}
__device__ __forceinline__ float Half(const uint8_t* p) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(U16(p))));
}
// scale * code - minimum
__device__ __forceinline__ float Value(float scale, int code, float minimum = 0) {
  return __fsub_rn(__fmul_rn(scale, static_cast<float>(code)), minimum);
}
// Nibble i of 32 in 16 bytes: the low ones first.
__device__ __forceinline__ int Nibble(const uint8_t* p, int i) {
  return i < 16 ? p[i] & 15 : p[i - 16] >> 4;
}
// Bit i of a run of bytes, as the fifth bit of a code.
__device__ __forceinline__ int FifthBit(const uint8_t* p, int i) {
  return ((p[i / 8] >> (i % 8)) & 1) << 4;
}
// Six-bit scale and minimum j of eight, in the 12 bytes of Q4_K and Q5_K.
__device__ __forceinline__ int SixBitScale(const uint8_t* p, int j) {
  return j < 4 ? p[j] & 63 : (p[j + 4] & 15) | (p[j - 4] >> 6) << 4;
}
__device__ __forceinline__ int SixBitMinimum(const uint8_t* p, int j) {
  return j < 4 ? p[j + 4] & 63 : p[j + 4] >> 4 | (p[j] >> 6) << 4;
}
// Value of a Q4_K or Q5_K block at b with code `code`, in sub-block j.
__device__ __forceinline__ float SixBitValue(const uint8_t* b, int j, int code) {
  const float scale = __fmul_rn(Half(b), static_cast<float>(SixBitScale(b + 4, j)));
  const float minimum = __fmul_rn(Half(b + 2), static_cast<float>(SixBitMinimum(b + 4, j)));
  return Value(scale, code, minimum);
}
// Two-bit code i of 256 in 64 bytes.
__device__ __forceinline__ int TwoBits(const uint8_t* p, int i) {
  return (p[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3;
}

// Value i of the block at b.
template <DType T>
__device__ __forceinline__ float InBlock(const uint8_t* b, int i) {
  if constexpr (T == DType::kF32) {
    return __uint_as_float(U16(b) | U16(b + 2) << 16);
  } else if constexpr (T == DType::kF16) {
    return Half(b);
  } else if constexpr (T == DType::kBF16) {
    return __uint_as_float(U16(b) << 16);
  } else if constexpr (T == DType::kQ8_0) {
    return Value(Half(b), static_cast<int8_t>(b[2 + i]));
  } else if constexpr (T == DType::kQ4_0) {
    return Value(Half(b), Nibble(b + 2, i) - 8);
  } else if constexpr (T == DType::kQ4_1) {
    return Value(Half(b), Nibble(b + 4, i), -Half(b + 2));
  } else if constexpr (T == DType::kQ5_0) {
    return Value(Half(b), (Nibble(b + 6, i) | FifthBit(b + 2, i)) - 16);
  } else if constexpr (T == DType::kQ5_1) {
    return Value(Half(b), Nibble(b + 8, i) | FifthBit(b + 4, i), -Half(b + 2));
  } else if constexpr (T == DType::kQ4_K) {
    const int pair = b[16 + 32 * (i / 64) + i % 32];
    return SixBitValue(b, i / 32, i / 32 % 2 ? pair >> 4 : pair & 15);
  } else if constexpr (T == DType::kQ5_K) {
    const int pair = b[48 + 32 * (i / 64) + i % 32];
    const int fifth = ((b[16 + i % 32] >> (i / 32)) & 1) << 4;
    return SixBitValue(b, i / 32, (i / 32 % 2 ? pair >> 4 : pair & 15) | fifth);
  } else if constexpr (T == DType::kQ6_K) {
    const int half = i / 128, k = i % 128 / 32, l = i % 32;
    const int pair = b[64 * half + 32 * (k % 2) + l];
    const int high = (b[128 + 32 * half + l] >> (2 * k)) & 3;
    const int scale = static_cast<int8_t>(b[192 + i / 16]);
    return Value(__fmul_rn(static_cast<float>(scale), Half(b + 208)),
                 ((k < 2 ? pair & 15 : pair >> 4) | high << 4) - 32);
  } else if constexpr (T == DType::kQ3_K) {
    const int j = i / 16;
    const int low = (b[96 + j % 8] >> (4 * (j / 8))) & 15;
    const int scale = (low | ((b[104 + j % 4] >> (2 * (j / 4))) & 3) << 4) - 32;
    const int third = (b[i % 32] >> (i / 32)) & 1;
    return Value(__fmul_rn(static_cast<float>(scale), Half(b + 108)),
                 (TwoBits(b + 32, i) | third << 2) - 4);
  } else {
    static_assert(T == DType::kQ2_K);
    const int both = b[i / 16];
    return Value(__fmul_rn(static_cast<float>(both & 15), Half(b + 80)), TwoBits(b + 16, i),
                 __fmul_rn(static_cast<float>(both >> 4), Half(b + 82)));
  }
}

}  // namespace dequantize

// Value `col` of a row.
template <DType T>
__device__ __forceinline__ float DequantizeAt(const uint8_t* row, int64_t col) {
  constexpr BlockShape kShape = ShapeOf(T);
  return dequantize::InBlock<T>(row + col / kShape.values * kShape.bytes,
                                static_cast<int>(col % kShape.values));
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_DEQUANTIZE_CUDA_CUH_
