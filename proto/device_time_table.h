// Reads DeviceTimes between and beyond the measured points.
#ifndef MILLRACE_PROTO_DEVICE_TIME_TABLE_H_
#define MILLRACE_PROTO_DEVICE_TIME_TABLE_H_

#include <map>
#include <vector>

#include "proto/device_times.h"

namespace millrace {

class DeviceTimeTable {
 public:
  // Copies the points, sorted: asked often, made once. `times` may be unmeasured: then only
  // SustainedRatioOf and AttentionSeconds are called.
  explicit DeviceTimeTable(const DeviceTimes& times);

  // A half layer's products in a pass of `tokens` rows, were all its `bytes` of `type`: linear in
  // the rows between two measured passes and in the bytes between two measured sizes; below the
  // smallest size along the line of the two smallest, never below its time per byte; above the
  // largest by its time per byte; above the largest pass by the last two. A type that was not
  // measured counts as the one nearest in bits per weight, by its bytes. Seconds.
  double ProductSeconds(DType type, int tokens, double bytes) const;
  // The attention of a layer, one row for each of `sequences`, `bytes` of keys and values read.
  // Seconds.
  double AttentionSeconds(int sequences, double bytes) const;

  // Of products of that many rows, after long work; at least 1.
  double SustainedRatioOf(int tokens) const;

 private:
  struct Point {
    double x = 0, y = 0;
  };
  using Points = std::vector<Point>;  // by growing x
  struct Size {
    double bytes = 0;
    Points by_tokens;
  };

  static double Line(const Point& a, const Point& b, double x);
  static double Between(const Points& points, double x);
  static double AtTokens(const Size& size, int tokens);
  const std::vector<Size>& SizesOf(DType type) const;

  std::map<DType, std::vector<Size>> products_;  // sizes by growing bytes
  Points attention_fixed_, attention_per_byte_, sustained_;
};

}  // namespace millrace

#endif  // MILLRACE_PROTO_DEVICE_TIME_TABLE_H_
