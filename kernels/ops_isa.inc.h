// Norm, SwiGLU and attention rows, written once on kernels/simd.h and compiled per instruction set.
// The file that includes this defines MILLRACE_OPS_KERNELS, the function that returns the table.

#include "kernels/ops_kernels.h"
#include "kernels/simd.h"

namespace millrace {
namespace {

void RmsNormRow(const float* x, const float* weight, int64_t d, float epsilon, float* out) {
  VF acc[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= d; i += 4 * kLanes) {
    for (int k = 0; k < 4; ++k) {
      const VF v = LoadF(x + i + k * kLanes);
      acc[k] = Fma(v, v, acc[k]);
    }
  }
  float sum = Sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
  for (; i < d; ++i) sum += x[i] * x[i];
  const float scale = 1.0f / __builtin_sqrtf(sum / static_cast<float>(d) + epsilon);
  i = 0;
  for (; i + kLanes <= d; i += kLanes) StoreF(out + i, LoadF(x + i) * scale * LoadF(weight + i));
  for (; i < d; ++i) out[i] = x[i] * scale * weight[i];
}

void SwiGluRow(float* gate, const float* up, int64_t d) {
  int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) {
    const VF g = LoadF(gate + i);
    StoreF(gate + i, g / (1.0f + Exp(-g)) * LoadF(up + i));
  }
  for (; i < d; ++i) {
    const VF g = SetF(gate[i]);
    gate[i] = (g / (1.0f + Exp(-g)))[0] * up[i];
  }
}

// `count` cache rows of head_dim values as f32, rows `padded` apart, the padding zero.
void WidenBlock(const uint8_t* rows, DType dtype, int64_t row_bytes, int head_dim, int padded,
                int count, float* out) {
  for (int j = 0; j < count; ++j) {
    const uint8_t* row = rows + j * row_bytes;
    float* o = out + static_cast<int64_t>(j) * padded;
    int d = 0;
    if (dtype == DType::kF16) {
      for (; d + kLanes <= head_dim; d += kLanes) StoreF(o + d, LoadHalf(row + 2 * d));
      for (; d < head_dim; ++d) o[d] = HalfToFloat(LoadU16(row + 2 * d));
    } else if (dtype == DType::kBF16) {
      for (; d + kLanes <= head_dim; d += kLanes) StoreF(o + d, LoadBf16(row + 2 * d));
      for (; d < head_dim; ++d) o[d] = Bf16ToFloat(LoadU16(row + 2 * d));
    } else if (dtype == DType::kF32) {
      memcpy(o, row, sizeof(float) * head_dim);
    } else {  // q8_0
      for (; d < head_dim; d += 32, row += 34) {
        const float scale = HalfToFloat(LoadU16(row));
        const int8_t* q = reinterpret_cast<const int8_t*>(row + 2);
        for (int i = 0; i < 32; ++i) o[d + i] = scale * static_cast<float>(q[i]);
      }
    }
    for (d = head_dim; d < padded; ++d) o[d] = 0;
  }
}

// Scores of one query with `count` keys; four at a time share the query's loads.
void Scores(const float* q, const float* k, int padded, int count, float* scores) {
  int j = 0;
  for (; j + 4 <= count; j += 4) {
    VF acc[4] = {};
    const float* rows = k + static_cast<int64_t>(j) * padded;
    for (int d = 0; d < padded; d += kLanes) {
      const VF v = LoadF(q + d);
      for (int i = 0; i < 4; ++i) acc[i] = Fma(v, LoadF(rows + i * padded + d), acc[i]);
    }
    for (int i = 0; i < 4; ++i) scores[j + i] = Sum(acc[i]);
  }
  for (; j < count; ++j) {
    VF acc = {};
    for (int d = 0; d < padded; d += kLanes) {
      acc = Fma(LoadF(q + d), LoadF(k + static_cast<int64_t>(j) * padded + d), acc);
    }
    scores[j] = Sum(acc);
  }
}

// Folds `count` scores and values into one query's running maximum, sum and weighted values.
void Fold(float* scores, const float* v, int padded, int count, float& peak, float& sum,
          float* out) {
  float top = peak;
  for (int j = 0; j < count; ++j) top = scores[j] > top ? scores[j] : top;
  for (int j = count; j < kAttendBlock; ++j) scores[j] = -1e30f;
  const float shrink = peak == top ? 1.0f : Exp(SetF(peak - top))[0];
  VF total = {};
  for (int j = 0; j < kAttendBlock; j += kLanes) {
    const VF p = Exp(LoadF(scores + j) - top);
    StoreF(scores + j, p);
    total += p;
  }
  sum = sum * shrink + Sum(total);
  peak = top;
  for (int d = 0; d < padded; d += kLanes) {
    VF a = LoadF(out + d) * shrink, b = {};
    int j = 0;
    for (; j + 2 <= count; j += 2) {
      a = Fma(SetF(scores[j]), LoadF(v + static_cast<int64_t>(j) * padded + d), a);
      b = Fma(SetF(scores[j + 1]), LoadF(v + static_cast<int64_t>(j + 1) * padded + d), b);
    }
    if (j < count) a = Fma(SetF(scores[j]), LoadF(v + static_cast<int64_t>(j) * padded + d), a);
    StoreF(out + d, a + b);
  }
}

void Attend(const AttendArgs& a) {
  const int padded = (a.head_dim + 15) / 16 * 16;
  const int queries = a.rows * a.group;
  float* q = a.scratch;                              // [queries, padded], scaled
  float* out = q + kMaxAttendQueries * padded;       // [queries, padded]
  float* k = out + kMaxAttendQueries * padded;       // [kAttendBlock, padded]
  float* v = k + kAttendBlock * padded;              // [kAttendBlock, padded]
  float* scores = v + kAttendBlock * padded;         // [kAttendBlock]
  float* peak = scores + kMaxAttendQueries * kAttendBlock;
  float* sum = peak + kMaxAttendQueries;
  memset(q, 0, sizeof(float) * 2 * kMaxAttendQueries * padded);
  for (int i = 0; i < queries; ++i) {
    const float* from = a.q + (i / a.group) * a.q_stride + (i % a.group) * a.head_dim;
    for (int d = 0; d < a.head_dim; ++d) q[i * padded + d] = from[d] * a.scale;
    peak[i] = -1e30f;
    sum[i] = 0;
  }
  const int last = a.first_position + a.rows - 1;
  for (int j = 0; j <= last; j += kAttendBlock) {
    const int count = last + 1 - j < kAttendBlock ? last + 1 - j : kAttendBlock;
    WidenBlock(a.k + j * a.row_bytes, a.dtype, a.row_bytes, a.head_dim, padded, count, k);
    WidenBlock(a.v + j * a.row_bytes, a.dtype, a.row_bytes, a.head_dim, padded, count, v);
    for (int i = 0; i < queries; ++i) {
      const int position = a.first_position + i / a.group;
      const int visible = position + 1 - j < count ? position + 1 - j : count;
      if (visible <= 0) continue;
      Scores(q + i * padded, k, padded, visible, scores);
      Fold(scores, v, padded, visible, peak[i], sum[i], out + i * padded);
    }
  }
  for (int i = 0; i < queries; ++i) {
    float* to = a.out + (i / a.group) * a.out_stride + (i % a.group) * a.head_dim;
    const float inverse = 1.0f / sum[i];
    for (int d = 0; d < a.head_dim; ++d) to[d] = out[i * padded + d] * inverse;
  }
}

}  // namespace

const OpsKernels& MILLRACE_OPS_KERNELS() {
  static constexpr OpsKernels kKernels = {RmsNormRow, SwiGluRow, Attend};
  return kKernels;
}

}  // namespace millrace
