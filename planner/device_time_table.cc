#include "planner/device_time_table.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "proto/status_macros.h"

namespace millrace {
namespace {

struct Point {
  double x = 0, y = 0;
};

// The line through a and b.
double Line(const Point& a, const Point& b, double x) {
  return b.x == a.x ? b.y : a.y + (b.y - a.y) * (x - a.x) / (b.x - a.x);
}

// The two points around x, or the two nearest to it. `points` by growing x, two or more.
std::pair<Point, Point> Around(const std::vector<Point>& points, double x) {
  size_t upper = 1;
  while (upper + 1 < points.size() && points[upper].x < x) ++upper;
  return {points[upper - 1], points[upper]};
}

// As at the ends beyond them; 0 without points.
double Between(const std::vector<Point>& points, double x) {
  if (points.empty()) return 0;
  if (points.size() == 1 || x <= points.front().x) return points.front().y;
  const auto [a, b] = Around(points, x);
  return x >= b.x ? b.y : Line(a, b, x);
}

double BitsOf(DType type) {
  const DTypeInfo& info = Info(type);
  return 8.0 * info.block_bytes / info.block_elements;
}

}  // namespace

DType DeviceTimeTable::Nearest(DType type) const {
  DType best = times_.products.front().type;
  for (const ProductTime& p : times_.products) {
    if (p.type == type) return type;
    if (std::abs(BitsOf(p.type) - BitsOf(type)) < std::abs(BitsOf(best) - BitsOf(type))) {
      best = p.type;
    }
  }
  return best;
}

double DeviceTimeTable::AtTokens(DType type, Bytes weights, int tokens) const {
  std::vector<Point> points;
  for (const ProductTime& p : times_.products) {
    if (p.type == type && p.weights == weights) {
      points.push_back({static_cast<double>(p.tokens), p.seconds});
    }
  }
  std::sort(points.begin(), points.end(), [](const Point& a, const Point& b) { return a.x < b.x; });
  if (points.size() == 1 || tokens <= points.front().x) return points.front().y;
  const auto [a, b] = Around(points, tokens);
  const double rising = tokens > b.x ? std::max(a.y, b.y) : Line(a, b, tokens);
  return std::max(rising, Line(a, b, tokens));
}

double DeviceTimeTable::ProductSeconds(DType type, int tokens, double bytes) const {
  MILLRACE_CHECK(times_.measured());
  const DType known = Nearest(type);
  std::set<Bytes> sizes;
  for (const ProductTime& p : times_.products) {
    if (p.type == known) sizes.insert(p.weights);
  }
  std::vector<Point> points;
  for (Bytes size : sizes) {
    points.push_back({static_cast<double>(size.count()), AtTokens(known, size, tokens)});
  }
  const Point& least = points.front();
  const Point& most = points.back();
  if (bytes >= most.x || points.size() == 1) return most.y * bytes / most.x;
  const auto [a, b] = Around(points, bytes);
  return std::max(Line(a, b, bytes), least.y * std::min(1.0, bytes / least.x));
}

double DeviceTimeTable::AttentionSeconds(int sequences, double bytes) const {
  std::vector<Point> fixed, per_byte;
  for (const AttentionTime& a : times_.attention) {
    fixed.push_back({static_cast<double>(a.sequences), a.fixed_seconds});
    per_byte.push_back({static_cast<double>(a.sequences), a.seconds_per_byte});
  }
  return Between(fixed, sequences) + Between(per_byte, sequences) * bytes;
}

double DeviceTimeTable::SustainedRatioOf(int tokens) const {
  std::vector<Point> points;
  for (const SustainedRatio& s : times_.sustained) {
    points.push_back({static_cast<double>(s.tokens), s.ratio});
  }
  return std::max(1.0, Between(points, tokens));
}

}  // namespace millrace
