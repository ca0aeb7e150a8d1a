// The planner's question, as plain values. No file, no GPU, no clock: whoever asks fills it in.
#ifndef MILLRACE_PLANNER_PLACEMENT_PROBLEM_H_
#define MILLRACE_PLANNER_PLACEMENT_PROBLEM_H_

#include <string>
#include <vector>

#include "proto/activation_needs.h"
#include "proto/bytes.h"
#include "proto/cluster_spec.h"
#include "proto/model_spec.h"
#include "proto/placement_plan.h"
#include "proto/stream_layout.h"

namespace millrace {

// A user's wish: blocks whose name matches `pattern` (glob: * and ?) get this home and/or device.
struct Pin {
  std::string pattern;  // "blk.*.ffn"
  std::string target;   // "host", "device", "gpu0", "worker-1", "worker-1/cpu"
};

// Who computes host-homed feed-forward blocks of GPU stages.
enum class RoutePolicy : uint8_t {
  kAuto,    // CPU or stream, by pass size, whichever is predicted faster
  kCpu,     // the CPU, at any pass size
  kStream,  // always streamed
  kSplit,   // the CPU a part of each block while the rest streams, wherever it is of use at all
};

struct PlacementProblem {
  std::string model_reference;  // copied into the plan
  ModelSpec model;
  ClusterSpec cluster;
  int context = 0;  // tokens per slot; the caller has resolved defaults
  int slots = 1;
  DType kv_type = DType::kF16;
  int max_pass_tokens = 512;
  int expected_prompt_tokens = 512;  // for the predicted time to first token
  ActivationNeeds activations;      // of a stage on a CPU
  ActivationNeeds gpu_activations;  // of a stage on a GPU
  // Of a CPU that computes host-homed blocks of a GPU stage, passes of up to kMaxHostRouteTokens.
  ActivationNeeds host_route_activations;
  RoutePolicy routes = RoutePolicy::kAuto;
  // At most `slots` sequences, and no more tokens than `context` each.
  Objective objective;
  std::vector<Pin> pins;

  const ActivationNeeds& activations_on(DeviceKind kind) const {
    return kind == DeviceKind::kGpu ? gpu_activations : activations;
  }
  // Host memory that the CPU's part of a GPU stage takes for passes of up to `tokens`: an upper bound.
  Bytes host_route_bytes(int tokens) const {
    if (tokens == 0) return Bytes(0);
    return tokens <= kMaxHostRouteTokens ? host_route_activations.body : activations.body;
  }
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PLACEMENT_PROBLEM_H_
