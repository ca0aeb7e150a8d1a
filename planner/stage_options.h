// StageTable: for every device and every contiguous run of blocks, whether it fits, with which
// homes, and how long a round of the objective takes there. The search's whole knowledge of the problem.
#ifndef MILLRACE_PLANNER_STAGE_OPTIONS_H_
#define MILLRACE_PLANNER_STAGE_OPTIONS_H_

#include <cstdint>
#include <vector>

#include "planner/cost_model.h"
#include "planner/memory_budget.h"
#include "planner/objective_passes.h"
#include "planner/pins.h"
#include "planner/placement_problem.h"
#include "planner/spill.h"

namespace millrace {

struct StageOption {
  bool fits = false;
  bool hopeless = false;  // nor does any longer run from the same block
  double seconds = 0;     // one round of the objective; with host homes by planner/host_split.h
  int spilled = 0;        // blocks in host memory beside pinned ones, of SpillOrder
  Bytes ring;             // Stage::stream_ring
  int on_disk = 0;        // of the spilled blocks, those whose weights stay on disk
  int kv_on_host = 0;     // attention blocks whose cache is in host memory, of SpillOrder
};

struct StageChoice {
  int device = 0;  // index into AllDevices
  int first = 0;
  int end = 0;
};

class StageTable {
 public:
  StageTable(const PlacementProblem& problem, const MemoryBudget& memory, const CostModel& cost,
             const ResolvedPins& pins);

  int size() const { return memory_.size(); }
  int devices() const { return static_cast<int>(refs_.size()); }
  // Blocks [first, end), end > first.
  const StageOption& Option(int device, int first, int end) const;
  // Homes and ring of a run that fits, no routes: first those that Option found best, then with each other
  // depth of the ring that fits. Nothing is homed in host memory: one without homes.
  std::vector<StageOffload> Offloads(const StageChoice& choice) const;
  // A lower bound of the time of blocks [first, all), on the fastest devices.
  double LeastSeconds(int first) const { return least_[static_cast<size_t>(first)]; }
  double HopSeconds(int from_device, int to_device) const;
  // Room on a device for weights, cache and activations: the smaller of its and the host's budget.
  Bytes Room(int device) const;
  // Host memory that one GPU's stage may use: what the worker's CPU devices leave, in equal shares.
  Bytes HostRoom(int device) const;
  const HostSpec& Host(int device) const;
  const DeviceSpec& Device(int device) const;

 private:
  // For one device, all runs.
  void MakeOptions(int device);
  // True when every run is the same on both.
  bool Alike(int a, int b) const;
  StageOption Make(int device, const SpillRun& run) const;
  void MakeOnCpu(int device, int first, int end, StageOption& option) const;
  void MakeOnGpu(int device, const SpillRun& run, StageOption& option) const;
  std::vector<StageOption> RingOptions(int device, const SpillRun& run) const;
  StageOffload OffloadOf(const StageChoice& choice, const StageOption& option) const;
  // Of a round, and of one pass of it.
  double OffloadedSeconds(int device, int first, int end, const SpillResult& spill,
                          int ring_depth) const;
  double OffloadedPass(int device, int first, int end, const StageOffload& offload,
                       size_t pass_index, int ring_depth) const;
  // A lower bound of a block's time homed beside a GPU, where that may be less than on the GPU.
  double HostSeconds(int device, int block) const;
  void AddTimes(int device);
  // Sum of single blocks' times on the device.
  double DeviceSeconds(int device, int first, int end) const;

  const PlacementProblem& problem_;
  const MemoryBudget& memory_;
  const CostModel& cost_;
  const ResolvedPins& pins_;
  const SpillOrder spill_;
  const std::vector<WeightedPass> passes_;  // one round of the objective
  const std::vector<DeviceRef> refs_;
  std::vector<std::vector<std::vector<double>>> pass_seconds_;  // [device][pass][block], once
  std::vector<std::vector<double>> seconds_before_;  // [device]: their sums over blocks before b
  std::vector<int> like_;                            // [device]: the first device that is the same
  std::vector<StageOption> options_;                 // [device][first][end - 1], of those
  std::vector<double> least_;
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_STAGE_OPTIONS_H_
