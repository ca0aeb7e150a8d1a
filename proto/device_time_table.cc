#include "proto/device_time_table.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "proto/status_macros.h"

namespace millrace {
namespace {

double BitsOf(DType type) {
  const DTypeInfo& info = Info(type);
  return 8.0 * info.block_bytes / info.block_elements;
}

// The two points around x, or the two nearest to it; two or more are there.
template <typename Points>
auto Around(const Points& points, double x) {
  size_t upper = 1;
  while (upper + 1 < points.size() && points[upper].x < x) ++upper;
  return std::pair(points[upper - 1], points[upper]);
}

}  // namespace

DeviceTimeTable::DeviceTimeTable(const DeviceTimes& times) {
  std::map<DType, std::map<Bytes, std::map<int, double>>> sorted;
  for (const ProductTime& p : times.products) sorted[p.type][p.weights][p.tokens] = p.seconds;
  for (const auto& [type, sizes] : sorted) {
    for (const auto& [bytes, by_tokens] : sizes) {
      Size size{static_cast<double>(bytes.count()), {}};
      for (const auto& [tokens, seconds] : by_tokens) {
        size.by_tokens.push_back({static_cast<double>(tokens), seconds});
      }
      products_[type].push_back(std::move(size));
    }
  }
  for (const AttentionTime& a : times.attention) {
    attention_fixed_.push_back({static_cast<double>(a.sequences), a.fixed_seconds});
    attention_per_byte_.push_back({static_cast<double>(a.sequences), a.seconds_per_byte});
  }
  for (const SustainedRatio& s : times.sustained) {
    sustained_.push_back({static_cast<double>(s.tokens), s.ratio});
  }
}

// Through a and b.
double DeviceTimeTable::Line(const Point& a, const Point& b, double x) {
  return b.x == a.x ? b.y : a.y + (b.y - a.y) * (x - a.x) / (b.x - a.x);
}

// As at the ends beyond them; 0 without points.
double DeviceTimeTable::Between(const Points& points, double x) {
  if (points.empty()) return 0;
  if (points.size() == 1 || x <= points.front().x) return points.front().y;
  const auto [a, b] = Around(points, x);
  return x >= b.x ? b.y : Line(a, b, x);
}

double DeviceTimeTable::AtTokens(const Size& size, int tokens) {
  const Points& points = size.by_tokens;
  if (points.size() == 1 || tokens <= points.front().x) return points.front().y;
  const auto [a, b] = Around(points, tokens);
  const double line = Line(a, b, tokens);
  return tokens > b.x ? std::max({a.y, b.y, line}) : line;
}

// Of the type, or of the one nearest in bits per weight.
const std::vector<DeviceTimeTable::Size>& DeviceTimeTable::SizesOf(DType type) const {
  MILLRACE_CHECK(!products_.empty());
  const auto known = products_.find(type);
  if (known != products_.end()) return known->second;
  const auto off = [&](const auto& entry) { return std::abs(BitsOf(entry.first) - BitsOf(type)); };
  return std::min_element(products_.begin(), products_.end(),
                          [&](const auto& a, const auto& b) { return off(a) < off(b); })
      ->second;
}

double DeviceTimeTable::ProductSeconds(DType type, int tokens, double bytes) const {
  Points points;
  for (const Size& size : SizesOf(type)) points.push_back({size.bytes, AtTokens(size, tokens)});
  const Point& least = points.front();
  const Point& most = points.back();
  if (bytes >= most.x || points.size() == 1) return most.y * bytes / most.x;
  const auto [a, b] = Around(points, bytes);
  return std::max(Line(a, b, bytes), least.y * std::min(1.0, bytes / least.x));
}

double DeviceTimeTable::AttentionSeconds(int sequences, double bytes) const {
  return Between(attention_fixed_, sequences) + Between(attention_per_byte_, sequences) * bytes;
}

double DeviceTimeTable::SustainedRatioOf(int tokens) const {
  return std::max(1.0, Between(sustained_, tokens));
}

}  // namespace millrace
