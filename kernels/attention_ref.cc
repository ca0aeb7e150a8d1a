#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention.h"
#include "kernels/matmul.h"

namespace millrace {
namespace {

std::vector<float> CacheRow(const void* base, const KvView& cache, int slot, int head, int position) {
  std::vector<float> row(static_cast<size_t>(cache.head_dim));
  const int64_t cell =
      (static_cast<int64_t>(slot) * cache.kv_heads + head) * cache.context + position;
  DequantizeRow(cache.dtype,
                static_cast<const char*>(base) +
                    cell * RowBytes(cache.dtype, cache.head_dim).count(),
                cache.head_dim, row.data());
  return row;
}

void AttendOne(const float* q, int kv_head, const KvView& cache, int slot, int position,
               double scale, float* out) {
  std::vector<double> scores;
  for (int j = 0; j <= position; ++j) {
    const std::vector<float> k = CacheRow(cache.k, cache, slot, kv_head, j);
    double dot = 0;
    for (int d = 0; d < cache.head_dim; ++d) dot += static_cast<double>(q[d]) * k[d];
    scores.push_back(dot * scale);
  }
  const double peak = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& s : scores) sum += s = std::exp(s - peak);
  std::vector<double> mixed(static_cast<size_t>(cache.head_dim));
  for (int j = 0; j <= position; ++j) {
    const std::vector<float> v = CacheRow(cache.v, cache, slot, kv_head, j);
    for (int d = 0; d < cache.head_dim; ++d) mixed[d] += scores[j] / sum * v[d];
  }
  for (int d = 0; d < cache.head_dim; ++d) out[d] = static_cast<float>(mixed[d]);
}

}  // namespace

void AttentionReference(FloatView q, int heads, const KvView& cache,
                        absl::Span<const AttentionSegment> segments, float scale, FloatView out) {
  for (const AttentionSegment& s : segments) {
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int h = 0; h < heads; ++h) {
        const int64_t column = static_cast<int64_t>(h) * cache.head_dim;
        AttendOne(q.row(s.first_row + r) + column, h / (heads / cache.kv_heads), cache, s.slot,
                  s.first_position + static_cast<int>(r), scale,
                  out.row(s.first_row + r) + column);
      }
    }
  }
}

}  // namespace millrace
