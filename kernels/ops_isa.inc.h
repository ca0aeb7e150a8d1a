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

// What AttendArgs::scratch is cut into.
struct AttendScratch {
  float* q;       // scaled queries: [queries, padded], or transposed [padded, kMaxAttendQueries]
  float* out;     // likewise, not yet divided by the sum
  float* k;       // [kAttendBlock, padded]
  float* v;       // [kAttendBlock, padded]
  float* scores;  // [kAttendBlock] or [kAttendBlock, kMaxAttendQueries]
  float* peak;    // [kMaxAttendQueries]
  float* sum;     // [kMaxAttendQueries]
};

int LastKey(const AttendArgs& a) {
  const int last = a.first_position + a.rows - 1;
  return last < a.end_key ? last : a.end_key - 1;
}

// Where the values of query i go; notes its maximum and sum beside them when they are partial.
float* Destination(const AttendArgs& a, int i, float peak, float sum) {
  if (a.partial == nullptr) {
    return a.out + (i / a.group) * a.out_stride + (i % a.group) * a.head_dim;
  }
  float* to = a.partial + static_cast<int64_t>(i) * (a.head_dim + 2);
  to[a.head_dim] = peak;
  to[a.head_dim + 1] = sum;
  return to;
}

// ---- many queries: vectors run over the queries, so that neither scores nor softmax need sums across
// lanes. Matrices are transposed: [head_dim or keys, kMaxAttendQueries].

constexpr int kTile = kLanes == 16 ? 8 : 4;  // keys or dimensions whose accumulators fill registers
constexpr float kMasked = -1e30f;

// scores[j, q] = K[j] . Q[q] for V vectors of queries; rows up to the next multiple of kTile are
// written too and mean nothing.
template <int V>
void ScoreTile(const float* qt, const float* k, int padded, int head_dim, int count,
               float* scores) {
  for (int j = 0; j < count; j += kTile) {
    VF acc[kTile][V] = {};
    const float* rows = k + static_cast<int64_t>(j) * padded;
    for (int d = 0; d < head_dim; ++d) {
      VF x[V];
      for (int v = 0; v < V; ++v) x[v] = LoadF(qt + d * kMaxAttendQueries + v * kLanes);
      for (int i = 0; i < kTile; ++i) {
        const VF key = SetF(rows[i * padded + d]);
        for (int v = 0; v < V; ++v) acc[i][v] = Fma(key, x[v], acc[i][v]);
      }
    }
    for (int i = 0; i < kTile; ++i) {
      for (int v = 0; v < V; ++v) {
        StoreF(scores + (j + i) * kMaxAttendQueries + v * kLanes, acc[i][v]);
      }
    }
  }
}

// One vector of queries: scores become weights, maximum and sum move on; returns what the earlier
// values shrink by. visible[q]: how many keys of the block query q sees.
VF SoftmaxTile(float* scores, const int32_t* visible, int count, float* peak, float* sum) {
  const VI limit = LoadI(visible);
  const VF before = LoadF(peak);
  VF top = before;
  for (int j = 0; j < count; ++j) {
    const VF s = LoadF(scores + j * kMaxAttendQueries);
    const VF seen = SetI(j) < limit ? s : SetF(kMasked);
    StoreF(scores + j * kMaxAttendQueries, seen);
    top = seen > top ? seen : top;
  }
  VF total = {};
  for (int j = 0; j < count; ++j) {
    const VF p = Exp(LoadF(scores + j * kMaxAttendQueries) - top);
    StoreF(scores + j * kMaxAttendQueries, p);
    total += p;
  }
  const VF shrink = Exp(before - top);
  StoreF(sum, Fma(LoadF(sum), shrink, total));
  StoreF(peak, top);
  return shrink;
}

// out[d, q] = out[d, q] * shrink[q] + sum_j weights[j, q] V[j, d].
template <int V>
void MixTile(const float* weights, const float* values, int padded, int head_dim, int count,
             const VF* shrink, float* out) {
  for (int d = 0; d < head_dim; d += kTile) {
    VF acc[kTile][V];
    for (int i = 0; i < kTile; ++i) {
      for (int v = 0; v < V; ++v) {
        acc[i][v] = LoadF(out + (d + i) * kMaxAttendQueries + v * kLanes) * shrink[v];
      }
    }
    for (int j = 0; j < count; ++j) {
      VF p[V];
      for (int v = 0; v < V; ++v) p[v] = LoadF(weights + j * kMaxAttendQueries + v * kLanes);
      const float* row = values + static_cast<int64_t>(j) * padded + d;
      for (int i = 0; i < kTile; ++i) {
        const VF value = SetF(row[i]);
        for (int v = 0; v < V; ++v) acc[i][v] = Fma(value, p[v], acc[i][v]);
      }
    }
    for (int i = 0; i < kTile; ++i) {
      for (int v = 0; v < V; ++v) {
        StoreF(out + (d + i) * kMaxAttendQueries + v * kLanes, acc[i][v]);
      }
    }
  }
}

// One block of the cache for V vectors of queries from `first` on.
template <int V>
void BlockTile(const AttendScratch& s, int first, const int32_t* visible, int padded, int head_dim,
               int count) {
  ScoreTile<V>(s.q + first, s.k, padded, head_dim, count, s.scores + first);
  VF shrink[V];
  for (int v = 0; v < V; ++v) {
    const int i = first + v * kLanes;
    shrink[v] = SoftmaxTile(s.scores + i, visible + i, count, s.peak + i, s.sum + i);
  }
  MixTile<V>(s.scores + first, s.v, padded, head_dim, count, shrink, s.out + first);
}

void AttendMany(const AttendArgs& a, const AttendScratch& s, int padded) {
  const int queries = a.rows * a.group;
  for (int i = 0; i < queries; ++i) {
    const float* from = a.q + (i / a.group) * a.q_stride + (i % a.group) * a.head_dim;
    for (int d = 0; d < a.head_dim; ++d) s.q[d * kMaxAttendQueries + i] = from[d] * a.scale;
  }
  for (int i = 0; i < kMaxAttendQueries; ++i) {
    s.peak[i] = kMasked;
    s.sum[i] = 0;
  }
  const int last = LastKey(a);
  for (int j = a.first_key; j <= last; j += kAttendBlock) {
    const int count = last + 1 - j < kAttendBlock ? last + 1 - j : kAttendBlock;
    WidenBlock(a.k + j * a.row_bytes, a.dtype, a.row_bytes, a.head_dim, padded, count, s.k);
    WidenBlock(a.v + j * a.row_bytes, a.dtype, a.row_bytes, a.head_dim, padded, count, s.v);
    int32_t visible[kMaxAttendQueries];
    for (int i = 0; i < kMaxAttendQueries; ++i) {
      visible[i] = i < queries ? a.first_position + i / a.group + 1 - j : count;
    }
    int i = 0;
    for (; i + kLanes < queries; i += 2 * kLanes) {
      BlockTile<2>(s, i, visible, padded, a.head_dim, count);
    }
    if (i < queries) BlockTile<1>(s, i, visible, padded, a.head_dim, count);
  }
  for (int i = 0; i < queries; ++i) {
    float* to = Destination(a, i, s.peak[i], s.sum[i]);
    const float inverse = a.partial != nullptr ? 1.0f : 1.0f / s.sum[i];
    for (int d = 0; d < a.head_dim; ++d) to[d] = s.out[d * kMaxAttendQueries + i] * inverse;
  }
}

// ---- few queries (decode): vectors run over the head's dimensions.

void AttendFew(const AttendArgs& a, const AttendScratch& s, int padded) {
  const int queries = a.rows * a.group;
  float *q = s.q, *out = s.out, *k = s.k, *v = s.v, *scores = s.scores, *peak = s.peak;
  float* sum = s.sum;
  for (int i = 0; i < queries; ++i) {
    const float* from = a.q + (i / a.group) * a.q_stride + (i % a.group) * a.head_dim;
    for (int d = 0; d < a.head_dim; ++d) q[i * padded + d] = from[d] * a.scale;
    peak[i] = -1e30f;
    sum[i] = 0;
  }
  const int last = LastKey(a);
  for (int j = a.first_key; j <= last; j += kAttendBlock) {
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
    float* to = Destination(a, i, peak[i], sum[i]);
    const float inverse = a.partial != nullptr ? 1.0f : 1.0f / sum[i];
    for (int d = 0; d < a.head_dim; ++d) to[d] = out[i * padded + d] * inverse;
  }
}

void Attend(const AttendArgs& a) {
  const int padded = (a.head_dim + 15) / 16 * 16;
  AttendScratch s;
  s.q = a.scratch;
  s.out = s.q + kMaxAttendQueries * padded;
  s.k = s.out + kMaxAttendQueries * padded;
  s.v = s.k + kAttendBlock * padded;
  s.scores = s.v + kAttendBlock * padded;
  s.peak = s.scores + kMaxAttendQueries * kAttendBlock;
  s.sum = s.peak + kMaxAttendQueries;
  memset(s.q, 0, sizeof(float) * 2 * kMaxAttendQueries * padded);
  if (a.rows * a.group > kLanes / 2) {
    AttendMany(a, s, padded);
  } else {
    AttendFew(a, s, padded);
  }
}

}  // namespace

const OpsKernels& MILLRACE_OPS_KERNELS() {
  static constexpr OpsKernels kKernels = {RmsNormRow, SwiGluRow, Attend};
  return kKernels;
}

}  // namespace millrace
