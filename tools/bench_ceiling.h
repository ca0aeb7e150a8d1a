// What the machine's measured rates allow at most: the ceilings that bench compares with.
#ifndef MILLRACE_TOOLS_BENCH_CEILING_H_
#define MILLRACE_TOOLS_BENCH_CEILING_H_

#include "proto/cluster_spec.h"
#include "proto/model_spec.h"
#include "proto/placement_plan.h"

namespace millrace {

// Stages run one after the other, each at the rates of its device, which is one of `host`'s; 0
// where a stage's device is not there or has no rate. Tokens per second.

// Every stage reads its weights, in the types that the plan holds them in, once per pass of `batch` tokens, the embedding aside, and the
// caches of `batch` sequences of `context` tokens.
double DecodeCeiling(const ModelSpec& model, const PlacementPlan& plan, const HostSpec& host,
                     int batch, int context);

// Every stage does its multiply-adds at its device's prefill_flops; the head sees one row.
double PrefillCeiling(const ModelSpec& model, const PlacementPlan& plan, const HostSpec& host);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_BENCH_CEILING_H_
