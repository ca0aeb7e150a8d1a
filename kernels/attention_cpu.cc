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

// How a call is cut: units of one kv head (or a part of its group) x some rows, each in `splits`
// ranges of keys.
struct Cut {
  int group_size = 0;  // heads per kv head
  int group = 0;       // of those, how many share a unit
  int parts = 0;       // units per kv head and block of rows
  int rows_per_unit = 0;
  int64_t units = 0;
  int splits = 1;
};

// Below this many keys a range is not worth a task of its own.
constexpr int kMinSplitKeys = 256;

int64_t UnitsOf(const AttentionSegment& s, const Cut& cut, int kv_heads) {
  return (s.rows + cut.rows_per_unit - 1) / cut.rows_per_unit * kv_heads * cut.parts;
}

Cut MakeCut(int heads, int kv_heads, absl::Span<const AttentionSegment> segments, int threads) {
  Cut cut;
  cut.group_size = heads / kv_heads;
  cut.group = std::min(cut.group_size, kMaxAttendQueries);
  cut.parts = (cut.group_size + cut.group - 1) / cut.group;
  cut.rows_per_unit = std::max(1, kMaxAttendQueries / cut.group);
  int64_t longest = 0;
  for (const AttentionSegment& s : segments) {
    cut.units += UnitsOf(s, cut, kv_heads);
    longest = std::max(longest, s.first_position + s.rows);
  }
  if (cut.units > 0 && cut.units < 2 * threads) {
    const int64_t wanted = (2 * threads + cut.units - 1) / cut.units;
    cut.splits = static_cast<int>(std::max<int64_t>(1, std::min(wanted, longest / kMinSplitKeys)));
  }
  return cut;
}

// units * splits < 2 * threads + units < 4 * threads whenever there is more than one split.
int64_t MaxSplitTasks(int threads) { return 4 * static_cast<int64_t>(threads); }
int64_t PartialFloats(int head_dim) {
  return static_cast<int64_t>(kMaxAttendQueries) * (head_dim + 2);
}

AttendArgs ArgsOfUnit(int64_t unit, const Cut& cut, FloatView q, const KvView& cache,
                      absl::Span<const AttentionSegment> segments, FloatView out) {
  const AttentionSegment* s = segments.data();
  for (; unit >= UnitsOf(*s, cut, cache.kv_heads); ++s) unit -= UnitsOf(*s, cut, cache.kv_heads);
  const int kv_head = static_cast<int>(unit % cache.kv_heads);
  unit /= cache.kv_heads;
  const int part = static_cast<int>(unit % cut.parts);
  // The last rows see the most keys: start with them, so that the loop ends evenly.
  const int64_t blocks = (s->rows + cut.rows_per_unit - 1) / cut.rows_per_unit;
  const int64_t first = (blocks - 1 - unit / cut.parts) * cut.rows_per_unit;
  const int64_t column =
      static_cast<int64_t>(kv_head * cut.group_size + part * cut.group) * cache.head_dim;
  AttendArgs args;
  args.row_bytes = RowBytes(cache.dtype, cache.head_dim).count();
  const int64_t cell =
      (static_cast<int64_t>(s->slot) * cache.kv_heads + kv_head) * cache.context * args.row_bytes;
  args.q = q.row(s->first_row + first) + column;
  args.q_stride = q.stride;
  args.out = out.row(s->first_row + first) + column;
  args.out_stride = out.stride;
  args.k = static_cast<const uint8_t*>(cache.k) + cell;
  args.v = static_cast<const uint8_t*>(cache.v) + cell;
  args.dtype = cache.dtype;
  args.head_dim = cache.head_dim;
  args.rows = static_cast<int>(std::min<int64_t>(cut.rows_per_unit, s->rows - first));
  args.group = std::min(cut.group, cut.group_size - part * cut.group);
  args.first_position = s->first_position + static_cast<int>(first);
  return args;
}

// The keys of one split of a unit: whole blocks, possibly none.
void SetKeys(int split, int splits, AttendArgs& args) {
  const int keys = args.first_position + args.rows;
  const int blocks = (keys + kAttendBlock - 1) / kAttendBlock;
  args.first_key = blocks * split / splits * kAttendBlock;
  args.end_key = blocks * (split + 1) / splits * kAttendBlock;
}

// Joins the splits of a unit; partials of split i start at partials + i * stride.
void Combine(const AttendArgs& args, const float* partials, int64_t stride, int splits) {
  const int d = args.head_dim;
  for (int i = 0; i < args.rows * args.group; ++i) {
    const float* from = partials + static_cast<int64_t>(i) * (d + 2);
    float* to = args.out + (i / args.group) * args.out_stride + (i % args.group) * d;
    float peak = from[d];
    for (int p = 1; p < splits; ++p) peak = std::max(peak, from[p * stride + d]);
    float sum = 0;
    for (int p = 0; p < splits; ++p) {
      sum += from[p * stride + d + 1] * std::exp(from[p * stride + d] - peak);
    }
    std::fill(to, to + d, 0.0f);
    for (int p = 0; p < splits; ++p) {
      const float weight = std::exp(from[p * stride + d] - peak) / sum;
      for (int e = 0; e < d; ++e) to[e] += weight * from[p * stride + e];
    }
  }
}

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
          const int64_t cell = (static_cast<int64_t>(s.slot) * cache.kv_heads + h) * cache.context +
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
  const int64_t floats =
      AttendScratchFloats(head_dim) * threads + PartialFloats(head_dim) * MaxSplitTasks(threads);
  return static_cast<size_t>(floats) * sizeof(float);
}

void Attention(const CpuContext& ctx, FloatView q, int heads, const KvView& cache,
               absl::Span<const AttentionSegment> segments, float scale, FloatView out) {
  const int threads = ctx.pool->size();
  MILLRACE_CHECK(heads % cache.kv_heads == 0);
  MILLRACE_CHECK(q.cols == static_cast<int64_t>(heads) * cache.head_dim && out.cols == q.cols);
  MILLRACE_CHECK(ctx.scratch_bytes >= AttentionScratchBytes(cache.head_dim, threads));
  for (const AttentionSegment& s : segments) {
    MILLRACE_CHECK(s.slot >= 0 && s.slot < cache.slots && s.first_position >= 0 &&
                   s.first_position + s.rows <= cache.context);
  }
  const OpsKernels& kernels = OpsKernelsFor(ctx);
  const Cut cut = MakeCut(heads, cache.kv_heads, segments, threads);
  MILLRACE_CHECK(cut.splits == 1 || cut.units * cut.splits <= MaxSplitTasks(threads));
  const int64_t floats = AttendScratchFloats(cache.head_dim);
  const int64_t stride = PartialFloats(cache.head_dim);
  float* scratch = reinterpret_cast<float*>(ctx.scratch);
  float* partials = scratch + threads * floats;  // [units, splits, stride]
  ctx.pool->ParallelFor(cut.units * cut.splits, 1, [&](int64_t task, int64_t, int thread) {
    AttendArgs args = ArgsOfUnit(task / cut.splits, cut, q, cache, segments, out);
    args.scale = scale;
    args.scratch = scratch + thread * floats;
    if (cut.splits > 1) {
      SetKeys(static_cast<int>(task % cut.splits), cut.splits, args);
      args.partial = partials + task * stride;
    }
    kernels.attend(args);
  });
  if (cut.splits == 1) return;
  ctx.pool->ParallelFor(cut.units, 1, [&](int64_t unit, int64_t, int) {
    Combine(ArgsOfUnit(unit, cut, q, cache, segments, out), partials + unit * cut.splits * stride,
            stride, cut.splits);
  });
}

}  // namespace millrace
