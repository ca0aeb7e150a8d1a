// Spill: which blocks of a GPU stage go to host memory when not all fit the device, in one fixed
// order, so that less memory always spills a superset: the embedding (looked up by the CPU, it
// costs the device nothing), then feed-forward blocks, then attention blocks (their cache stays on
// the GPU and they can only be streamed), then the head. Within a kind the order is that of the
// layers' numbers with their bits reversed: any first part of it is spread evenly over the layers.
#ifndef MILLRACE_PLANNER_SPILL_H_
#define MILLRACE_PLANNER_SPILL_H_

#include <array>
#include <vector>

#include "planner/memory_budget.h"
#include "planner/pins.h"
#include "planner/placement_problem.h"

namespace millrace {

// The stage's ring by depth: 4 = two of the largest block and one group more, so that the copies go
// on through a block that the CPU computes; 3 = one block and one group more, so that one group is
// in use, one has arrived and one is arriving; 2 = the largest block; 1 = the largest group.
inline constexpr int kFullRing = 4;
Bytes RingBytes(const StreamSizes& largest, int depth);

// What shallower rings add to the time of a pass, as a share of the copies' time: rounded from the
// simulator's passes of a 70B model on the reference machine.
inline constexpr double kRingStall[] = {0, 0.3, 0.08, 0.05, 0};  // by depth

// Room for one stage.
struct SpillRoom {
  Bytes device;       // the device's budget
  Bytes host;         // host memory beside it
  bool disk = false;  // what that does not hold may stay on disk
};

// The fewest blocks in host memory with which the rest of a stage fits.
struct SpillResult {
  bool fits = false;
  int spilled = 0;  // blocks taken of the order, pinned ones not counted
  bool any_host = false;
  Bytes ring;
  int on_disk = 0;  // of the spilled blocks, the fewest that have to stay on disk
  // Attention blocks whose cache is in host memory: only where all blocks that may go there are
  // there.
  int kv_on_host = 0;
};
using SpillResults = std::array<SpillResult, kFullRing + 1>;  // by ring depth; 0 is unused

// Blocks [first, end) in the order in which they go, pinned ones left out.
struct SpillRun {
  int first = 0, end = 0;
  std::vector<int> order;
};

class SpillOrder {
 public:
  SpillOrder(const PlacementProblem& problem, const MemoryBudget& memory, const ResolvedPins& pins);

  // Takes block run.end into the run.
  void Extend(SpillRun& run) const;

  SpillResults Fit(const DeviceSpec& device, const SpillRun& run, const SpillRoom& room) const;

  // By block of the run: pinned to the host, or among the first `spilled` of the order. Empty when
  // none is.
  std::vector<bool> Homes(int first, int end, int spilled) const;
  // By block of the run: the first `count` caches to go. Empty when none does.
  std::vector<bool> KvOnHost(int first, int end, int count) const;
  // By block of the run: the `on_disk` of those that went last, of which that may be said. Empty
  // when none is.
  std::vector<bool> OnDisk(int first, int end, int spilled, int on_disk) const;

 private:
  // Bytes while blocks move.
  struct Sums;
  Sums Begin(int first, int end) const;
  void Move(Sums& sums, int block) const;
  // Device memory for the ring and its staging; negative where the rest alone is too much.
  Bytes RingRoom(const DeviceSpec& device, const Sums& sums, const SpillRoom& room) const;
  Bytes HostBytes(const Sums& sums) const;
  // Attention blocks of [first, end) in the order in which their caches go.
  std::vector<int> KvOrder(int first, int end) const;
  // The depths of ring for which the rest fits now and did not before; false: there is no use in
  // going on.
  bool FitRings(const DeviceSpec& device, const Sums& sums, const SpillRun& run,
                const SpillRoom& room, const SpillResult& now, SpillResults& results) const;
  // A table is looked up in memory, and what shares it has it there.
  bool MayStayOnDisk(int block) const;
  // The fewest of the first `spilled` blocks of the run that have to stay on disk for the others to
  // fit host memory; -1: they do not fit at all.
  int LeastOnDisk(const Sums& sums, const SpillRun& run, int spilled, const SpillRoom& room) const;

  const PlacementProblem& problem_;
  const MemoryBudget& memory_;
  std::vector<int> order_;           // blocks not pinned, as they go
  std::vector<int> place_;           // [block] in order_; -1: pinned
  std::vector<bool> pinned_host_;    // [block]
  std::vector<Bytes> weights_, kv_;  // sums over blocks before b, on a GPU; [block + 1]
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_SPILL_H_
