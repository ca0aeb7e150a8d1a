#include "tools/plan_remote.h"

#include <sys/stat.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "planner/plan_messages.h"
#include "planner/query_messages.h"
#include "proto/convert.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/plan_problem.h"
#include "tools/planner_client.h"
#include "tools/what_if_flag.h"
#include "worker/model/model.h"

namespace millrace {
namespace {

bool IsHere(const std::string& reference) {
  struct stat info {};
  return reference.empty() || reference == kDemoModel || stat(reference.c_str(), &info) == 0;
}

// The model to send; nothing: the workers know it.
absl::StatusOr<std::optional<AskedModel>> ModelToSend(const PlanQuestion& q, bool described) {
  if (!q.shape.empty() || !q.quant.empty()) return ReadModel(q);
  if (!IsHere(q.runtime.model)) return std::nullopt;
  absl::StatusOr<AskedModel> model = ReadModel(q);
  if (described) return model;
  // The workers' own file is what they will load: only what cannot be theirs is sent.
  if (!model.ok() || model->note.empty()) return std::nullopt;
  return model;
}

// Of every pass size that the planner may choose.
absl::Status AddActivations(const ModelSpec& model, const PlanQuestion& q, int threads,
                            v1::PlanRequest& request) {
  MILLRACE_ASSIGN_OR_RETURN(const PlanQuery query, QueryFor(model, q.runtime));
  for (int tokens : PassSizesAsked(query.max_pass_tokens)) {
    for (bool direct : {false, true}) {
      const PassActivations needs = ActivationsFor(query.problem, tokens, threads, direct);
      v1::PassActivations& out = *request.add_activations();
      out.set_max_pass_tokens(tokens);
      out.set_direct_products(direct);
      *out.mutable_cpu() = ToProto(needs.cpu);
      *out.mutable_gpu() = ToProto(needs.gpu);
      *out.mutable_host_route() = ToProto(needs.host_route);
    }
  }
  return absl::OkStatus();
}

const v1::PlacementPlan* PlanOf(const v1::PlanResponse& response) {
  return response.has_plan() ? &response.plan() : nullptr;
}

absl::StatusOr<int> ShowAnswer(const v1::PlanResponse& response, const ShowFlags& show) {
  if (response.has_infeasible()) {
    return ReportInfeasible(FromProto(response.infeasible()), show.json);
  }
  return ShowPlan(response.plan(), show, [&response] { return response.text(); });
}

absl::StatusOr<int> ShowChange(const v1::WhatIfResponse& response, const ShowFlags& show) {
  const v1::PlanResponse& changed = response.changed();
  if (!response.as_is().has_plan() && !changed.has_plan()) {
    return ReportInfeasible(FromProto(changed.infeasible()), show.json);
  }
  if (show.json) {
    PrintBothAsJson(PlanOf(response.as_is()), PlanOf(changed));
  } else {
    std::fputs(response.text().c_str(), stdout);
  }
  return kExitDone;
}

}  // namespace

absl::StatusOr<RemoteQuestion> MakeRemoteQuestion(const PlanQuestion& q) {
  RemoteQuestion out;
  v1::PlanRequest& request = out.request;
  MILLRACE_ASSIGN_OR_RETURN(*request.mutable_options(), ToPlanOptions(q.runtime.budget));
  request.mutable_options()->set_expected_prompt_tokens(q.runtime.expected_prompt_tokens);
  request.set_model(q.runtime.model);
  MILLRACE_ASSIGN_OR_RETURN(const std::optional<DescribedMachine> machine, DescribedBy(q));
  MILLRACE_ASSIGN_OR_RETURN(const std::optional<AskedModel> model,
                            ModelToSend(q, machine.has_value()));
  if (model.has_value()) {
    request.set_model(model->reference.empty() ? kDemoModel : model->reference);
    *request.mutable_spec() = ToProto(model->spec);
    out.model_note = model->note;
  }
  if (!machine.has_value()) return out;
  ClusterSpec cluster;
  cluster.hosts.push_back(machine->host);
  *request.mutable_cluster() = ToProto(cluster);
  out.notes = machine->notes;
  if (model.has_value()) {
    MILLRACE_RETURN_IF_ERROR(AddActivations(model->spec, q, machine->host.threads, request));
  }
  return out;
}

absl::StatusOr<int> RunRemotePlan(const PlanQuestion& question, const std::string& what_if,
                                  const ShowFlags& show) {
  std::optional<MachineChange> change;
  if (!what_if.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(change, ParseWhatIf(what_if));
  }
  MILLRACE_ASSIGN_OR_RETURN(const RemoteQuestion asked, MakeRemoteQuestion(question));
  MILLRACE_ASSIGN_OR_RETURN(std::unique_ptr<PlannerClient> client,
                            PlannerClient::Connect(question.runtime.planner));
  if (change.has_value()) {
    v1::WhatIfRequest request;
    *request.mutable_question() = asked.request;
    *request.mutable_change() = ToProto(*change);
    MILLRACE_ASSIGN_OR_RETURN(const v1::WhatIfResponse response, client->WhatIf(request));
    PrintNotes(asked.model_note, asked.notes, show.json);
    PrintAddedCards(*change, show.json);
    return ShowChange(response, show);
  }
  MILLRACE_ASSIGN_OR_RETURN(const v1::PlanResponse response,
                            show.explain && !show.json ? client->ExplainPlan(asked.request)
                                                       : client->Plan(asked.request));
  PrintNotes(asked.model_note, asked.notes, show.json);
  return ShowAnswer(response, show);
}

}  // namespace millrace
