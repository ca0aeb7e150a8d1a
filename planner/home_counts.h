// Where a plan's blocks are and who computes them, counted.
#ifndef MILLRACE_PLANNER_HOME_COUNTS_H_
#define MILLRACE_PLANNER_HOME_COUNTS_H_

#include "proto/placement_plan.h"

namespace millrace {

struct BlockCount {
  int blocks = 0;
  Bytes weights;
};

// Of a GPU stage, routes as of a pass of one token. All blocks of a CPU stage are the CPU's.
struct HomeCounts {
  BlockCount resident;  // on a GPU
  BlockCount streamed;  // from host memory
  BlockCount cpu;
  BlockCount split;  // CPU and stream, each a part
  BlockCount disk;   // streamed from there
  bool table_in_ram =
      false;              // the embedding of a GPU stage, looked up in RAM; not among the blocks
  int caches_in_ram = 0;  // layers of GPU stages
};

HomeCounts CountHomes(const PlacementPlan& plan, const Stage& stage);
// Of all stages.
HomeCounts CountHomes(const PlacementPlan& plan);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_HOME_COUNTS_H_
