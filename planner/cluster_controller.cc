#include "planner/cluster_controller.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "planner/plan_messages.h"
#include "proto/convert.h"
#include "proto/grpc_status.h"
#include "proto/grpc_transport.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr absl::Duration kDescribeTimeout = absl::Seconds(30);
constexpr absl::Duration kLoadTimeout = absl::Minutes(30);  // reading a large model from disk
constexpr absl::Duration kUnloadTimeout = absl::Seconds(8);

std::shared_ptr<v1::WorkerService::Stub> StubFor(const std::string& address) {
  return v1::WorkerService::NewStub(MakeChannel(address));
}

// Equal requests ask for the same service: `force` and `replan` aside, and a plan's epoch and
// addresses, which are stamped anew at each load.
std::string Key(v1::LoadRequest request) {
  request.clear_force();
  request.clear_replan();
  if (request.has_plan()) {
    request.clear_model();
    request.clear_options();
    request.mutable_plan()->clear_epoch();
    for (v1::Stage& stage : *request.mutable_plan()->mutable_stages()) stage.clear_address();
  }
  return request.SerializeAsString();
}

// What may be used, device by device.
std::vector<Bytes> BudgetsOf(const HostSpec& host) {
  std::vector<Bytes> budgets = {host.budget};
  for (const DeviceSpec& device : host.devices) budgets.push_back(device.budget);
  return budgets;
}

}  // namespace

// While one exists, no other load, unload or reload begins.
class ClusterController::Change {
 public:
  explicit Change(ClusterController* controller) : controller_(controller) {}
  ~Change() { controller_->EndChange(); }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

 private:
  ClusterController* const controller_;
};

ClusterController::ClusterController(absl::Duration lease)
    : membership_(
          lease,
          [this](const WorkerId& worker, const std::string& reason) {
            spdlog::warn("worker '{}' is no longer a member: {}", worker.value(), reason);
            calls_.Lose(worker, reason);
          },
          [this] { changes_.Bump(); }) {}

absl::Status ClusterController::BeginChange(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const auto free = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !changing_; };
  if (!mu_.AwaitWithDeadline(absl::Condition(&free), deadline)) {
    return absl::UnavailableError("the planner is still busy with another load; try again later");
  }
  changing_ = true;
  return absl::OkStatus();
}

void ClusterController::EndChange() {
  absl::MutexLock lock(&mu_);
  changing_ = false;
}

// Asks the live workers for the model in order; any that has it will do.
absl::StatusOr<v1::DescribeModelResponse> ClusterController::Describe(
    const std::vector<Member>& live, const v1::DescribeModelRequest& request, absl::Time deadline) {
  absl::Status status;
  for (const Member& member : live) {
    auto context = std::make_unique<grpc::ClientContext>();
    SetTimeout(*context,
               std::clamp(deadline - absl::Now(), absl::ZeroDuration(), kDescribeTimeout));
    const auto call = calls_.Begin(std::move(context), RequestId(), {member.host.worker});
    v1::DescribeModelResponse described;
    const absl::Status asked = FromGrpcStatus(
        StubFor(member.host.address)->DescribeModel(&call->context(), request, &described));
    if (asked.ok()) return described;
    // The first answer about the model says more than a later one about the network.
    if (status.ok() || absl::IsUnavailable(status)) {
      status = Annotate(asked, absl::StrCat("worker '", member.host.worker.value(), "'"));
    }
  }
  return status;
}

absl::StatusOr<AskedPlan> ClusterController::Ask(const v1::PlanRequest& request,
                                                 absl::Time deadline) {
  std::vector<Member> live = membership_.Live();
  ClusterSpec registered;
  for (const Member& member : live) registered.hosts.push_back(member.host);
  return MakeAskedPlan(
      request, registered,
      [this, live = std::move(live), deadline](const v1::DescribeModelRequest& question) {
        return Describe(live, question, deadline);
      });
}

absl::StatusOr<ClusterPlan> ClusterController::Plan(const std::string& model,
                                                    const v1::PlanOptions& options) {
  v1::PlanRequest request;
  request.set_model(model);
  *request.mutable_options() = options;
  MILLRACE_ASSIGN_OR_RETURN(AskedPlan asked, Ask(request, absl::InfiniteFuture()));
  MILLRACE_ASSIGN_OR_RETURN(const PlacementProblem problem, ProblemOn(asked.cluster, asked.query));
  ClusterPlan plan;
  MILLRACE_ASSIGN_OR_RETURN(plan.result, Solve(problem));
  plan.cluster = std::move(asked.cluster);
  return plan;
}

std::shared_ptr<const ServingPlan> ClusterController::Serving() const {
  absl::MutexLock lock(&mu_);
  return serving_;
}

void ClusterController::SetServing(std::shared_ptr<const ServingPlan> serving) {
  {
    absl::MutexLock lock(&mu_);
    serving_ = std::move(serving);
  }
  changes_.Bump();
}

absl::StatusOr<SolveResult> ClusterController::PlanFor(const v1::LoadRequest& request) {
  if (!request.has_plan()) {
    MILLRACE_ASSIGN_OR_RETURN(ClusterPlan planned, Plan(request.model(), request.options()));
    return planned.result;
  }
  SolveResult given;
  MILLRACE_ASSIGN_OR_RETURN(given.plan, FromProto(request.plan()));
  return given;
}

// Stamps epoch and addresses on the plan.
absl::StatusOr<std::shared_ptr<const ServingPlan>> ClusterController::Address(PlacementPlan plan) {
  auto serving = std::make_shared<ServingPlan>();
  for (Stage& stage : plan.stages) {
    const std::optional<Member> member = membership_.Find(stage.worker);
    if (!member.has_value() || !member->live) {
      return absl::UnavailableError(
          absl::StrCat("the plan needs worker '", stage.worker.value(), "', which is not here",
                       member.has_value() ? absl::StrCat(" (", member->lost_because, ")") : ""));
    }
    stage.address = member->host.address;
    if (std::find(serving->workers.begin(), serving->workers.end(), stage.worker) ==
        serving->workers.end()) {
      serving->workers.push_back(stage.worker);
    }
  }
  {
    absl::MutexLock lock(&mu_);
    plan.epoch = Epoch{++last_epoch_.value};
  }
  serving->leader_name = plan.stages.front().worker;
  serving->leader = StubFor(plan.stages.front().address);
  serving->plan = std::move(plan);
  return serving;
}

absl::Status ClusterController::LoadWorker(const ServingPlan& serving, const WorkerId& worker,
                                           int max_queue, const OnLoadEvent& on_event) {
  v1::LoadStagesRequest request;
  *request.mutable_plan() = ToProto(serving.plan);
  request.set_max_queue(max_queue);
  std::string address;
  for (size_t i = 0; i < serving.plan.stages.size(); ++i) {
    if (serving.plan.stages[i].worker != worker) continue;
    request.add_stages(static_cast<int>(i));
    address = serving.plan.stages[i].address;
  }
  auto context = std::make_unique<grpc::ClientContext>();
  SetTimeout(*context, kLoadTimeout);
  const auto call = calls_.Begin(std::move(context), RequestId(), {worker});
  const auto stub = StubFor(address);
  const auto reader = stub->Load(&call->context(), request);
  v1::LoadStagesEvent event;
  while (reader->Read(&event)) {
    if (!event.has_progress()) continue;
    v1::LoadEvent relayed;
    *relayed.mutable_progress() = event.progress();
    on_event(relayed);
  }
  const absl::Status status = FromGrpcStatus(reader->Finish());
  MILLRACE_RETURN_IF_ERROR(call->ended());
  MILLRACE_RETURN_IF_ERROR(
      Annotate(status, absl::StrCat("loading on worker '", worker.value(), "'")));
  membership_.SetLoaded(worker, serving.plan.epoch);
  return absl::OkStatus();
}

void ClusterController::UnloadWorker(const Member& member) {
  auto context = std::make_unique<grpc::ClientContext>();
  SetTimeout(*context, kUnloadTimeout);
  const auto call = calls_.Begin(std::move(context), RequestId(), {member.host.worker});
  v1::UnloadStagesResponse response;
  const grpc::Status status =
      StubFor(member.host.address)->Unload(&call->context(), v1::UnloadStagesRequest(), &response);
  if (status.ok()) {
    membership_.SetLoaded(member.host.worker, Epoch{});
  } else {
    spdlog::warn("unloading on worker '{}': {}", member.host.worker.value(),
                 status.error_message());
  }
}

// From the last stage to the first, so that whoever is loaded finds the next stage ready.
absl::Status ClusterController::LoadStages(const ServingPlan& serving, int max_queue,
                                           const OnLoadEvent& on_event) {
  for (const Member& member : membership_.Live()) {
    if (member.loaded.value != 0) UnloadWorker(member);
  }
  std::vector<WorkerId> order(serving.workers.rbegin(), serving.workers.rend());
  for (const WorkerId& worker : order) {
    MILLRACE_RETURN_IF_ERROR(LoadWorker(serving, worker, max_queue, on_event));
  }
  return absl::OkStatus();
}

// A worker that cannot be asked keeps its budgets: its own check comes again when it loads.
bool ClusterController::RefreshBudgets() {
  bool changed = false;
  for (const Member& member : membership_.Live()) {
    if (member.loaded.value != 0) UnloadWorker(member);
    auto context = std::make_unique<grpc::ClientContext>();
    SetTimeout(*context, kDescribeTimeout);
    const auto call = calls_.Begin(std::move(context), RequestId(), {member.host.worker});
    v1::BudgetsResponse response;
    const absl::Status asked = FromGrpcStatus(
        StubFor(member.host.address)->Budgets(&call->context(), v1::BudgetsRequest(), &response));
    const absl::StatusOr<HostSpec> host =
        asked.ok() ? FromProto(response.host()) : absl::StatusOr<HostSpec>(asked);
    if (host.ok() && host->worker == member.host.worker) {
      changed |= BudgetsOf(*host) != BudgetsOf(member.host);
      membership_.SetHost(*host);
    } else {
      spdlog::warn("reading the budgets of worker '{}' again: {}", member.host.worker.value(),
                   std::string(host.status().message()));
    }
  }
  return changed;
}

// As ReplaceOnce; where a worker's memory has changed and the request asks for it, once more with
// the budgets of now.
absl::StatusOr<ClusterController::LoadOutcome> ClusterController::Replace(
    const v1::LoadRequest& request, const OnLoadEvent& on_event) {
  absl::StatusOr<LoadOutcome> outcome = ReplaceOnce(request, on_event);
  const bool no_room =
      absl::IsFailedPrecondition(outcome.status()) || absl::IsResourceExhausted(outcome.status());
  if (!request.replan() || !no_room) return outcome;
  // A plan that was given may be for other budgets than these.
  if (!RefreshBudgets() && !request.has_plan()) return outcome;
  const std::string why(outcome.status().message());
  spdlog::info("planning again: {}", why);
  v1::LoadEvent event;
  event.set_replanned(why);
  on_event(event);
  v1::LoadRequest again = request;
  if (again.has_plan() && again.model().empty()) again.set_model(again.plan().model());
  again.clear_plan();
  outcome = ReplaceOnce(again, on_event);
  if (!outcome.ok()) return Annotate(outcome.status(), absl::StrCat("planned again (", why, ")"));
  return outcome;
}

// Plans, ends what runs, loads. The caller holds the change.
absl::StatusOr<ClusterController::LoadOutcome> ClusterController::ReplaceOnce(
    const v1::LoadRequest& request, const OnLoadEvent& on_event) {
  const absl::Time start = absl::Now();
  LoadOutcome outcome;
  MILLRACE_ASSIGN_OR_RETURN(SolveResult solved, PlanFor(request));
  if (solved.infeasible.has_value()) {
    outcome.infeasible = std::move(solved.infeasible);
    return outcome;
  }
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<const ServingPlan> next,
                            Address(*std::move(solved.plan)));
  v1::LoadEvent planned;
  *planned.mutable_planned() = ToProto(next->plan);
  on_event(planned);
  SetServing(nullptr);
  calls_.EndAll(absl::UnavailableError(absl::StrCat("the plan was replaced by that of epoch ",
                                                    next->plan.epoch.value, "; ask again")),
                /*generations_only=*/true, /*for_good=*/false);
  MILLRACE_RETURN_IF_ERROR(LoadStages(*next, request.max_queue(), on_event));
  SetServing(next);
  spdlog::info(
      "epoch {} serves '{}' over {} stage(s) on {} worker(s), loaded in {:.2f} s",
      next->plan.epoch.value, next->plan.model.empty() ? "the demo model" : next->plan.model,
      next->plan.stages.size(), next->workers.size(), absl::ToDoubleSeconds(absl::Now() - start));
  outcome.serving = std::move(next);
  return outcome;
}

absl::StatusOr<ClusterController::LoadOutcome> ClusterController::Load(
    const v1::LoadRequest& request, absl::Time deadline, const OnLoadEvent& on_event) {
  MILLRACE_RETURN_IF_ERROR(BeginChange(deadline));
  Change change(this);
  std::shared_ptr<const ServingPlan> serving;
  bool same = false;
  {
    absl::MutexLock lock(&mu_);
    serving = serving_;
    same = wanted_.has_value() && Key(*wanted_) == Key(request);
  }
  if (serving != nullptr && IsHealthy(*serving)) {
    if (same) return LoadOutcome{serving, std::nullopt};
    if (calls_.generations() > 0 && !request.force()) {
      return absl::FailedPreconditionError(absl::StrCat(
          calls_.generations(), " generation(s) run on the loaded plan (epoch ",
          serving->plan.epoch.value, "); wait for them, or load with force to end them"));
    }
  }
  absl::StatusOr<LoadOutcome> outcome = Replace(request, on_event);
  absl::MutexLock lock(&mu_);
  if (outcome.ok() && outcome->serving != nullptr) {
    wanted_ = request;
  } else if (serving_ == nullptr && !same) {
    wanted_ = std::nullopt;  // the old plan is gone and the new one did not come up
  }
  return outcome;
}

absl::Status ClusterController::Unload(absl::Time deadline) {
  MILLRACE_RETURN_IF_ERROR(BeginChange(deadline));
  Change change(this);
  {
    absl::MutexLock lock(&mu_);
    wanted_ = std::nullopt;
  }
  SetServing(nullptr);
  calls_.EndAll(absl::UnavailableError("the model was unloaded"), /*generations_only=*/true,
                /*for_good=*/false);
  for (const Member& member : membership_.Live()) UnloadWorker(member);
  spdlog::info("unloaded");
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const ServingPlan>> ClusterController::EnsureServing(
    absl::Time deadline) {
  {
    absl::MutexLock lock(&mu_);
    if (!changing_ && serving_ != nullptr && IsHealthy(*serving_)) return serving_;
  }
  MILLRACE_RETURN_IF_ERROR(BeginChange(deadline));
  Change change(this);
  std::shared_ptr<const ServingPlan> serving;
  std::optional<v1::LoadRequest> wanted;
  {
    absl::MutexLock lock(&mu_);
    serving = serving_;
    wanted = wanted_;
  }
  if (!wanted.has_value()) return absl::FailedPreconditionError(kNothingLoaded);
  if (serving != nullptr && IsHealthy(*serving)) return serving;
  const std::string why = serving == nullptr ? "the last load failed" : WhyUnhealthy(*serving);
  spdlog::info("loading again: {}", why);
  absl::StatusOr<LoadOutcome> outcome = Replace(*wanted, [](const v1::LoadEvent&) {});
  if (!outcome.ok()) return Annotate(outcome.status(), why);
  if (outcome->infeasible.has_value()) {
    return absl::UnavailableError(absl::StrCat(
        why, "; the workers that are left cannot hold the model: ", outcome->infeasible->summary,
        "; start the worker again and repeat the request"));
  }
  return outcome->serving;
}

std::string ClusterController::WhyUnhealthy(const ServingPlan& serving) const {
  for (const WorkerId& worker : serving.workers) {
    const std::optional<Member> member = membership_.Find(worker);
    if (!member.has_value()) return absl::StrCat("worker '", worker.value(), "' left the cluster");
    if (!member->live) {
      return absl::StrCat("worker '", worker.value(), "' is gone: ", member->lost_because);
    }
    if (member->loaded != serving.plan.epoch) {
      return absl::StrCat("worker '", worker.value(), "' came back without its stages");
    }
  }
  return "";
}

bool ClusterController::IsHealthy(const ServingPlan& serving) const {
  return WhyUnhealthy(serving).empty();
}

void ClusterController::NoteEpoch(Epoch seen) {
  absl::MutexLock lock(&mu_);
  last_epoch_ = std::max(last_epoch_, seen);
}

v1::ClusterStatus ClusterController::Status() const {
  v1::ClusterStatus status;
  const absl::Time now = absl::Now();
  for (const Member& member : membership_.All()) {
    v1::MemberStatus& out = *status.add_members();
    out.set_name(member.host.worker.value());
    out.set_live(member.live);
    out.set_detail(member.live ? member.status.state() : member.lost_because);
    out.set_seconds_since_heartbeat(absl::ToDoubleSeconds(now - member.last_heartbeat));
    *out.mutable_host() = ToProto(member.host);
    *out.mutable_worker() = member.status;
  }
  status.set_generations(calls_.generations());
  absl::MutexLock lock(&mu_);
  status.set_state(changing_ ? "loading" : wanted_.has_value() ? "serving" : "empty");
  if (serving_ != nullptr) {
    *status.mutable_plan() = ToProto(serving_->plan);
    const std::string why = WhyUnhealthy(*serving_);
    if (!why.empty()) {
      status.set_state("degraded");
      status.set_detail(why);
    }
  } else if (wanted_.has_value() && !changing_) {
    status.set_state("degraded");
    status.set_detail("the last load failed; the next request tries again");
  }
  return status;
}

}  // namespace millrace
