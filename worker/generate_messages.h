// Generation requests, events and summaries (worker/engine.h) to and from messages. Used by the
// worker's service and by clients; both directions.
#ifndef MILLRACE_WORKER_GENERATE_MESSAGES_H_
#define MILLRACE_WORKER_GENERATE_MESSAGES_H_

#include "absl/status/statusor.h"
#include "millrace/v1/generate.pb.h"
#include "worker/engine.h"

namespace millrace {

v1::SamplingParams ToProto(const SamplingParams& sampling);
SamplingParams FromProto(const v1::SamplingParams& sampling);  // unset fields: the defaults

v1::GenerateRequest ToProto(const GenerateRequest& request);
// InvalidArgument names the field. Ranges of the sampling parameters are the engine's to check.
absl::StatusOr<GenerateRequest> FromProto(const v1::GenerateRequest& request);

v1::GeneratedToken ToProto(const GenerateEvent& event);
GenerateEvent FromProto(const v1::GeneratedToken& event);

v1::GenerationSummary ToProto(const GenerateSummary& summary);
GenerateSummary FromProto(const v1::GenerationSummary& summary);

v1::EngineStats ToProto(const EngineStats& stats);

}  // namespace millrace

#endif  // MILLRACE_WORKER_GENERATE_MESSAGES_H_
