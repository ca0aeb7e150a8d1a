// What bench and plan verify time.
#ifndef MILLRACE_TOOLS_BENCH_MEASURE_H_
#define MILLRACE_TOOLS_BENCH_MEASURE_H_

#include "absl/status/statusor.h"
#include "proto/model_spec.h"
#include "tools/runtime.h"
#include "tools/use_report.h"

namespace millrace {

// A prompt of `tokens`, to the logits of its last one. Tokens per second. `salt`: another prompt.
absl::StatusOr<double> TimePrefill(const Runtime& runtime, const ModelSpec& model, int tokens,
                                   int salt);

// `batch` sequences at once, each after `depth` tokens; counted, also by `use`, from when all of them have
// a token until the first is done. Each makes `spare` tokens more than `generate`: those whose prompts came
// first are ahead by then. Tokens per second of all together.
absl::StatusOr<double> TimeDecode(const Runtime& runtime, const ModelSpec& model, int generate,
                                  int depth, int spare, int batch, UseReport& use);

// As many passes as the prompts of `batch` sequences take, and what the plan's context leaves.
int SpareTokens(const PlacementPlan& plan, int depth, int generate, int batch);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_BENCH_MEASURE_H_
