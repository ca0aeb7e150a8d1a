// What the search over stages knows of a StageTable: devices that are the same to it taken
// together, the runs of blocks that fit each, and which devices have been used as one number.
#ifndef MILLRACE_PLANNER_STAGE_CLASSES_H_
#define MILLRACE_PLANNER_STAGE_CLASSES_H_

#include <utility>
#include <vector>

#include "absl/numeric/int128.h"
#include "planner/placement_problem.h"
#include "planner/stage_options.h"

namespace millrace {

// A run of blocks that fits, from a first block that the context says.
struct StageArc {
  int end = 0;
  double seconds = 0;  // StageOption::seconds: what the search adds up, whatever it measures
};

// Devices with the same options for every run and the same hops: of one worker, or each alone on
// its own. A placement may exchange them, so they are taken in order.
struct StageClass {
  std::vector<int> devices;                 // indices into AllDevices, in order
  std::vector<std::vector<StageArc>> arcs;  // [first block], by growing end
  int hop_group = 0;                        // classes with equal hops to what is left
  int shift = 0;                            // of its count within UsedDevices
  // Some device of these has to be used first: of the same worker but one, equal in all.
  // Zero: none has to.
  absl::uint128 after = 0;
};

// How many devices of every class are used, a field of bits each.
using UsedDevices = absl::uint128;

class StageClasses {
 public:
  // The fields take this many bits at most: 120 unequal devices, or 30 workers of 8 equal GPUs.
  static constexpr int kMostBits = 120;

  // Of blocks [first, end), which are numbered from 0 here. O(devices^2 x blocks^2) at worst; the
  // table outlives it.
  StageClasses(const ClusterSpec& cluster, const StageTable& table, int first, int end);

  int blocks() const { return blocks_; }
  int bits() const { return bits_; }  // of UsedDevices; over kMostBits: `used` cannot hold them
  const std::vector<StageClass>& all() const { return classes_; }
  int size() const { return static_cast<int>(classes_.size()); }
  int devices(int c) const { return static_cast<int>(classes_[c].devices.size()); }
  double Hop(int from, int to) const { return hops_[from * size() + to]; }
  double LongestHop() const;
  double ShortestHop() const;

  int Used(UsedDevices used, int c) const;
  // True when one more of class c may be used.
  bool Free(UsedDevices used, int c) const;
  static UsedDevices OneOf(const StageClass& c) { return UsedDevices(1) << c.shift; }

 private:
  void Collect(const std::vector<DeviceRef>& refs, const ClusterSpec& cluster);
  void NumberFields();
  void OrderWorkers(const std::vector<DeviceRef>& refs);
  void AddHops();
  bool SameOptions(int a, int b) const;
  bool SameHops(int a, int b) const;

  const StageOption& Option(int device, int first, int end) const {
    return table_.Option(device, first_ + first, first_ + end);
  }

  const StageTable& table_;
  const int first_, blocks_;
  int bits_ = 0;
  std::vector<StageClass> classes_;
  std::vector<double> hops_;  // [from][to]
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_STAGE_CLASSES_H_
