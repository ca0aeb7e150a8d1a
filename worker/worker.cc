#include "worker/worker.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/convert.h"
#include "proto/field_check.h"
#include "proto/status_macros.h"
#include "proto/stream_layout.h"
#include "worker/activation_arena.h"
#include "worker/generate_messages.h"
#include "worker/link/grpc_link.h"
#include "worker/local_stages.h"
#include "worker/process_memory.h"

namespace millrace {
namespace {

constexpr absl::Duration kReleaseTimeout = absl::Seconds(5);
constexpr int kDefaultContext = 4096;

// Plan options with zeros and unset fields replaced; InvalidArgument names a field out of range.
absl::StatusOr<v1::PlanOptions> ResolveOptions(const v1::PlanOptions& asked,
                                               const ModelSpec& model) {
  FieldCheck check;
  v1::PlanOptions options = asked;
  if (options.context() == 0) {
    options.set_context(std::min(kDefaultContext, model.context_length));
  }
  if (options.slots() == 0) options.set_slots(1);
  if (options.kv_type() == v1::DTYPE_UNSPECIFIED) options.set_kv_type(v1::DTYPE_F16);
  if (options.max_pass_tokens() == 0) options.set_max_pass_tokens(512);
  if (options.expected_prompt_tokens() == 0) options.set_expected_prompt_tokens(512);
  check.Int32("PlanOptions.context", options.context(), 1, 1 << 26);
  check.Int32("PlanOptions.slots", options.slots(), 1, 1 << 16);
  check.Int32("PlanOptions.max_pass_tokens", options.max_pass_tokens(), 1, 1 << 20);
  check.Int32("PlanOptions.expected_prompt_tokens", options.expected_prompt_tokens(), 1, 1 << 26);
  if (!check.ok()) return check.status();
  return options;
}

// What a stage link takes on its receiving side: the assembled hidden states and one message each
// way.
Bytes LinkBytes(const ModelSpec& model, const v1::PlanOptions& options) {
  const int64_t hidden = int64_t{4} * model.d_model * options.max_pass_tokens();
  return Bytes(hidden + std::min<int64_t>(hidden, 2 << 20));
}

}  // namespace

std::string ResolveModelReference(const std::string& reference, const std::string& model_dir) {
  if (reference.empty() || reference == kDemoModel || reference.front() == '/') return reference;
  if (model_dir.empty()) return reference;
  const std::string path = absl::StrCat(model_dir, "/", reference);
  struct stat info;
  return stat(path.c_str(), &info) == 0 ? path : reference;
}

Worker::Worker(WorkerOptions options) : options_(std::move(options)) {}

Worker::~Worker() { Stop(); }

absl::StatusOr<std::shared_ptr<const Model>> Worker::OpenModel(const std::string& reference) {
  const std::string path = ResolveModelReference(reference, options_.model_dir);
  {
    absl::MutexLock lock(&mu_);
    if (model_ != nullptr && model_reference_ == path) return model_;
  }
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model, Model::Open(path));
  absl::MutexLock lock(&mu_);
  model_ = model;
  model_reference_ = path;
  return model;
}

absl::StatusOr<ModelSpec> Worker::SpecOf(const v1::DescribeModelRequest& request) {
  if (!request.has_spec()) {
    MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model, OpenModel(request.model()));
    return model->spec();
  }
  MILLRACE_ASSIGN_OR_RETURN(ModelSpec spec, FromProto(request.spec()));
  if (spec.layers.empty()) {
    return absl::InvalidArgumentError("DescribeModelRequest.spec.layers: must not be empty");
  }
  return spec;
}

absl::StatusOr<ModelDescription> Worker::Describe(const v1::DescribeModelRequest& request) {
  ModelDescription description;
  MILLRACE_ASSIGN_OR_RETURN(description.model, SpecOf(request));
  const ModelSpec& model = description.model;
  MILLRACE_ASSIGN_OR_RETURN(description.options, ResolveOptions(request.options(), model));
  description.fingerprint = FingerprintOf(model);
  const v1::PlanOptions& resolved = description.options;
  ActivationShape shape = {resolved.max_pass_tokens(), options_.host.threads, resolved.slots(),
                           resolved.context()};
  if (request.has_machine()) {
    FieldCheck check;
    shape.threads = check.Int32("DescribeModelRequest.machine.threads",
                                request.machine().threads(), 1, 1 << 16);
    MILLRACE_RETURN_IF_ERROR(check.status());
    shape.direct_products = request.machine().direct_products();
  }
  description.activations = ActivationNeedsOf(model, shape, DeviceKind::kCpu);
  description.gpu_activations = ActivationNeedsOf(model, shape, DeviceKind::kGpu);
  ActivationShape host_route = shape;
  host_route.max_pass_tokens = std::min(shape.max_pass_tokens, kMaxHostRouteTokens);
  description.host_route_activations = ActivationNeedsOf(model, host_route, DeviceKind::kCpu);
  // The link's buffers are host memory: beside a GPU stage they are not on its device.
  if (!request.has_machine() || request.machine().several_workers()) {
    description.activations.body += LinkBytes(model, description.options);
  }
  return description;
}

absl::Status Worker::BeginChange(Epoch epoch) {
  absl::MutexLock lock(&mu_);
  if (stopping_) {
    return absl::UnavailableError(
        absl::StrCat("worker '", options_.host.worker.value(), "' is stopping"));
  }
  if (epoch <= highest_epoch_) {
    return absl::FailedPreconditionError(
        absl::StrCat("worker '", options_.host.worker.value(), "' has seen epoch ",
                     highest_epoch_.value, " and refuses a plan of epoch ", epoch.value));
  }
  highest_epoch_ = epoch;
  loading_ = true;
  return absl::OkStatus();
}

absl::StatusOr<Bytes> Worker::Load(const PlacementPlan& plan, std::vector<int> stages,
                                   int max_queue, const Progress& progress) {
  absl::MutexLock change(&change_mu_);
  std::sort(stages.begin(), stages.end());
  if (stages.empty() || std::adjacent_find(stages.begin(), stages.end()) != stages.end()) {
    return absl::InvalidArgumentError("LoadStagesRequest.stages: empty, or a stage twice");
  }
  for (int stage : stages) {
    if (stage < 0 || stage >= static_cast<int>(plan.stages.size())) {
      return absl::InvalidArgumentError(
          absl::StrCat("LoadStagesRequest.stages: no stage ", stage, " in the plan"));
    }
    if (plan.stages[stage].worker != options_.host.worker) {
      return absl::FailedPreconditionError(
          absl::StrCat("stage ", stage, " belongs to worker '", plan.stages[stage].worker.value(),
                       "', this is '", options_.host.worker.value(), "'"));
    }
  }
  MILLRACE_RETURN_IF_ERROR(BeginChange(plan.epoch));
  const absl::Status dropped = DropLoaded();
  absl::StatusOr<std::shared_ptr<LoadedStages>> built =
      dropped.ok() ? Build(plan, stages, max_queue, progress) : dropped;
  absl::MutexLock lock(&mu_);
  loading_ = false;
  if (!built.ok()) return built.status();
  loaded_ = *built;
  if (stopping_ && loaded_->engine != nullptr) loaded_->engine->Stop();
  return loaded_->resident;
}

absl::StatusOr<std::shared_ptr<LoadedStages>> Worker::Build(const PlacementPlan& plan,
                                                            const std::vector<int>& stages,
                                                            int max_queue,
                                                            const Progress& progress) {
  MILLRACE_RETURN_IF_ERROR(
      ShortageError(FindShortages(plan, options_.host.worker, options_.memory),
                    "or load with replan (--replan): the budgets are then read again"));
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model, OpenModel(plan.model));
  auto loaded = std::make_shared<LoadedStages>();
  loaded->plan = plan;
  loaded->stages = stages;
  const int last = static_cast<int>(plan.stages.size()) - 1;
  for (size_t i = 0; i < stages.size();) {
    const int first = stages[i];
    int end = first;
    for (; i < stages.size() && stages[i] == end; ++i) ++end;
    std::unique_ptr<StageLink> link;
    StageOptions stage_options;
    stage_options.threads = options_.host.threads;
    if (end <= last) {
      const Stage& next = plan.stages[end];
      link = MakeGrpcLink({options_.host.worker, next.worker, next.address, end, plan.epoch});
    }
    MILLRACE_ASSIGN_OR_RETURN(StageChain chain,
                              CreateStageChain(model, plan, first, end, std::move(link),
                                               stage_options, progress));
    for (int stage = first; stage < end; ++stage) {
      loaded->stage_resident[stage] = chain.resident[static_cast<size_t>(stage - first)];
      loaded->resident += loaded->stage_resident[stage];
    }
    if (first > 0) {
      loaded->servers.push_back(
          std::make_unique<StageServer>(std::move(chain.first), plan.epoch, model->spec().d_model,
                                        int64_t{plan.max_pass_tokens} * model->spec().d_model));
      continue;
    }
    EngineOptions engine;
    engine.slots = plan.slots;
    engine.context = plan.context;
    engine.max_pass_tokens = plan.max_pass_tokens;
    if (max_queue > 0) engine.max_queue = max_queue;
    engine.epoch = plan.epoch;
    MILLRACE_ASSIGN_OR_RETURN(loaded->engine, Engine::Create(model, std::move(chain.first), engine));
  }
  return loaded;
}

absl::Status Worker::DropLoaded() {
  std::shared_ptr<LoadedStages> old;
  {
    absl::MutexLock lock(&mu_);
    old = std::move(loaded_);
    loaded_ = nullptr;
  }
  if (old == nullptr) return absl::OkStatus();
  for (const auto& server : old->servers) server->Stop();
  if (old->engine != nullptr) old->engine->Stop();
  const Epoch epoch = old->plan.epoch;
  // The memory must be free before a new plan takes its budget: wait for the calls that still hold
  // a reference. They end soon, for their engine or stream has just been stopped.
  const absl::Time give_up = absl::Now() + kReleaseTimeout;
  while (old.use_count() > 1 && absl::Now() < give_up) absl::SleepFor(absl::Milliseconds(2));
  if (old.use_count() == 1) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat("stages of epoch ", epoch.value, " were still in use ",
                   absl::FormatDuration(kReleaseTimeout), " after they were stopped"));
}

absl::Status Worker::Unload(Epoch epoch) {
  absl::MutexLock change(&change_mu_);
  if (epoch.value != 0 && loaded_epoch() != epoch) {
    return absl::NotFoundError(absl::StrCat("epoch ", epoch.value, " is not loaded here; epoch ",
                                            loaded_epoch().value, " is"));
  }
  return DropLoaded();
}

absl::StatusOr<std::shared_ptr<LoadedStages>> Worker::Leading() const {
  absl::MutexLock lock(&mu_);
  if (stopping_) {
    return absl::UnavailableError(
        absl::StrCat("worker '", options_.host.worker.value(), "' is stopping"));
  }
  if (loaded_ == nullptr || loaded_->engine == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("worker '", options_.host.worker.value(),
                     loaded_ == nullptr ? "' has no model loaded" : "' does not hold stage 0",
                     "; generate through the planner"));
  }
  return loaded_;
}

absl::StatusOr<std::shared_ptr<StageServer>> Worker::FindStage(Epoch epoch, int stage) const {
  absl::MutexLock lock(&mu_);
  if (loaded_ == nullptr || loaded_->plan.epoch != epoch) {
    return absl::FailedPreconditionError(absl::StrCat(
        "worker '", options_.host.worker.value(), "' was asked for epoch ", epoch.value, ", ",
        loaded_ == nullptr ? "it has nothing loaded"
                           : absl::StrCat("it runs epoch ", loaded_->plan.epoch.value)));
  }
  for (const auto& server : loaded_->servers) {
    if (server->stage() == stage) return std::shared_ptr<StageServer>(loaded_, server.get());
  }
  return absl::FailedPreconditionError(absl::StrCat("worker '", options_.host.worker.value(),
                                                    "' does not serve stage ", stage, " of epoch ",
                                                    epoch.value));
}

void Worker::Stop() {
  std::shared_ptr<LoadedStages> loaded;
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    loaded = loaded_;
  }
  if (loaded == nullptr) return;
  for (const auto& server : loaded->servers) server->Stop();
  if (loaded->engine != nullptr) loaded->engine->Stop();
}

Epoch Worker::loaded_epoch() const {
  absl::MutexLock lock(&mu_);
  return loaded_ == nullptr ? Epoch{} : loaded_->plan.epoch;
}

Epoch Worker::highest_epoch() const {
  absl::MutexLock lock(&mu_);
  return highest_epoch_;
}

v1::WorkerStatus Worker::Status() const {
  v1::WorkerStatus status;
  status.set_name(options_.host.worker.value());
  status.set_address(options_.host.address);
  status.set_resident_bytes(ResidentBytes().count());
  *status.mutable_host() = ToProto(options_.host);
  std::shared_ptr<LoadedStages> loaded;
  {
    absl::MutexLock lock(&mu_);
    loaded = loaded_;
    status.set_state(stopping_ ? "stopping" : loading_ ? "loading" : loaded ? "ready" : "idle");
  }
  if (loaded == nullptr) return status;
  status.set_epoch(loaded->plan.epoch.value);
  status.set_model(loaded->plan.model);
  for (int i : loaded->stages) {
    const Stage& stage = loaded->plan.stages[i];
    v1::StageStatus& out = *status.add_stages();
    out.set_stage(i);
    out.set_device(stage.device.value());
    out.set_first_block(stage.first_block);
    out.set_end_block(stage.end_block);
    out.set_resident_bytes(loaded->stage_resident.at(i).count());
    for (const auto& server : loaded->servers) {
      if (server->stage() == i) out.set_passes(server->passes());
    }
  }
  if (loaded->engine != nullptr) *status.mutable_engine() = ToProto(loaded->engine->stats());
  return status;
}

}  // namespace millrace
