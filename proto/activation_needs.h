// ActivationNeeds: what the runtime's own allocator takes beside weights and KV cache.
#ifndef MILLRACE_PROTO_ACTIVATION_NEEDS_H_
#define MILLRACE_PROTO_ACTIVATION_NEEDS_H_

#include "proto/bytes.h"

namespace millrace {

// For one stage at a given largest pass and number of slots. Computed by worker/activation_arena.h
// with the code that allocates, carried to the planner as plain numbers. Upper bounds.
struct ActivationNeeds {
  Bytes body;         // any stage
  Bytes first_extra;  // more for the stage that holds the embedding
  Bytes last_extra;   // more for the stage that holds the head (logits)
};

}  // namespace millrace

#endif  // MILLRACE_PROTO_ACTIVATION_NEEDS_H_
