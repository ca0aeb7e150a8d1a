// Part of matmul_isa.inc.h: quantised panels: kLanes rows of W, one per lane, unpacked once and
// multiplied with many rows of x.
#ifndef MILLRACE_KERNELS_MATMUL_PANEL_INC_H_
#define MILLRACE_KERNELS_MATMUL_PANEL_INC_H_

#include "kernels/matmul_common.inc.h"

namespace millrace {
namespace {

struct Panel {
  const uint8_t* u;  // [cols / 4, kLanes, 4] codes
  const float* s;    // [cols / kSub, kLanes]
  const float* m;    // [cols / kSub, kLanes]
  int rows;          // valid lanes
};

template <int kSub, int N>
void TileQuantized(const MatmulArgs& a, const Panel& p, int64_t t0, int64_t row) {
  const int64_t cols = a.cols;
  const int8_t* q = a.xq.q + t0 * cols;
  const int64_t subs = cols / kSub;
  const float* dx = a.xq.scale + t0 * subs;
  const float* sums = a.xq.sum + t0 * subs;
  VF acc[N] = {};
  const uint8_t* u = p.u;
  for (int64_t sub = 0; sub < subs; ++sub) {
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
      acc[t] = Fma(ToFloat(dot[t]), s * dx[t * subs + sub], acc[t]);
      acc[t] -= m * sums[t * subs + sub];
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

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_PANEL_INC_H_
