// Matmul's inner loops, written once on kernels/simd.h and compiled per instruction set. The file
// that includes this defines MILLRACE_MATMUL_KERNELS, the name of the function that returns the table.
//
// Quantised product of one row w and one row x, with value = s (u - offset) - m per sub-block:
//   sum_sub s * dx * dot(u, xq)  -  sum_sub (m + s * offset) * dx * sum(xq)
// The first sum is integer per four values, the second uses the precomputed sums of x.

#include "kernels/matmul_kernels.h"
#include "kernels/quant_blocks.h"
#include "kernels/simd.h"

namespace millrace {
namespace {

constexpr int kChunk = 256;     // columns unpacked at a time by the vector kernels
constexpr int kFloatChunk = 1024;
#if defined(__AVX512F__)
constexpr int kTile = 12;       // rows of x per register tile
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

// ---- activations -------------------------------------------------------------------------------

void QuantizeRow(const float* x, int64_t cols, int8_t* q, float* scale, float* scale16,
                 float* sum16) {
  for (int64_t b = 0; b < cols / 32; ++b) {
    const float* in = x + 32 * b;
    float peak = 0;
    for (int i = 0; i < 32; ++i) {
      const float a = __builtin_fabsf(in[i]);
      peak = a > peak ? a : peak;
    }
    const float d = peak / 127.0f;
    const float inverse = peak > 0 ? 127.0f / peak : 0.0f;
    int32_t codes[32];
    for (int i = 0; i < 32; ++i) {
      // Adding 1.5 * 2^23 rounds to nearest even; |value| <= 127 keeps it exact.
      const float r = in[i] * inverse + 12582912.0f;
      codes[i] = static_cast<int32_t>(FloatToBits(r)) - 0x4b400000;
    }
    for (int i = 0; i < 32; ++i) q[32 * b + i] = static_cast<int8_t>(codes[i]);
    int32_t first = 0, second = 0;
    for (int i = 0; i < 16; ++i) first += codes[i];
    for (int i = 16; i < 32; ++i) second += codes[i];
    scale[b] = d;
    scale16[2 * b] = scale16[2 * b + 1] = d;
    sum16[2 * b] = d * static_cast<float>(first);
    sum16[2 * b + 1] = d * static_cast<float>(second);
  }
}

// ---- unpacking ---------------------------------------------------------------------------------

// `count` columns (a multiple of the block, at most kChunk) of one row from block `block` on: codes,
// and per 16 columns a scale and an effective minimum (m + s * offset).
template <DType T, typename Out>
inline void UnpackChunk(const uint8_t* row, int64_t column, int count, Out& out, float* s16,
                        float* m16) {
  using C = Codec<T>;
  const uint8_t* b = row + column / C::kBlock * C::kBytes;
  constexpr int kSubs = C::kBlock / C::kSub;
#pragma GCC unroll 8
  for (int c = 0; c < count; c += C::kBlock, b += C::kBytes) {
    float s[kSubs], m[kSubs];
    C::Unpack(b, c / 32, out, s, m);
    if constexpr (kSubs == 8) {  // Q4_K, Q5_K: each scale for two sixteens
      typedef float F8 __attribute__((vector_size(32)));
      typedef float F16x __attribute__((vector_size(64)));
      F8 s8, m8;
      memcpy(&s8, s, sizeof(s8));
      memcpy(&m8, m, sizeof(m8));
      const F16x s2 = __builtin_shufflevector(s8, s8, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
      const F16x m2 = __builtin_shufflevector(m8, m8, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
      memcpy(s16, &s2, sizeof(s2));
      memcpy(m16, &m2, sizeof(m2));
      continue;
    }
    for (int j = 0; j < kSubs; ++j) {
      const float minimum = C::kHasMin ? m[j] : s[j] * static_cast<float>(C::kOffset);
      for (int k = 0; k < C::kSub / 16; ++k) {
        s16[c / 16 + j * (C::kSub / 16) + k] = s[j];
        m16[c / 16 + j * (C::kSub / 16) + k] = minimum;
      }
    }
  }
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

// ---- matrix-vector: a few rows of x ------------------------------------------------------------

struct ColumnSums {
  VF products[kMaxVectorColumns];
  VF minima[kMaxVectorColumns];
};

// The i-th vector of a chunk's codes.
inline VI CodesOf(const RegisterCodes& codes, int i) {
#if defined(__AVX512F__)
  return (VI)_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)codes.v[2 * i]),
                                (__m256i)codes.v[2 * i + 1], 1);
#else
  VI v;
  memcpy(&v, reinterpret_cast<const uint8_t*>(codes.v) + sizeof(VI) * i, sizeof(v));
  return v;
#endif
}

// Adds one whole unpacked chunk's products with every row of x. Sixteen scales, each for four lanes.
inline void DotChunk(const MatmulArgs& a, int64_t column, const RegisterCodes& unpacked,
                     const float* s16, const float* m16, ColumnSums& sums) {
  constexpr int kVectors = kChunk / (4 * kLanes);   // of codes
  constexpr int kScales = kChunk / 16 / kLanes;     // vectors of scales
  VI codes[kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kVectors; ++i) codes[i] = CodesOf(unpacked, i);
  for (int64_t t = 0; t < a.n; ++t) {
    const int8_t* q = a.xq.q + t * a.cols + column;
    const float* x16 = a.xq.scale16 + t * (a.cols / 16) + column / 16;
    const float* sum16 = a.xq.sum16 + t * (a.cols / 16) + column / 16;
    VF acc = sums.products[t], low = sums.minima[t];
#pragma GCC unroll 4
    for (int j = 0; j < kScales; ++j) {
      const VF scale = LoadF(s16 + j * kLanes) * LoadF(x16 + j * kLanes);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const int k = 4 * j + i;
        const VI dot = DotU8S8(VI{}, codes[k], LoadI(q + 4 * kLanes * k));
        acc = Fma(ToFloat(dot), RepeatFour(scale, i), acc);
      }
      low = Fma(LoadF(m16 + j * kLanes), LoadF(sum16 + j * kLanes), low);
    }
    sums.products[t] = acc;
    sums.minima[t] = low;
  }
}

// The same for a last chunk that is not whole.
inline void DotTail(const MatmulArgs& a, int64_t column, int count, const uint8_t* u,
                    const float* s16, const float* m16, ColumnSums& sums) {
  for (int64_t t = 0; t < a.n; ++t) {
    const int8_t* q = a.xq.q + t * a.cols + column;
    const float* x = a.xq.scale + t * (a.cols / 32) + column / 32;
    const float* x16 = a.xq.sum16 + t * (a.cols / 16) + column / 16;
    for (int i = 0; i < count / 16; ++i) {
      int32_t dot = 0;
      for (int k = 0; k < 16; ++k) dot += static_cast<int32_t>(u[16 * i + k]) * q[16 * i + k];
      sums.products[t][0] += static_cast<float>(dot) * (s16[i] * x[i / 2]);
      sums.minima[t][0] += m16[i] * x16[i];
    }
  }
}

template <DType T>
void VectorQuantized(const MatmulArgs& a, int64_t begin, int64_t end) {
  alignas(64) float s16[kChunk / 16], m16[kChunk / 16];
  for (int64_t row = begin; row < end; ++row) {
    const uint8_t* w = a.w + row * a.row_bytes;
    ColumnSums sums;
    for (int64_t t = 0; t < a.n; ++t) sums.products[t] = sums.minima[t] = VF{};
    for (int64_t column = 0; column < a.cols; column += kChunk) {
      const int count = static_cast<int>(a.cols - column < kChunk ? a.cols - column : kChunk);
      if (count == kChunk) {
        RegisterCodes codes;
        UnpackChunk<T>(w, column, kChunk, codes, s16, m16);
        DotChunk(a, column, codes, s16, m16, sums);
      } else {
        alignas(64) uint8_t u[kChunk];
        MemoryCodes codes{u};
        UnpackChunk<T>(w, column, count, codes, s16, m16);
        DotTail(a, column, count, u, s16, m16, sums);
      }
    }
    for (int64_t t = 0; t < a.n; ++t) {
      Store(a.out, t, row, Sum(sums.products[t]) - Sum(sums.minima[t]));
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

// R rows of W with N rows of x.
template <DType T, int R, int N>
inline void DotFloatRows(const MatmulArgs& a, int64_t t0, int64_t row) {
  constexpr int kBytes = kElementBytes<T>;
  const uint8_t* w = a.w + row * a.row_bytes;
  VF acc[R][N] = {};
  int64_t c = 0;
  for (; c + kLanes <= a.cols; c += kLanes) {
    VF x[N];
#pragma GCC unroll 4
    for (int t = 0; t < N; ++t) x[t] = LoadF(a.x + (t0 + t) * a.x_stride + c);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const VF v = LoadWeights<T>(w + r * a.row_bytes + c * kBytes);
#pragma GCC unroll 4
      for (int t = 0; t < N; ++t) acc[r][t] = Fma(v, x[t], acc[r][t]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int t = 0; t < N; ++t) {
      float sum = Sum(acc[r][t]);
      for (int64_t i = c; i < a.cols; ++i) {
        sum += LoadWeight<T>(w + r * a.row_bytes + i * kBytes) * a.x[(t0 + t) * a.x_stride + i];
      }
      Store(a.out, t0 + t, row + r, sum);
    }
  }
}

template <DType T, int R>
inline void VectorFloatRows(const MatmulArgs& a, int64_t row) {
  int64_t t = 0;
  for (; t + 4 <= a.n; t += 4) DotFloatRows<T, R, 4>(a, t, row);
  for (; t + 2 <= a.n; t += 2) DotFloatRows<T, R, 2>(a, t, row);
  for (; t < a.n; ++t) DotFloatRows<T, R, 1>(a, t, row);
}

template <DType T>
void VectorFloat(const MatmulArgs& a, int64_t begin, int64_t end) {
  int64_t row = begin;
  for (; row + 4 <= end; row += 4) VectorFloatRows<T, 4>(a, row);
  for (; row < end; ++row) VectorFloatRows<T, 1>(a, row);
}

// ---- matrix-matrix: a panel of kLanes rows of W, one per lane, times many rows of x ------------

struct Panel {
  const uint8_t* u;   // [cols / 4, kLanes, 4] codes
  const float* s;     // [cols / kSub, kLanes]
  const float* m;     // [cols / kSub, kLanes]
  int rows;           // valid lanes
};

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

template <int kSub, int N>
void TileQuantized(const MatmulArgs& a, const Panel& p, int64_t t0, int64_t row) {
  const int64_t cols = a.cols;
  const int8_t* q = a.xq.q + t0 * cols;
  const float* dx = a.xq.scale + t0 * (cols / 32);
  const float* x16 = a.xq.sum16 + t0 * (cols / 16);
  VF acc[N] = {};
  const uint8_t* u = p.u;
  for (int64_t sub = 0; sub < cols / kSub; ++sub) {
    VI dot[N] = {};
#pragma GCC unroll 8
    for (int k = 0; k < kSub / 4; ++k) {
      const VI w = LoadI(u);
      u += 4 * kLanes;
#pragma GCC unroll 12
      for (int t = 0; t < N; ++t) {
        int32_t four;
        memcpy(&four, q + t * cols + sub * kSub + 4 * k, 4);
        dot[t] = DotU8S8(dot[t], w, SetI(four));
      }
    }
    const VF s = LoadF(p.s + sub * kLanes);
    const VF m = LoadF(p.m + sub * kLanes);
#pragma GCC unroll 12
    for (int t = 0; t < N; ++t) {
      acc[t] = Fma(ToFloat(dot[t]), s * dx[t * (cols / 32) + sub * kSub / 32], acc[t]);
      const float* sums = x16 + t * (cols / 16) + sub * (kSub / 16);
      acc[t] -= m * (kSub == 32 ? sums[0] + sums[1] : sums[0]);
    }
  }
#pragma GCC unroll 12
  for (int t = 0; t < N; ++t) StorePanel(a.out, t0 + t, row, p.rows, acc[t]);
}

template <DType T>
void PanelQuantized(const MatmulArgs& a, int64_t begin, int64_t end, void* scratch) {
  using C = Codec<T>;
  constexpr int kSubs = C::kBlock / C::kSub;
  const int rows = static_cast<int>(end - begin);
  uint8_t* u = static_cast<uint8_t*>(scratch);
  float* s = reinterpret_cast<float*>(u + kLanes * a.cols);
  float* m = s + kLanes * (a.cols / C::kSub);
  if (rows < kLanes) {
    memset(scratch, 0, static_cast<size_t>(kLanes * a.cols + 8 * kLanes * (a.cols / C::kSub)));
  }
  for (int r = 0; r < rows; ++r) {
    const uint8_t* b = a.w + (begin + r) * a.row_bytes;
    for (int64_t c = 0; c < a.cols; c += C::kBlock, b += C::kBytes) {
      alignas(64) uint8_t codes[C::kBlock];
      float bs[kSubs], bm[kSubs];
      MemoryCodes out{codes};
      C::Unpack(b, 0, out, bs, bm);
      uint8_t* to = u + c * kLanes + 4 * r;
      for (int i = 0; i < C::kBlock / 4; ++i) memcpy(to + 4 * kLanes * i, codes + 4 * i, 4);
      for (int j = 0; j < kSubs; ++j) {
        s[(c / C::kSub + j) * kLanes + r] = bs[j];
        m[(c / C::kSub + j) * kLanes + r] =
            C::kHasMin ? bm[j] : bs[j] * static_cast<float>(C::kOffset);
      }
    }
  }
  const Panel panel{u, s, m, rows};
  int64_t t = 0;
  for (; t + kTile <= a.n; t += kTile) TileQuantized<C::kSub, kTile>(a, panel, t, begin);
  if constexpr (kTile > 4) {
    for (; t + 4 <= a.n; t += 4) TileQuantized<C::kSub, 4>(a, panel, t, begin);
  }
  for (; t < a.n; ++t) TileQuantized<C::kSub, 1>(a, panel, t, begin);
}

template <int N>
void TileFloat(const MatmulArgs& a, const float* panel, int64_t column, int count, int64_t t0,
               int64_t row, int rows, bool first) {
  VF acc[N] = {};
  const float* x = a.x + t0 * a.x_stride + column;
  for (int c = 0; c < count; ++c) {
    const VF w = LoadF(panel + c * kLanes);
#pragma GCC unroll 12
    for (int t = 0; t < N; ++t) acc[t] = Fma(w, SetF(x[t * a.x_stride + c]), acc[t]);
  }
  MatmulOutput out = a.out;
  if (!first) {
    out.bias = nullptr;
    out.accumulate = true;
  }
#pragma GCC unroll 12
  for (int t = 0; t < N; ++t) StorePanel(out, t0 + t, row, rows, acc[t]);
}

template <DType T>
void PanelFloat(const MatmulArgs& a, int64_t begin, int64_t end, void* scratch) {
  constexpr int kBytes = kElementBytes<T>;
  const int rows = static_cast<int>(end - begin);
  float* panel = static_cast<float*>(scratch);  // [count, kLanes]
  if (rows < kLanes) memset(panel, 0, sizeof(float) * kLanes * kFloatChunk);
  for (int64_t column = 0; column < a.cols; column += kFloatChunk) {
    const int count =
        static_cast<int>(a.cols - column < kFloatChunk ? a.cols - column : kFloatChunk);
    for (int r = 0; r < rows; ++r) {
      const uint8_t* w = a.w + (begin + r) * a.row_bytes + column * kBytes;
      int c = 0;
      for (; c + kLanes <= count; c += kLanes) {
        float wide[kLanes];
        StoreF(wide, LoadWeights<T>(w + c * kBytes));
        for (int i = 0; i < kLanes; ++i) panel[(c + i) * kLanes + r] = wide[i];
      }
      for (; c < count; ++c) panel[c * kLanes + r] = LoadWeight<T>(w + c * kBytes);
    }
    const bool first = column == 0;
    int64_t t = 0;
    for (; t + kTile <= a.n; t += kTile) {
      TileFloat<kTile>(a, panel, column, count, t, begin, rows, first);
    }
    if constexpr (kTile > 4) {
      for (; t + 4 <= a.n; t += 4) TileFloat<4>(a, panel, column, count, t, begin, rows, first);
    }
    for (; t < a.n; ++t) TileFloat<1>(a, panel, column, count, t, begin, rows, first);
  }
}

// ---- dispatch by type --------------------------------------------------------------------------

#define MILLRACE_FOR_QUANTIZED(CASE) \
  CASE(kQ8_0) CASE(kQ4_0) CASE(kQ4_1) CASE(kQ5_0) CASE(kQ5_1) \
  CASE(kQ4_K) CASE(kQ5_K) CASE(kQ6_K) CASE(kQ3_K) CASE(kQ2_K)
#define MILLRACE_FOR_FLOAT(CASE) CASE(kF32) CASE(kF16) CASE(kBF16)

void Vector(const MatmulArgs& a, int64_t begin, int64_t end) {
  switch (a.dtype) {
#define CASE(T) case DType::T: return VectorQuantized<DType::T>(a, begin, end);
    MILLRACE_FOR_QUANTIZED(CASE)
#undef CASE
#define CASE(T) case DType::T: return VectorFloat<DType::T>(a, begin, end);
    MILLRACE_FOR_FLOAT(CASE)
#undef CASE
  }
}

void PanelDispatch(const MatmulArgs& a, int64_t begin, int64_t end, void* scratch) {
  switch (a.dtype) {
#define CASE(T) case DType::T: return PanelQuantized<DType::T>(a, begin, end, scratch);
    MILLRACE_FOR_QUANTIZED(CASE)
#undef CASE
#define CASE(T) case DType::T: return PanelFloat<DType::T>(a, begin, end, scratch);
    MILLRACE_FOR_FLOAT(CASE)
#undef CASE
  }
}

template <DType T>
void WidenRow(const uint8_t* row, int64_t cols, float* out) {
  constexpr int kBytes = kElementBytes<T>;
  int64_t c = 0;
  for (; c + kLanes <= cols; c += kLanes) StoreF(out + c, LoadWeights<T>(row + c * kBytes));
  for (; c < cols; ++c) out[c] = LoadWeight<T>(row + c * kBytes);
}

void DequantizeDispatch(DType dtype, const void* row, int64_t cols, float* out) {
  const uint8_t* bytes = static_cast<const uint8_t*>(row);
  switch (dtype) {
#define CASE(T) case DType::T: return DequantizeBlocks<DType::T>(bytes, cols, out);
    MILLRACE_FOR_QUANTIZED(CASE)
#undef CASE
#define CASE(T) case DType::T: return WidenRow<DType::T>(bytes, cols, out);
    MILLRACE_FOR_FLOAT(CASE)
#undef CASE
  }
}

}  // namespace

const MatmulKernels& MILLRACE_MATMUL_KERNELS() {
  static constexpr MatmulKernels kKernels = {kLanes, QuantizeRow, Vector, PanelDispatch,
                                             DequantizeDispatch};
  return kKernels;
}

}  // namespace millrace
