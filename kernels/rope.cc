#include "kernels/rope.h"

#include <cmath>

#include "proto/status_macros.h"

namespace millrace {
namespace {

struct PairIndex {
  int a, b;
};

PairIndex PairOf(int i, int dims, RopeStyle style) {
  if (style == RopeStyle::kInterleaved) return {2 * i, 2 * i + 1};
  return {i, i + dims / 2};
}

void RotateHead(float* head, int dims, RopeStyle style, const float* table) {
  for (int i = 0; i < dims / 2; ++i) {
    const PairIndex p = PairOf(i, dims, style);
    const float c = table[2 * i], s = table[2 * i + 1];
    const float a = head[p.a], b = head[p.b];
    head[p.a] = a * c - b * s;
    head[p.b] = a * s + b * c;
  }
}

}  // namespace

std::vector<double> RopeFrequencies(const RopeSpec& spec) {
  std::vector<double> steps(static_cast<size_t>(spec.dims / 2));
  for (size_t i = 0; i < steps.size(); ++i) {
    steps[i] = std::pow(static_cast<double>(spec.base), -2.0 * static_cast<double>(i) / spec.dims) /
               spec.linear_factor;
    if (!spec.frequency_factors.empty()) steps[i] /= spec.frequency_factors[i];
  }
  return steps;
}

void RopeTable(const CpuContext& ctx, absl::Span<const int> positions,
               absl::Span<const double> frequencies, float* table) {
  const int64_t pairs = static_cast<int64_t>(frequencies.size());
  ctx.pool->ParallelFor(
      static_cast<int64_t>(positions.size()), 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t r = begin; r < end; ++r) {
          for (int64_t i = 0; i < pairs; ++i) {
            const double angle = positions[r] * frequencies[i];
            table[2 * (r * pairs + i)] = static_cast<float>(std::cos(angle));
            table[2 * (r * pairs + i) + 1] = static_cast<float>(std::sin(angle));
          }
        }
      });
}

void Rope(const CpuContext& ctx, FloatView x, int head_dim, int dims, RopeStyle style,
          const float* table) {
  MILLRACE_CHECK(dims <= head_dim && x.cols % head_dim == 0);
  ctx.pool->ParallelFor(x.rows, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t h = 0; h < x.cols; h += head_dim) {
        RotateHead(x.row(r) + h, dims, style, table + r * dims);
      }
    }
  });
}

void RopeReference(FloatView x, int head_dim, absl::Span<const int> positions, RopeStyle style,
                   absl::Span<const double> frequencies) {
  const int dims = static_cast<int>(2 * frequencies.size());
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t h = 0; h < x.cols; h += head_dim) {
      for (int i = 0; i < dims / 2; ++i) {
        const PairIndex p = PairOf(i, dims, style);
        const double angle = positions[r] * frequencies[i];
        const double a = x.row(r)[h + p.a], b = x.row(r)[h + p.b];
        x.row(r)[h + p.a] = static_cast<float>(a * std::cos(angle) - b * std::sin(angle));
        x.row(r)[h + p.b] = static_cast<float>(a * std::sin(angle) + b * std::cos(angle));
      }
    }
  }
}

}  // namespace millrace
