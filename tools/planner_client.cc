#include "tools/planner_client.h"

#include <cstdio>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "planner/plan_messages.h"
#include "proto/convert.h"
#include "proto/grpc_status.h"
#include "proto/grpc_transport.h"
#include "proto/plan_json.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/progress_bar.h"
#include "worker/generate_messages.h"

namespace millrace {
namespace {
constexpr absl::Duration kConnectTimeout = absl::Seconds(4);
constexpr absl::Duration kShortCall = absl::Seconds(10);
constexpr absl::Duration kPlanCall = absl::Minutes(2);
constexpr absl::Duration kExplainCall = absl::Minutes(10);  // plans anew for each thing more
constexpr absl::Duration kLongCall = absl::Hours(1);
}  // namespace

PlannerClient::PlannerClient(std::string address, std::unique_ptr<v1::PlannerService::Stub> stub)
    : address_(std::move(address)), stub_(std::move(stub)) {}

absl::StatusOr<std::unique_ptr<PlannerClient>> PlannerClient::Connect(const std::string& address) {
  if (address.find(':') == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("--planner: '", address, "' is not host:port, e.g. 127.0.0.1:7600"));
  }
  const std::shared_ptr<grpc::Channel> channel = MakeChannel(address);
  if (!channel->WaitForConnected(absl::ToChronoTime(absl::Now() + kConnectTimeout))) {
    return absl::UnavailableError(
        absl::StrCat("--planner: nothing answers at '", address, "' (waited ",
                     absl::FormatDuration(kConnectTimeout),
                     "); start millrace-planner there or give its address"));
  }
  return std::unique_ptr<PlannerClient>(
      new PlannerClient(address, v1::PlannerService::NewStub(channel)));
}

absl::Status PlannerClient::Explain(const grpc::Status& status) const {
  return Annotate(FromGrpcStatus(status), absl::StrCat("planner ", address_));
}

absl::StatusOr<v1::PlanResponse> PlannerClient::Plan(const v1::PlanRequest& request) {
  grpc::ClientContext context;
  SetTimeout(context, kPlanCall);
  v1::PlanResponse response;
  MILLRACE_RETURN_IF_ERROR(Explain(stub_->Plan(&context, request, &response)));
  return response;
}

absl::StatusOr<v1::PlanResponse> PlannerClient::ExplainPlan(const v1::PlanRequest& request) {
  grpc::ClientContext context;
  SetTimeout(context, kExplainCall);
  v1::PlanResponse response;
  MILLRACE_RETURN_IF_ERROR(Explain(stub_->ExplainPlan(&context, request, &response)));
  return response;
}

absl::StatusOr<v1::WhatIfResponse> PlannerClient::WhatIf(const v1::WhatIfRequest& request) {
  grpc::ClientContext context;
  SetTimeout(context, kPlanCall);
  v1::WhatIfResponse response;
  MILLRACE_RETURN_IF_ERROR(Explain(stub_->WhatIf(&context, request, &response)));
  return response;
}

absl::StatusOr<v1::DiffPlansResponse> PlannerClient::DiffPlans(
    const v1::DiffPlansRequest& request) {
  grpc::ClientContext context;
  SetTimeout(context, kShortCall);
  v1::DiffPlansResponse response;
  MILLRACE_RETURN_IF_ERROR(Explain(stub_->DiffPlans(&context, request, &response)));
  return response;
}

absl::Status PlannerClient::WatchPlan(
    const v1::WatchPlanRequest& request,
    const std::function<bool(const v1::WatchPlanEvent&)>& on_event) {
  grpc::ClientContext context;
  const auto reader = stub_->WatchPlan(&context, request);
  v1::WatchPlanEvent event;
  bool wanted = true;
  while (wanted && reader->Read(&event)) wanted = on_event(event);
  if (!wanted) context.TryCancel();
  const grpc::Status status = reader->Finish();
  return wanted ? Explain(status) : absl::OkStatus();
}

absl::StatusOr<v1::ClusterStatus> PlannerClient::Status() {
  grpc::ClientContext context;
  SetTimeout(context, kShortCall);
  v1::ClusterStatus response;
  MILLRACE_RETURN_IF_ERROR(Explain(stub_->Status(&context, v1::ClusterStatusRequest(), &response)));
  return response;
}

absl::StatusOr<PlannerClient::LoadResult> PlannerClient::Load(
    const v1::LoadRequest& request,
    const std::function<void(Bytes done, Bytes total)>& on_progress) {
  grpc::ClientContext context;
  SetTimeout(context, kLongCall);
  const auto reader = stub_->Load(&context, request);
  std::map<int, std::pair<int64_t, int64_t>> stages;  // done, total; bytes
  v1::LoadEvent event;
  v1::LoadEvent last;
  while (reader->Read(&event)) {
    if (event.has_progress()) {
      stages[event.progress().stage()] = {event.progress().bytes_done(),
                                          event.progress().bytes_total()};
      Bytes done, total;
      for (const auto& [stage, bytes] : stages) {
        done += Bytes(bytes.first);
        total += Bytes(bytes.second);
      }
      on_progress(done, total);
    } else if (event.has_replanned()) {
      stages.clear();
      std::fprintf(stderr, "planning again: %s\n", event.replanned().c_str());
    } else {
      last = event;
    }
  }
  MILLRACE_RETURN_IF_ERROR(Explain(reader->Finish()));
  LoadResult result;
  if (last.has_infeasible()) {
    result.infeasible = FromProto(last.infeasible());
  } else if (last.has_loaded()) {
    MILLRACE_ASSIGN_OR_RETURN(result.plan, FromProto(last.loaded()));
  } else {
    return absl::InternalError(
        absl::StrCat("planner ", address_, ": Load ended without a plan or a refusal"));
  }
  return result;
}

absl::StatusOr<GenerateSummary> PlannerClient::Generate(
    const GenerateRequest& request, const std::function<bool(const GenerateEvent&)>& on_event) {
  grpc::ClientContext context;
  SetTimeout(context, kLongCall);
  const auto reader = stub_->Generate(&context, ToProto(request));
  std::optional<GenerateSummary> summary;
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
    if (event.has_token() && !on_event(FromProto(event.token()))) context.TryCancel();
    if (event.has_done()) summary = FromProto(event.done());
  }
  const grpc::Status status = reader->Finish();
  if (summary.has_value()) return *summary;
  MILLRACE_RETURN_IF_ERROR(Explain(status));
  return absl::InternalError(
      absl::StrCat("planner ", address_, ": the generation ended without a summary"));
}

absl::StatusOr<std::vector<float>> PlannerClient::Score(const v1::ScoreRequest& request) {
  grpc::ClientContext context;
  SetTimeout(context, kLongCall);
  v1::ScoreResponse response;
  MILLRACE_RETURN_IF_ERROR(Explain(stub_->Score(&context, request, &response)));
  return std::vector<float>(response.values().begin(), response.values().end());
}

void PlannerClient::Cancel(const RequestId& id) {
  grpc::ClientContext context;
  SetTimeout(context, kShortCall);
  v1::CancelRequest request;
  request.set_request_id(id.value());
  v1::CancelResponse response;
  stub_->Cancel(&context, request, &response);  // NotFound: it has ended by itself
}

namespace {

absl::StatusOr<v1::LoadRequest> MakeLoadRequest(const RuntimeRequest& request) {
  v1::LoadRequest load;
  load.set_model(request.model);
  load.set_replan(request.replan);
  MILLRACE_ASSIGN_OR_RETURN(*load.mutable_options(), ToPlanOptions(request.budget));
  load.mutable_options()->set_expected_prompt_tokens(request.expected_prompt_tokens);
  if (!request.plan_path.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(const std::string json, ReadTextFile("--plan", request.plan_path));
    absl::StatusOr<PlacementPlan> plan = PlanFromJson(json);
    if (!plan.ok()) {
      return Annotate(plan.status(), absl::StrCat("--plan: '", request.plan_path, "'"));
    }
    *load.mutable_plan() = ToProto(*plan);
  }
  return load;
}

absl::StatusOr<std::vector<float>> ScoreTokens(PlannerClient& client, v1::ScoreRequest::Kind kind,
                                               const std::vector<TokenId>& tokens, int first) {
  v1::ScoreRequest request;
  request.set_kind(kind);
  request.mutable_tokens()->Assign(tokens.begin(), tokens.end());
  request.set_first(first);
  return client.Score(request);
}

}  // namespace

absl::StatusOr<RuntimeOrInfeasible> OpenClusterRuntime(const RuntimeRequest& request) {
  MILLRACE_ASSIGN_OR_RETURN(const v1::LoadRequest load, MakeLoadRequest(request));
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<PlannerClient> client,
                            PlannerClient::Connect(request.planner));
  ProgressBar bar("loading", ProgressBar::Unit::kBytes);
  absl::StatusOr<PlannerClient::LoadResult> loaded = client->Load(
      load, [&bar](Bytes done, Bytes total) { bar.Update(done.count(), total.count()); });
  bar.Finish();
  if (!loaded.ok()) return loaded.status();
  RuntimeOrInfeasible out;
  if (loaded->infeasible.has_value()) {
    out.infeasible = std::move(loaded->infeasible);
    return out;
  }
  Runtime runtime;
  runtime.plan = *std::move(loaded->plan);
  runtime.generate = [client](const GenerateRequest& generate,
                              const std::function<bool(const GenerateEvent&)>& on_event) {
    return client->Generate(generate, on_event);
  };
  runtime.logits = [client](const std::vector<TokenId>& tokens) {
    return ScoreTokens(*client, v1::ScoreRequest::KIND_LAST_LOGITS, tokens, 0);
  };
  runtime.log_probs = [client](const std::vector<TokenId>& tokens, int first) {
    return ScoreTokens(*client, v1::ScoreRequest::KIND_LOG_PROBS, tokens, first);
  };
  runtime.cancel = [client](const RequestId& id) { client->Cancel(id); };
  out.runtime = std::move(runtime);
  return out;
}

}  // namespace millrace
