// Part of matmul_isa.inc.h: storing results, quantising x, dequantising W, loading float weights.
#ifndef MILLRACE_KERNELS_MATMUL_COMMON_INC_H_
#define MILLRACE_KERNELS_MATMUL_COMMON_INC_H_

#include "kernels/matmul_kernels.h"
#include "kernels/quant_blocks.h"
#include "kernels/simd.h"

// CASE(T) for every quantised type and for every float type.
#define MILLRACE_FOR_QUANTIZED(CASE)                                                              \
  CASE(kQ8_0)                                                                                     \
  CASE(kQ4_0) CASE(kQ4_1) CASE(kQ5_0) CASE(kQ5_1) CASE(kQ4_K) CASE(kQ5_K) CASE(kQ6_K) CASE(kQ3_K) \
      CASE(kQ2_K)
#define MILLRACE_FOR_FLOAT(CASE) CASE(kF32) CASE(kF16) CASE(kBF16)

namespace millrace {
namespace {

#if defined(__AVX512F__)
constexpr int kTile = 12;  // rows of x per register tile
#elif defined(__AVX2__)
constexpr int kTile = 4;
#else
constexpr int kTile = 2;
#endif

inline void Store(const MatmulOutput& out, int64_t t, int64_t row, float v) {
  float* y = out.y + t * out.stride + row;
  if (out.bias) v += out.bias[row];
  *y = out.accumulate ? *y + v : v;
}

// Bytes between the weights that are computed with and those asked for from DRAM; 2 to 4 KiB were
// best.
constexpr int64_t kPrefetchBytes = 4096;

template <int kBlock>
void QuantizeBlocks(const float* x, int64_t cols, int8_t* q, float* scale, float* sum) {
  for (int64_t b = 0; b < cols / kBlock; ++b) {
    const float* in = x + kBlock * b;
    float peak = 0;
    for (int i = 0; i < kBlock; ++i) {
      const float a = __builtin_fabsf(in[i]);
      peak = a > peak ? a : peak;
    }
    const float inverse = peak > 1e-30f ? 127.0f / peak : 0.0f;
    int32_t codes[kBlock];
    for (int i = 0; i < kBlock; ++i) {
      // Adding 1.5 * 2^23 rounds to nearest even; |value| <= 127 keeps it exact.
      const float r = in[i] * inverse + 12582912.0f;
      codes[i] = static_cast<int32_t>(FloatToBits(r)) - 0x4b400000;
    }
    for (int i = 0; i < kBlock; ++i) q[kBlock * b + i] = static_cast<int8_t>(codes[i]);
    int32_t total = 0;
    for (int i = 0; i < kBlock; ++i) total += codes[i];
    scale[b] = peak / 127.0f;
    sum[b] = scale[b] * static_cast<float>(total);
  }
}

inline void QuantizeRow(const float* x, int64_t cols, int block, int8_t* q, float* scale,
                        float* sum) {
  block == 16 ? QuantizeBlocks<16>(x, cols, q, scale, sum)
              : QuantizeBlocks<32>(x, cols, q, scale, sum);
}

template <DType T>
void DequantizeBlocks(const uint8_t* row, int64_t cols, float* out) {
  using C = Codec<T>;
  constexpr int kSubs = C::kBlock / C::kSub;
  for (int64_t c = 0; c < cols; c += C::kBlock, row += C::kBytes) {
    uint8_t u[C::kBlock];
    float s[kSubs], m[kSubs] = {};
    MemoryCodes codes{u};
    C::Unpack(row, 0, codes, s, m);
    for (int j = 0; j < kSubs; ++j) {
      for (int i = 0; i < C::kSub; ++i) {
        const int k = j * C::kSub + i;
        out[c + k] = s[j] * static_cast<float>(u[k] - C::kOffset) - m[j];
      }
    }
  }
}

template <DType T>
inline VF LoadWeights(const uint8_t* p) {
  if constexpr (T == DType::kF16) return LoadHalf(p);
  if constexpr (T == DType::kBF16) return LoadBf16(p);
  VF v;
  memcpy(&v, p, sizeof(v));
  return v;
}

template <DType T>
inline float LoadWeight(const uint8_t* p) {
  if constexpr (T == DType::kF16) return HalfToFloat(LoadU16(p));
  if constexpr (T == DType::kBF16) return Bf16ToFloat(LoadU16(p));
  float f;
  memcpy(&f, p, 4);
  return f;
}

template <DType T>
constexpr int kElementBytes = T == DType::kF32 ? 4 : 2;

template <DType T>
void WidenRow(const uint8_t* row, int64_t cols, float* out) {
  constexpr int kBytes = kElementBytes<T>;
  int64_t c = 0;
  for (; c + kLanes <= cols; c += kLanes) StoreF(out + c, LoadWeights<T>(row + c * kBytes));
  for (; c < cols; ++c) out[c] = LoadWeight<T>(row + c * kBytes);
}

inline void StorePanel(const MatmulOutput& out, int64_t t, int64_t row, int rows, VF v) {
  if (rows == kLanes) {
    float* y = out.y + t * out.stride + row;
    if (out.bias) v += LoadF(out.bias + row);
    if (out.accumulate) v += LoadF(y);
    StoreF(y, v);
    return;
  }
  for (int r = 0; r < rows; ++r) Store(out, t, row + r, v[r]);
}

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_COMMON_INC_H_
