// ActivationArena: every transient buffer of one stage, laid out once. The same code sizes it for the
// planner and allocates it for the run, so that the plan's numbers are the run's.
#ifndef MILLRACE_WORKER_ACTIVATION_ARENA_H_
#define MILLRACE_WORKER_ACTIVATION_ARENA_H_

#include <cstddef>

#include "proto/activation_needs.h"
#include "proto/cluster_spec.h"
#include "proto/model_spec.h"

namespace millrace {

// Rows of logits held at a time: a pass that asks for more is served in several rounds.
inline constexpr int kMaxLogitRows = 16;

struct ActivationShape {
  int max_pass_tokens = 512;
  int threads = 1;  // of a CPU stage
  int slots = 1;
  int context = 1;
  // Every GPU in question multiplies large passes with weights as they are (DeviceSpec).
  bool direct_products = false;
};

// Offsets in bytes of each buffer from the start of the arena; 64-byte aligned.
struct ActivationLayout {
  size_t hidden = 0;     // [n, d_model] f32: the residual stream
  size_t normed = 0;     // [n, d_model] f32
  size_t qkv = 0;        // [n, q_cols + 2 kv_cols] f32
  size_t mixed = 0;      // [n, q_cols] f32: attention's output
  size_t gate_up = 0;    // [n, 2 ff_cols] f32, shares its bytes with qkv and mixed
  size_t rope = 0;       // [n, dims / 2, 2] f32
  size_t scratch = 0;    // kernels' scratch
  size_t scratch_bytes = 0;
  size_t logit_rows = 0;  // [kMaxLogitRows, d_model] f32, last stage only
  size_t logits = 0;      // [kMaxLogitRows, vocab] f32, last stage only
  int64_t q_cols = 0, kv_cols = 0, ff_cols = 0;  // of the widest layer
  size_t body_bytes = 0;  // without the last stage's buffers
  size_t total_bytes = 0;
};

ActivationLayout LayOutActivations(const ModelSpec& model, const ActivationShape& shape,
                                   bool last_stage);

// Upper bounds for the planner, for a stage on a device of that kind. A GPU's come from
// worker/backend/cuda/gpu_memory.h.
ActivationNeeds ActivationNeedsOf(const ModelSpec& model, const ActivationShape& shape,
                                  DeviceKind kind);

}  // namespace millrace

#endif  // MILLRACE_WORKER_ACTIVATION_ARENA_H_
