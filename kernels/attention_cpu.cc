#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/attention.h"
#include "kernels/fp16.h"
#include "kernels/ops_dispatch.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

void StoreRow(const float* x, int head_dim, DType dtype, uint8_t* out) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, x, sizeof(float) * head_dim);
      return;
    case DType::kF16:
    case DType::kBF16:
      for (int i = 0; i < head_dim; ++i) {
        const uint16_t h = dtype == DType::kF16 ? FloatToHalf(x[i]) : FloatToBf16(x[i]);
        std::memcpy(out + 2 * i, &h, 2);
      }
      return;
    case DType::kQ8_0:
      for (int b = 0; b < head_dim; b += 32, out += 34) {
        float peak = 0;
        for (int i = 0; i < 32; ++i) peak = std::max(peak, std::abs(x[b + i]));
        const uint16_t d = FloatToHalf(peak / 127.0f);
        const float inverse = peak > 0 ? 127.0f / peak : 0.0f;
        std::memcpy(out, &d, 2);
        for (int i = 0; i < 32; ++i) {
          out[2 + i] = static_cast<uint8_t>(
              static_cast<int8_t>(std::lrintf(std::clamp(x[b + i] * inverse, -127.0f, 127.0f))));
        }
      }
      return;
    default:
      MILLRACE_CHECK(!"KV cache type is f32, f16, bf16 or q8_0");
  }
}

// Query rows handled together: as many as keep rows * group within the kernel's limit.
int RowsPerUnit(int group) { return std::max(1, kMaxAttendQueries / group); }

}  // namespace

void KvAppend(const CpuContext& ctx, FloatView k, FloatView v,
              absl::Span<const AttentionSegment> segments, const KvView& cache) {
  const int64_t row_bytes = RowBytes(cache.dtype, cache.head_dim).count();
  for (const AttentionSegment& s : segments) {
    MILLRACE_CHECK(s.slot >= 0 && s.slot < cache.slots && s.first_position >= 0 &&
                   s.first_position + s.rows <= cache.context);
    ctx.pool->ParallelFor(s.rows, 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) {
        for (int h = 0; h < cache.kv_heads; ++h) {
          const int64_t cell =
              (static_cast<int64_t>(s.slot) * cache.kv_heads + h) * cache.context +
              s.first_position + r;
          const int64_t column = static_cast<int64_t>(h) * cache.head_dim;
          StoreRow(k.row(s.first_row + r) + column, cache.head_dim, cache.dtype,
                   static_cast<uint8_t*>(cache.k) + cell * row_bytes);
          StoreRow(v.row(s.first_row + r) + column, cache.head_dim, cache.dtype,
                   static_cast<uint8_t*>(cache.v) + cell * row_bytes);
        }
      }
    });
  }
}

size_t AttentionScratchBytes(int head_dim, int threads) {
  return static_cast<size_t>(AttendScratchFloats(head_dim)) * sizeof(float) *
         static_cast<size_t>(threads);
}

void Attention(const CpuContext& ctx, FloatView q, int heads, const KvView& cache,
               absl::Span<const AttentionSegment> segments, float scale, FloatView out) {
  const int group_size = heads / cache.kv_heads;
  MILLRACE_CHECK(heads % cache.kv_heads == 0);
  MILLRACE_CHECK(q.cols == static_cast<int64_t>(heads) * cache.head_dim && out.cols == q.cols);
  MILLRACE_CHECK(ctx.scratch_bytes >= AttentionScratchBytes(cache.head_dim, ctx.pool->size()));
  const OpsKernels& kernels = OpsKernelsFor(ctx);
  // A group of more than kMaxAttendQueries heads is split.
  const int group = std::min(group_size, kMaxAttendQueries);
  const int groups = (group_size + group - 1) / group;
  const int rows_per_unit = RowsPerUnit(group);
  int64_t units = 0;
  for (const AttentionSegment& s : segments) {
    units += (s.rows + rows_per_unit - 1) / rows_per_unit * cache.kv_heads * groups;
  }
  const int64_t row_bytes = RowBytes(cache.dtype, cache.head_dim).count();
  const int64_t floats = AttendScratchFloats(cache.head_dim);
  ctx.pool->ParallelFor(units, 1, [&](int64_t unit, int64_t, int thread) {
    const AttentionSegment* s = segments.data();
    int64_t index = unit;
    for (;; ++s) {
      const int64_t count =
          (s->rows + rows_per_unit - 1) / rows_per_unit * cache.kv_heads * groups;
      if (index < count) break;
      index -= count;
    }
    const int kv_head = static_cast<int>(index % cache.kv_heads);
    index /= cache.kv_heads;
    const int part = static_cast<int>(index % groups);
    // The last rows see the most keys: start with them, so that the loop ends evenly.
    const int64_t blocks = (s->rows + rows_per_unit - 1) / rows_per_unit;
    const int64_t first = (blocks - 1 - index / groups) * rows_per_unit;
    const int head = kv_head * group_size + part * group;
    const int64_t cell =
        (static_cast<int64_t>(s->slot) * cache.kv_heads + kv_head) * cache.context * row_bytes;
    AttendArgs args;
    args.q = q.row(s->first_row + first) + static_cast<int64_t>(head) * cache.head_dim;
    args.q_stride = q.stride;
    args.out = out.row(s->first_row + first) + static_cast<int64_t>(head) * cache.head_dim;
    args.out_stride = out.stride;
    args.k = static_cast<const uint8_t*>(cache.k) + cell;
    args.v = static_cast<const uint8_t*>(cache.v) + cell;
    args.dtype = cache.dtype;
    args.row_bytes = row_bytes;
    args.head_dim = cache.head_dim;
    args.rows = static_cast<int>(std::min<int64_t>(rows_per_unit, s->rows - first));
    args.group = std::min(group, group_size - part * group);
    args.first_position = s->first_position + static_cast<int>(first);
    args.scale = scale;
    args.scratch = reinterpret_cast<float*>(ctx.scratch) + thread * floats;
    kernels.attend(args);
  });
}

}  // namespace millrace
