// Plans with homes, routes and rings drawn at random.
#ifndef MILLRACE_TESTS_WORKER_THREE_WAY_RANDOM_PLAN_H_
#define MILLRACE_TESTS_WORKER_THREE_WAY_RANDOM_PLAN_H_

#include <random>
#include <string>
#include <vector>

#include "proto/model_spec.h"
#include "proto/placement_plan.h"
#include "tests/worker/three_way/script.h"

namespace millrace {

// All blocks on GPUs (`devices` cut before the blocks `cuts`), sized for the script, of the model as it is
// held.
PlacementPlan ResidentPlan(const ModelSpec& model, const Script& script, DType kv_type,
                           const std::vector<int>& cuts = {},
                           const std::vector<std::string>& devices = {"gpu0"});

// A host-homed block that comes to the device in some pass.
bool Streams(const PlacementPlan& plan, const Block& block, const BlockPlacement& placement);
// The least ring that a stage's groups fit into, and one that holds all of them; zero where nothing
// streams.
struct RingBounds {
  Bytes least, all;
};
RingBounds RingOf(const ModelSpec& model, const PlacementPlan& plan, int stage);

// Some of `plan`'s blocks to host memory, with `disk` some to disk, routes for them, with `split` shares
// of them for CPU and GPU by the size of the pass, a ring from the least one upward; some caches to host
// memory.
void MoveToHost(std::mt19937_64& rng, const ModelSpec& model, PlacementPlan& plan,
                bool disk = false, bool split = false);

// Whether the CPU computes a feed-forward block, or units of one, in some passes.
bool HasCpuBlocks(const PlacementPlan& plan);
// Whether some block may be split. The sum over its units is then taken in two parts, which are added
// last: floats differ from the resident run's even where CPU and device round alike.
bool HasSplitBlocks(const PlacementPlan& plan);

// For messages: "pass 16: embed H, blk.0.ffn H7, ring 12 KiB".
std::string Describe(const PlacementPlan& plan);

}  // namespace millrace

#endif  // MILLRACE_TESTS_WORKER_THREE_WAY_RANDOM_PLAN_H_
