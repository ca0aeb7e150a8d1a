// Reads DeviceTimes between and beyond the measured points.
#ifndef MILLRACE_PLANNER_DEVICE_TIME_TABLE_H_
#define MILLRACE_PLANNER_DEVICE_TIME_TABLE_H_

#include <vector>

#include "proto/device_times.h"

namespace millrace {

// Views `times`, which outlives it and is measured().
class DeviceTimeTable {
 public:
  explicit DeviceTimeTable(const DeviceTimes& times) : times_(times) {}

  // A half layer's products in a pass of `tokens` rows, were all its `bytes` of `type`: linear in the rows
  // between two measured passes and in the bytes between two measured sizes; below the smallest size
  // along the line of the two smallest, never below its time per byte; above the largest by its time per
  // byte; above the largest pass by the last two. A type that was not measured counts as the one
  // nearest in bits per weight, by its bytes. Seconds.
  double ProductSeconds(DType type, int tokens, double bytes) const;
  // The attention of a layer, one row for each of `sequences`, `bytes` of keys and values read. Seconds.
  double AttentionSeconds(int sequences, double bytes) const;

  // Of products of that many rows, after long work; at least 1.
  double SustainedRatioOf(int tokens) const;

 private:
  DType Nearest(DType type) const;
  // Of one size.
  double AtTokens(DType type, Bytes weights, int tokens) const;

  const DeviceTimes& times_;
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_DEVICE_TIME_TABLE_H_
