#include "worker/generate_messages.h"

#include "absl/strings/str_cat.h"
#include "proto/field_check.h"

namespace millrace {
namespace {

constexpr int kMaxStops = 64;

static_assert(static_cast<int>(FinishReason::kCancelled) + 1 == v1::FINISH_REASON_CANCELLED);
static_assert(static_cast<int>(ContextOverflow::kShift) == v1::CONTEXT_OVERFLOW_SHIFT);

}  // namespace

v1::SamplingParams ToProto(const SamplingParams& sampling) {
  v1::SamplingParams wire;
  wire.set_temperature(sampling.temperature);
  wire.set_top_k(sampling.top_k);
  wire.set_top_p(sampling.top_p);
  wire.set_min_p(sampling.min_p);
  wire.set_repetition_penalty(sampling.repetition_penalty);
  wire.set_repetition_window(sampling.repetition_window);
  wire.set_seed(sampling.seed);
  return wire;
}

SamplingParams FromProto(const v1::SamplingParams& wire) {
  SamplingParams sampling;
  if (wire.has_temperature()) sampling.temperature = wire.temperature();
  if (wire.has_top_k()) sampling.top_k = wire.top_k();
  if (wire.has_top_p()) sampling.top_p = wire.top_p();
  if (wire.has_min_p()) sampling.min_p = wire.min_p();
  if (wire.has_repetition_penalty()) sampling.repetition_penalty = wire.repetition_penalty();
  if (wire.has_repetition_window()) sampling.repetition_window = wire.repetition_window();
  sampling.seed = wire.seed();
  return sampling;
}

v1::GenerateRequest ToProto(const GenerateRequest& request) {
  v1::GenerateRequest wire;
  wire.set_request_id(request.id.value());
  wire.set_prompt(request.prompt);
  wire.mutable_tokens()->Add(request.tokens.begin(), request.tokens.end());
  wire.set_parse_special(request.parse_special);
  wire.set_max_tokens(request.max_tokens);
  *wire.mutable_sampling() = ToProto(request.sampling);
  for (const std::string& stop : request.stop) wire.add_stop(stop);
  wire.set_ignore_end_of_generation(request.ignore_end_of_generation);
  wire.set_overflow(static_cast<v1::ContextOverflow>(static_cast<int>(request.overflow)));
  return wire;
}

absl::StatusOr<GenerateRequest> FromProto(const v1::GenerateRequest& wire) {
  FieldCheck check;
  GenerateRequest request;
  request.id = RequestId(wire.request_id());
  if (wire.request_id().size() > 256) {
    check.Refuse("GenerateRequest.request_id", "is longer than 256 bytes");
  }
  request.prompt = wire.prompt();
  request.tokens.assign(wire.tokens().begin(), wire.tokens().end());
  if (request.prompt.empty() && request.tokens.empty()) {
    check.Refuse("GenerateRequest.prompt", "give a prompt or tokens; both are empty");
  }
  if (wire.has_parse_special()) request.parse_special = wire.parse_special();
  if (wire.has_max_tokens()) {
    request.max_tokens = check.Int32("GenerateRequest.max_tokens", wire.max_tokens(), -1, 1 << 26);
  }
  request.sampling = FromProto(wire.sampling());
  if (wire.stop_size() > kMaxStops) {
    check.Refuse("GenerateRequest.stop", wire.stop_size(), " stop strings; at most ", kMaxStops);
  }
  for (int i = 0; i < wire.stop_size(); ++i) {
    if (wire.stop(i).empty()) {
      check.Refuse(absl::StrCat("GenerateRequest.stop[", i, "]"), "is empty");
    }
    request.stop.push_back(wire.stop(i));
  }
  request.ignore_end_of_generation = wire.ignore_end_of_generation();
  request.overflow =
      static_cast<ContextOverflow>(check.Int32("GenerateRequest.overflow", wire.overflow(), 0, 1));
  if (!check.ok()) return check.status();
  return request;
}

v1::GeneratedToken ToProto(const GenerateEvent& event) {
  v1::GeneratedToken wire;
  wire.set_offset(event.offset);
  wire.set_token(event.token);
  wire.set_log_prob(event.log_prob);
  wire.set_text(event.text);
  return wire;
}

GenerateEvent FromProto(const v1::GeneratedToken& wire) {
  GenerateEvent event;
  event.offset = wire.offset();
  event.token = wire.token();
  event.log_prob = wire.log_prob();
  event.text = wire.text();
  return event;
}

v1::GenerationSummary ToProto(const GenerateSummary& summary) {
  v1::GenerationSummary wire;
  wire.set_request_id(summary.id.value());
  wire.set_finish(static_cast<v1::FinishReason>(static_cast<int>(summary.finish) + 1));
  wire.mutable_prompt_tokens()->Add(summary.prompt_tokens.begin(), summary.prompt_tokens.end());
  wire.mutable_tokens()->Add(summary.tokens.begin(), summary.tokens.end());
  wire.set_text(summary.text);
  wire.set_queued_ms(absl::ToDoubleMilliseconds(summary.queued));
  wire.set_ttft_ms(absl::ToDoubleMilliseconds(summary.ttft));
  wire.set_time_per_token_ms(absl::ToDoubleMilliseconds(summary.time_per_token));
  return wire;
}

GenerateSummary FromProto(const v1::GenerationSummary& wire) {
  GenerateSummary summary;
  summary.id = RequestId(wire.request_id());
  if (wire.finish() >= v1::FINISH_REASON_END_OF_GENERATION &&
      wire.finish() <= v1::FINISH_REASON_CANCELLED) {
    summary.finish = static_cast<FinishReason>(static_cast<int>(wire.finish()) - 1);
  }
  summary.prompt_tokens.assign(wire.prompt_tokens().begin(), wire.prompt_tokens().end());
  summary.tokens.assign(wire.tokens().begin(), wire.tokens().end());
  summary.text = wire.text();
  summary.queued = absl::Milliseconds(wire.queued_ms());
  summary.ttft = absl::Milliseconds(wire.ttft_ms());
  summary.time_per_token = absl::Milliseconds(wire.time_per_token_ms());
  return summary;
}

v1::EngineStats ToProto(const EngineStats& stats) {
  v1::EngineStats wire;
  wire.set_running(stats.running);
  wire.set_queued(stats.queued);
  wire.set_slots(stats.slots);
  wire.set_prompt_tokens(stats.prompt_tokens);
  wire.set_generated_tokens(stats.generated_tokens);
  wire.set_passes(stats.passes);
  wire.set_decode_tokens_per_second(stats.decode_tokens_per_second);
  return wire;
}

}  // namespace millrace
