#include "planner/planner_service.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "planner/plan_messages.h"
#include "proto/convert.h"
#include "proto/grpc_status.h"
#include "proto/grpc_transport.h"
#include "proto/protocol_version.h"
#include "proto/request_id.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr absl::Duration kLeaseCheck = absl::Milliseconds(100);
constexpr absl::Duration kCancelTimeout = absl::Seconds(5);
constexpr absl::Duration kLossGrace = absl::Milliseconds(200);

absl::Status Stopping() { return absl::UnavailableError("the planner is stopping"); }

// Why a call on the leader ended: what ended it from here, else what the leader said. A leader that
// died shows first as a broken connection: its lost session, which has the better words, is given a
// moment to be noticed.
absl::Status WhyEnded(const ActiveCall& call, const absl::Status& leader_says,
                      const WorkerId& leader) {
  if (leader_says.ok()) return leader_says;
  if (absl::IsUnavailable(leader_says) && call.ended().ok()) absl::SleepFor(kLossGrace);
  MILLRACE_RETURN_IF_ERROR(call.ended());
  if (!absl::IsUnavailable(leader_says)) return leader_says;
  return Annotate(leader_says, absl::StrCat("worker '", leader.value(), "' (leads)"));
}

}  // namespace

PlannerService::PlannerService(const PlannerOptions& options)
    : options_(options), controller_(options.lease), lease_watch_([this] { WatchLeases(); }) {}

PlannerService::~PlannerService() {
  Stop();
  lease_watch_.join();
}

void PlannerService::Stop() {
  controller_.calls().EndAll(Stopping(), /*generations_only=*/false, /*for_good=*/true);
  absl::MutexLock lock(&mu_);
  stopping_ = true;
  for (grpc::ServerContext* session : sessions_) session->TryCancel();
}

void PlannerService::WatchLeases() {
  while (true) {
    {
      absl::MutexLock lock(&mu_);
      if (mu_.AwaitWithTimeout(absl::Condition(&stopping_), kLeaseCheck)) return;
    }
    controller_.membership().ExpireLeases(absl::Now());
  }
}

absl::Time PlannerService::Deadline(const grpc::ServerContext& context) const {
  return absl::Now() + TimeLeft(context, options_.longest_call);
}

QueryCall PlannerService::CallOf(grpc::ServerContext* context, absl::Time deadline) {
  return {deadline, [this, context] {
            if (context->IsCancelled()) return true;
            absl::MutexLock lock(&mu_);
            return stopping_;
          }};
}

grpc::Status PlannerService::Plan(grpc::ServerContext* context, const v1::PlanRequest* request,
                                  v1::PlanResponse* response) {
  return ToGrpcStatus(queries_.Plan(CallOf(context, Deadline(*context)), *request,
                                    /*explain=*/false, response));
}

grpc::Status PlannerService::ExplainPlan(grpc::ServerContext* context,
                                         const v1::PlanRequest* request,
                                         v1::PlanResponse* response) {
  return ToGrpcStatus(queries_.Plan(CallOf(context, Deadline(*context)), *request,
                                    /*explain=*/true, response));
}

grpc::Status PlannerService::WhatIf(grpc::ServerContext* context, const v1::WhatIfRequest* request,
                                    v1::WhatIfResponse* response) {
  return ToGrpcStatus(queries_.WhatIf(CallOf(context, Deadline(*context)), *request, response));
}

grpc::Status PlannerService::DiffPlans(grpc::ServerContext* context,
                                       const v1::DiffPlansRequest* request,
                                       v1::DiffPlansResponse* response) {
  return ToGrpcStatus(queries_.Diff(CallOf(context, Deadline(*context)), *request, response));
}

grpc::Status PlannerService::WatchPlan(grpc::ServerContext* context,
                                       const v1::WatchPlanRequest* request,
                                       grpc::ServerWriter<v1::WatchPlanEvent>* writer) {
  // Without a deadline it lives as long as the client, which keepalive watches.
  const QueryCall call = CallOf(context, absl::FromChrono(context->deadline()));
  const absl::Status status = queries_.Watch(
      call, *request, [writer](const v1::WatchPlanEvent& event) { return writer->Write(event); });
  absl::MutexLock lock(&mu_);
  return ToGrpcStatus(stopping_ ? Stopping() : status);
}

grpc::Status PlannerService::Load(grpc::ServerContext* context, const v1::LoadRequest* request,
                                  grpc::ServerWriter<v1::LoadEvent>* writer) {
  return ToGrpcStatus(DoLoad(context, *request, writer));
}

absl::Status PlannerService::DoLoad(grpc::ServerContext* context, const v1::LoadRequest& request,
                                    grpc::ServerWriter<v1::LoadEvent>* writer) {
  // A client that goes away does not stop a load: the plan is wanted, and others may wait for it.
  MILLRACE_ASSIGN_OR_RETURN(
      ClusterController::LoadOutcome outcome,
      controller_.Load(request, Deadline(*context),
                       [writer](const v1::LoadEvent& event) { writer->Write(event); }));
  v1::LoadEvent last;
  if (outcome.infeasible.has_value()) {
    *last.mutable_infeasible() = ToProto(*outcome.infeasible);
  } else {
    *last.mutable_loaded() = ToProto(outcome.serving->plan);
  }
  writer->Write(last);
  return absl::OkStatus();
}

grpc::Status PlannerService::Unload(grpc::ServerContext* context, const v1::UnloadRequest* request,
                                    v1::UnloadResponse* response) {
  return ToGrpcStatus(controller_.Unload(Deadline(*context)));
}

std::unique_ptr<ActiveCall> PlannerService::CallLeader(const grpc::ServerContext& context,
                                                       const ServingPlan& serving,
                                                       const RequestId& request) {
  auto client = grpc::ClientContext::FromServerContext(context);  // a client that leaves cancels
  SetTimeout(*client, TimeLeft(context, options_.longest_call));
  auto call = controller_.calls().Begin(std::move(client), request, serving.workers);
  // A worker lost just before Begin was not seen by it.
  if (!controller_.IsHealthy(serving)) {
    for (const WorkerId& worker : serving.workers) {
      const std::optional<Member> member = controller_.membership().Find(worker);
      if (!member.has_value() || !member->live) {
        controller_.calls().Lose(worker, member.has_value() ? member->lost_because : "it left");
      }
    }
  }
  return call;
}

grpc::Status PlannerService::Generate(grpc::ServerContext* context,
                                      const v1::GenerateRequest* request,
                                      grpc::ServerWriter<v1::GenerateEvent>* writer) {
  return ToGrpcStatus(DoGenerate(context, *request, writer));
}

absl::Status PlannerService::DoGenerate(grpc::ServerContext* context, v1::GenerateRequest request,
                                        grpc::ServerWriter<v1::GenerateEvent>* writer) {
  if (request.request_id().empty()) request.set_request_id(NewRequestId().value());
  const RequestId id(request.request_id());
  if (controller_.calls().Has(id)) {
    return absl::AlreadyExistsError(
        absl::StrCat("GenerateRequest.request_id: '", id.value(), "' runs already"));
  }
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<const ServingPlan> serving,
                            controller_.EnsureServing(Deadline(*context)));
  const std::unique_ptr<ActiveCall> call = CallLeader(*context, *serving, id);
  const auto reader = serving->leader->Generate(&call->context(), request);
  v1::GenerateEvent event;
  bool client_here = true;
  while (reader->Read(&event)) {
    // A slow client holds this thread; behind it the leader's bounded queue fills and ends the
    // generation, never a pass.
    if (client_here && !writer->Write(event)) {
      client_here = false;
      call->context().TryCancel();
    }
  }
  const absl::Status status = FromGrpcStatus(reader->Finish());
  if (!client_here) return absl::CancelledError("the client went away");
  return WhyEnded(*call, status, serving->leader_name);
}

grpc::Status PlannerService::Score(grpc::ServerContext* context, const v1::ScoreRequest* request,
                                   v1::ScoreResponse* response) {
  return ToGrpcStatus(DoScore(context, *request, response));
}

absl::Status PlannerService::DoScore(grpc::ServerContext* context, const v1::ScoreRequest& request,
                                     v1::ScoreResponse* response) {
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<const ServingPlan> serving,
                            controller_.EnsureServing(Deadline(*context)));
  const std::unique_ptr<ActiveCall> call = CallLeader(*context, *serving, NewRequestId());
  const absl::Status status =
      FromGrpcStatus(serving->leader->Score(&call->context(), request, response));
  return WhyEnded(*call, status, serving->leader_name);
}

grpc::Status PlannerService::Cancel(grpc::ServerContext* context, const v1::CancelRequest* request,
                                    v1::CancelResponse* response) {
  return ToGrpcStatus(DoCancel(*request));
}

absl::Status PlannerService::DoCancel(const v1::CancelRequest& request) {
  if (!controller_.calls().Has(RequestId(request.request_id()))) {
    return absl::NotFoundError(
        absl::StrCat("CancelRequest.request_id: no generation '", request.request_id(), "' runs"));
  }
  controller_.calls().Cancel(RequestId(request.request_id()));
  return absl::OkStatus();
}

grpc::Status PlannerService::Status(grpc::ServerContext* context,
                                    const v1::ClusterStatusRequest* request,
                                    v1::ClusterStatus* response) {
  *response = controller_.Status();
  response->set_version(options_.version);
  return grpc::Status::OK;
}

grpc::Status PlannerService::Session(grpc::ServerContext* context, SessionStream* stream) {
  {
    absl::MutexLock lock(&mu_);
    if (stopping_) return ToGrpcStatus(Stopping());
    sessions_.insert(context);
  }
  const absl::Status status = DoSession(context, stream);
  absl::MutexLock lock(&mu_);
  sessions_.erase(context);
  return ToGrpcStatus(status);
}

absl::Status PlannerService::DoSession(grpc::ServerContext* context, SessionStream* stream) {
  v1::SessionRequest request;
  if (!stream->Read(&request) || !request.has_register_()) {
    return absl::InvalidArgumentError("SessionRequest.message: the first must be `register`");
  }
  const v1::RegisterWorker& hello = request.register_();
  if (hello.protocol_version() != kProtocolVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "RegisterWorker.protocol_version: the worker speaks version ", hello.protocol_version(),
        ", this planner version ", kProtocolVersion, "; install the same millrace on both"));
  }
  MILLRACE_ASSIGN_OR_RETURN(const HostSpec host, FromProto(hello.host()));
  controller_.NoteEpoch(Epoch{hello.highest_epoch()});
  MILLRACE_ASSIGN_OR_RETURN(
      const uint64_t session,
      controller_.membership().Join(host, Epoch{hello.loaded_epoch()}, absl::Now()));
  spdlog::info("worker '{}' registered from {}: {} device(s), {}", host.worker.value(),
               host.address, host.devices.size(), FormatBytes(host.budget));
  return ServeSession(stream, host.worker, session);
}

absl::Status PlannerService::ServeSession(SessionStream* stream, const WorkerId& worker,
                                          uint64_t session) {
  v1::SessionResponse response;
  response.mutable_registered()->set_lease_ms(absl::ToInt64Milliseconds(options_.lease));
  response.mutable_registered()->set_heartbeat_ms(absl::ToInt64Milliseconds(options_.heartbeat));
  Membership& membership = controller_.membership();
  v1::SessionRequest request;
  std::optional<std::string> lost = "its session broke";
  if (stream->Write(response)) {
    response.mutable_ack();
    while (stream->Read(&request)) {
      if (request.has_leave()) {
        lost = std::nullopt;
        break;
      }
      if (!membership.Heartbeat(worker, session, request.heartbeat().status(), absl::Now())) {
        return absl::UnavailableError("the lease ran out; register again");
      }
      if (!stream->Write(response)) break;
    }
  }
  membership.End(worker, session, lost);
  return absl::OkStatus();
}

}  // namespace millrace
