#include "worker/worker_service.h"

#include <spdlog/spdlog.h>

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/convert.h"
#include "proto/field_check.h"
#include "proto/grpc_status.h"
#include "proto/request_id.h"
#include "proto/status_macros.h"
#include "worker/event_queue.h"
#include "worker/generate_messages.h"

namespace millrace {
namespace {

constexpr size_t kEventQueue = 1024;  // tokens that may wait for a slow client
constexpr absl::Duration kPollClient = absl::Milliseconds(50);
constexpr absl::Duration kProgressInterval = absl::Milliseconds(100);

// One generation: Engine::Generate blocks on a thread of its own, this one writes to the client, a
// bounded queue is between them.
class GenerationStream {
 public:
  GenerationStream(Engine* engine, GenerateRequest request)
      : engine_(engine), request_(std::move(request)), events_(kEventQueue) {}

  absl::Status Run(grpc::ServerContext* context, grpc::ServerWriter<v1::GenerateEvent>* writer) {
    std::thread generator([this] {
      result_ = engine_->Generate(
          request_, [this](const GenerateEvent& event) { return events_.Push(event); });
      events_.Close();
    });
    const bool client_left = !Relay(context, writer);
    generator.join();
    if (events_.overflowed()) {
      return absl::ResourceExhaustedError(absl::StrCat("the client reads too slowly: ", kEventQueue,
                                                       " tokens wait; the generation was ended"));
    }
    if (client_left) return absl::CancelledError("the client went away");
    MILLRACE_RETURN_IF_ERROR(result_);
    v1::GenerateEvent done;
    *done.mutable_done() = ToProto(*result_);
    writer->Write(done);
    return absl::OkStatus();
  }

 private:
  // False when the client is gone (the generation is then cancelled, and has ended or soon will).
  bool Relay(grpc::ServerContext* context, grpc::ServerWriter<v1::GenerateEvent>* writer) {
    bool here = true;
    while (!events_.drained()) {
      std::optional<GenerateEvent> event = events_.Pop(kPollClient);
      if (here && event.has_value()) {
        v1::GenerateEvent message;
        *message.mutable_token() = ToProto(*event);
        here = writer->Write(message);
      }
      if (here && context->IsCancelled()) here = false;
      // Asked again on every turn: the first may come before the engine knows the request.
      if (!here) engine_->Cancel(request_.id).IgnoreError();
    }
    return here;
  }

  Engine* const engine_;
  const GenerateRequest request_;
  EventQueue<GenerateEvent> events_;
  absl::StatusOr<GenerateSummary> result_ = absl::UnknownError("not run");
};

}  // namespace

Worker* WorkerService::worker() {
  attached_.WaitForNotification();
  return worker_;
}

grpc::Status WorkerService::DescribeModel(grpc::ServerContext* context,
                                          const v1::DescribeModelRequest* request,
                                          v1::DescribeModelResponse* response) {
  absl::StatusOr<ModelDescription> model = worker()->Describe(*request);
  if (!model.ok()) return ToGrpcStatus(model.status());
  *response->mutable_model() = ToProto(model->model);
  response->set_fingerprint(model->fingerprint);
  *response->mutable_options() = model->options;
  *response->mutable_activations() = ToProto(model->activations);
  *response->mutable_gpu_activations() = ToProto(model->gpu_activations);
  *response->mutable_host_route_activations() = ToProto(model->host_route_activations);
  return grpc::Status::OK;
}

grpc::Status WorkerService::Budgets(grpc::ServerContext* context,
                                    const v1::BudgetsRequest* request,
                                    v1::BudgetsResponse* response) {
  *response->mutable_host() = ToProto(worker()->Budgets());
  return grpc::Status::OK;
}

grpc::Status WorkerService::Load(grpc::ServerContext* context, const v1::LoadStagesRequest* request,
                                 grpc::ServerWriter<v1::LoadStagesEvent>* writer) {
  const absl::Status status = DoLoad(*request, writer);
  if (!status.ok()) spdlog::warn("loading failed: {}", std::string(status.message()));
  return ToGrpcStatus(status);
}

absl::Status WorkerService::DoLoad(const v1::LoadStagesRequest& request,
                                   grpc::ServerWriter<v1::LoadStagesEvent>* writer) {
  MILLRACE_ASSIGN_OR_RETURN(PlacementPlan plan, FromProto(request.plan()));
  const absl::Time start = absl::Now();
  absl::Time next_report = start;
  MILLRACE_ASSIGN_OR_RETURN(
      Bytes resident, worker()->Load(plan, {request.stages().begin(), request.stages().end()},
                                     request.max_queue(), [&](int stage, Bytes done, Bytes total) {
                                       if (absl::Now() < next_report && done != total) return;
                                       next_report = absl::Now() + kProgressInterval;
                                       v1::LoadStagesEvent event;
                                       v1::LoadProgress& progress = *event.mutable_progress();
                                       progress.set_worker(worker()->options().host.worker.value());
                                       progress.set_stage(stage);
                                       progress.set_bytes_done(done.count());
                                       progress.set_bytes_total(total.count());
                                       writer->Write(event);
                                     }));
  spdlog::info("loaded {} stage(s) of epoch {}, {} resident, in {:.2f} s", request.stages_size(),
               plan.epoch.value, FormatBytes(resident), absl::ToDoubleSeconds(absl::Now() - start));
  v1::LoadStagesEvent event;
  event.mutable_done()->set_epoch(plan.epoch.value);
  event.mutable_done()->set_resident_bytes(resident.count());
  writer->Write(event);
  return absl::OkStatus();
}

grpc::Status WorkerService::Unload(grpc::ServerContext* context,
                                   const v1::UnloadStagesRequest* request,
                                   v1::UnloadStagesResponse* response) {
  const Epoch was = worker()->loaded_epoch();
  const absl::Status status = worker()->Unload(Epoch{request->epoch()});
  if (status.ok() && was.value != 0) spdlog::info("unloaded epoch {}", was.value);
  return ToGrpcStatus(status);
}

grpc::Status WorkerService::Generate(grpc::ServerContext* context,
                                     const v1::GenerateRequest* request,
                                     grpc::ServerWriter<v1::GenerateEvent>* writer) {
  return ToGrpcStatus(DoGenerate(context, *request, writer));
}

absl::Status WorkerService::DoGenerate(grpc::ServerContext* context,
                                       const v1::GenerateRequest& request,
                                       grpc::ServerWriter<v1::GenerateEvent>* writer) {
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<LoadedStages> loaded, worker()->Leading());
  MILLRACE_ASSIGN_OR_RETURN(GenerateRequest generate, FromProto(request));
  if (generate.id.empty()) generate.id = NewRequestId();
  v1::GenerateEvent started;
  started.mutable_started()->set_request_id(generate.id.value());
  started.mutable_started()->set_epoch(loaded->plan.epoch.value);
  started.mutable_started()->set_leader(worker()->options().host.worker.value());
  writer->Write(started);
  return GenerationStream(loaded->engine.get(), std::move(generate)).Run(context, writer);
}

grpc::Status WorkerService::Score(grpc::ServerContext* context, const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) {
  return ToGrpcStatus(DoScore(*request, response));
}

absl::Status WorkerService::DoScore(const v1::ScoreRequest& request, v1::ScoreResponse* response) {
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<LoadedStages> loaded, worker()->Leading());
  const std::vector<TokenId> tokens(request.tokens().begin(), request.tokens().end());
  absl::StatusOr<std::vector<float>> values =
      absl::InvalidArgumentError("ScoreRequest.kind: not set");
  if (request.kind() == v1::ScoreRequest::KIND_LAST_LOGITS) {
    values = loaded->engine->Logits(tokens);
  } else if (request.kind() == v1::ScoreRequest::KIND_LOG_PROBS) {
    values = loaded->engine->LogProbs(tokens, request.first());
  }
  MILLRACE_RETURN_IF_ERROR(values);
  response->mutable_values()->Add(values->begin(), values->end());
  return absl::OkStatus();
}

grpc::Status WorkerService::Cancel(grpc::ServerContext* context, const v1::CancelRequest* request,
                                   v1::CancelResponse* response) {
  absl::StatusOr<std::shared_ptr<LoadedStages>> loaded = worker()->Leading();
  if (!loaded.ok()) return ToGrpcStatus(loaded.status());
  return ToGrpcStatus((*loaded)->engine->Cancel(RequestId(request->request_id())));
}

grpc::Status WorkerService::Status(grpc::ServerContext* context,
                                   const v1::WorkerStatusRequest* request,
                                   v1::WorkerStatus* response) {
  *response = worker()->Status();
  return grpc::Status::OK;
}

grpc::Status WorkerService::RunStage(grpc::ServerContext* context, StageServerStream* stream) {
  return ToGrpcStatus(DoRunStage(context, stream));
}

absl::Status WorkerService::DoRunStage(grpc::ServerContext* context, StageServerStream* stream) {
  v1::StageRequest request;
  if (!stream->Read(&request) || !request.has_open()) {
    return absl::InvalidArgumentError("StageRequest.message: the first must be `open`");
  }
  MILLRACE_ASSIGN_OR_RETURN(
      std::shared_ptr<StageServer> server,
      worker()->FindStage(Epoch{request.open().epoch()}, request.open().stage()));
  spdlog::info("stage {} of epoch {} is linked to worker '{}'", request.open().stage(),
               request.open().epoch(), request.open().from());
  return server->Serve(context, stream);
}

}  // namespace millrace
