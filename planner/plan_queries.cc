#include "planner/plan_queries.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "planner/plan_diff.h"
#include "planner/plan_report.h"
#include "planner/query_messages.h"
#include "proto/convert.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr absl::Duration kLookAtCall = absl::Milliseconds(50);
constexpr absl::Duration kWatchedAnswer = absl::Minutes(10);  // of one event

// OK while the answer is still wanted.
absl::Status StillWanted(const QueryCall& call) {
  if (call.cancelled()) return absl::CancelledError("the call was ended");
  if (absl::Now() < call.deadline) return absl::OkStatus();
  return absl::DeadlineExceededError(
      "the deadline passed between two searches for plans; allow more time, or give "
      "max_pass_tokens: then one size is searched, not several");
}

std::string TextOf(const SolveResult& result) {
  return result.plan ? RenderPlanTable(*result.plan) : RenderInfeasible(*result.infeasible);
}

// Of one worker, as a watcher sees it.
struct Seen {
  uint64_t session = 0;
  std::string budgets;
};
using SeenWorkers = std::map<std::string, Seen>;

std::string BudgetsOf(const HostSpec& host) {
  std::string text = FormatBytes(host.budget);
  for (const DeviceSpec& d : host.devices) {
    absl::StrAppend(&text, ", ", d.id.value(), " ", FormatBytes(d.budget));
  }
  return text;
}

SeenWorkers LiveNow(const Membership& membership) {
  SeenWorkers now;
  for (const Member& member : membership.Live()) {
    now[member.host.worker.value()] = {member.session, BudgetsOf(member.host)};
  }
  return now;
}

std::string WhyGone(const Membership& membership, const std::string& worker) {
  const std::optional<Member> member = membership.Find(WorkerId(worker));
  return member.has_value() && !member->live ? member->lost_because : "it left the cluster";
}

void AddChanges(const Membership& membership, const SeenWorkers& before, const SeenWorkers& now,
                v1::WatchPlanEvent& event) {
  for (const auto& [name, seen] : before) {
    const auto it = now.find(name);
    if (it == now.end()) {
      event.add_since(absl::StrCat("worker '", name, "' is gone: ", WhyGone(membership, name)));
    } else if (it->second.session != seen.session) {
      event.add_since(absl::StrCat("worker '", name, "' registered again: ", it->second.budgets));
    } else if (it->second.budgets != seen.budgets) {
      event.add_since(absl::StrCat("worker '", name, "' may use ", it->second.budgets, ", before ",
                                   seen.budgets));
    }
  }
  for (const auto& [name, seen] : now) {
    if (before.contains(name)) continue;
    event.add_since(absl::StrCat("worker '", name, "' joined: ", seen.budgets));
  }
}

}  // namespace

absl::StatusOr<AskedPlan> PlanQueries::Ask(const QueryCall& call, const v1::PlanRequest& request) {
  MILLRACE_ASSIGN_OR_RETURN(AskedPlan asked, controller_->Ask(request, call.deadline));
  asked.query.activations_at = [&call, needs = std::move(asked.query.activations_at)](
                                   const ClusterSpec& cluster,
                                   int tokens) -> absl::StatusOr<PassActivations> {
    MILLRACE_RETURN_IF_ERROR(StillWanted(call));
    return needs(cluster, tokens);
  };
  return asked;
}

absl::Status PlanQueries::Plan(const QueryCall& call, const v1::PlanRequest& request, bool explain,
                               v1::PlanResponse* response) {
  MILLRACE_ASSIGN_OR_RETURN(const QueryTurns::Turn turn, turns_.Take(call.deadline));
  MILLRACE_ASSIGN_OR_RETURN(const AskedPlan asked, Ask(call, request));
  MILLRACE_ASSIGN_OR_RETURN(const PlacementProblem problem, ProblemOn(asked.cluster, asked.query));
  MILLRACE_RETURN_IF_ERROR(StillWanted(call));
  MILLRACE_ASSIGN_OR_RETURN(const SolveResult result, Solve(problem));
  std::string text = TextOf(result);
  if (explain && result.plan.has_value()) {
    MILLRACE_ASSIGN_OR_RETURN(text, ExplainPlan(asked.query, problem, *result.plan));
  }
  *response = MakePlanResponse(result, asked.cluster, std::move(text));
  return absl::OkStatus();
}

absl::Status PlanQueries::WhatIf(const QueryCall& call, const v1::WhatIfRequest& request,
                                 v1::WhatIfResponse* response) {
  MILLRACE_ASSIGN_OR_RETURN(const MachineChange change, FromProto(request.change()));
  MILLRACE_ASSIGN_OR_RETURN(const QueryTurns::Turn turn, turns_.Take(call.deadline));
  MILLRACE_ASSIGN_OR_RETURN(const AskedPlan asked, Ask(call, request.question()));
  MILLRACE_ASSIGN_OR_RETURN(const PlacementProblem problem, ProblemOn(asked.cluster, asked.query));
  MILLRACE_ASSIGN_OR_RETURN(const SolveResult as_is, Solve(problem));
  MILLRACE_ASSIGN_OR_RETURN(
      const ChangedAnswer changed,
      SolveChanged(asked.query, asked.cluster, change, "WhatIfRequest.change"));
  *response->mutable_as_is() = MakePlanResponse(as_is, asked.cluster, TextOf(as_is));
  *response->mutable_changed() =
      MakePlanResponse(changed.result, changed.cluster, TextOf(changed.result));
  response->set_text(RenderSideBySide(as_is, changed.result));
  return absl::OkStatus();
}

absl::Status PlanQueries::Diff(const QueryCall& call, const v1::DiffPlansRequest& request,
                               v1::DiffPlansResponse* response) {
  absl::StatusOr<PlacementPlan> before = FromProto(request.before());
  if (!before.ok()) return Annotate(before.status(), "DiffPlansRequest.before");
  absl::StatusOr<PlacementPlan> after = FromProto(request.after());
  if (!after.ok()) return Annotate(after.status(), "DiffPlansRequest.after");
  MILLRACE_ASSIGN_OR_RETURN(const QueryTurns::Turn turn, turns_.Take(call.deadline));
  const PlanDiff diff = ComparePlans(*before, *after);
  *response = ToProto(diff);
  response->set_text(RenderPlanDiff(diff));
  return absl::OkStatus();
}

// Sets the event's answer. An error is the call's own: what the question meets is part of the
// answer.
absl::Status PlanQueries::Answer(const QueryCall& call, const v1::WatchPlanRequest& request,
                                 v1::WatchPlanEvent& event) {
  if (!request.has_question()) {
    const std::shared_ptr<const ServingPlan> serving = controller_->Serving();
    if (serving == nullptr) {
      event.set_none(kNothingLoaded);
      return absl::OkStatus();
    }
    ClusterSpec cluster;
    for (const Member& member : controller_->membership().Live()) {
      cluster.hosts.push_back(member.host);
    }
    *event.mutable_planned() =
        MakePlanResponse({serving->plan, std::nullopt}, cluster, RenderPlanTable(serving->plan));
    event.set_loaded(true);
    return absl::OkStatus();
  }
  v1::PlanResponse response;
  const QueryCall bounded = {std::min(call.deadline, absl::Now() + kWatchedAnswer), call.cancelled};
  const absl::Status status = Plan(bounded, request.question(), /*explain=*/false, &response);
  if (status.ok()) {
    *event.mutable_planned() = std::move(response);
    return absl::OkStatus();
  }
  MILLRACE_RETURN_IF_ERROR(StillWanted(call));
  if (absl::IsInvalidArgument(status)) return status;
  event.set_none(std::string(status.message()));
  return absl::OkStatus();
}

absl::Status PlanQueries::Watch(const QueryCall& call, const v1::WatchPlanRequest& request,
                                const std::function<bool(const v1::WatchPlanEvent&)>& write) {
  MILLRACE_ASSIGN_OR_RETURN(const QueryTurns::Turn watch, watches_.Take(call.deadline));
  const ChangeCounter& changes = controller_->changes();
  const Membership& membership = controller_->membership();
  SeenWorkers seen;
  std::string last_answer;
  for (int64_t sequence = 0;;) {
    const int64_t version = changes.count();  // before looking: a change meanwhile is seen next
    v1::WatchPlanEvent event;
    SeenWorkers now = LiveNow(membership);
    MILLRACE_RETURN_IF_ERROR(Answer(call, request, event));
    const std::string answer = event.SerializeAsString();
    AddChanges(membership, seen, now, event);
    if (sequence == 0 || event.since_size() > 0 || answer != last_answer) {
      event.set_sequence(++sequence);
      for (const auto& [name, _] : now) event.add_workers(name);
      if (!write(event)) return absl::OkStatus();
    }
    seen = std::move(now);
    last_answer = answer;
    while (!changes.AwaitAfter(version, absl::Now() + kLookAtCall)) {
      MILLRACE_RETURN_IF_ERROR(StillWanted(call));
    }
    MILLRACE_RETURN_IF_ERROR(StillWanted(call));
  }
}

}  // namespace millrace
