#include "planner/asked_plan.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "planner/pass_size.h"
#include "planner/plan_messages.h"
#include "planner/query_check.h"
#include "proto/convert.h"
#include "proto/field_check.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr int kDefaultContext = 4096;
constexpr int kMostPins = 256;
constexpr int kMostActivations = 64;

using NeedsBySize = std::map<std::pair<int, bool>, PassActivations>;  // tokens, direct products

absl::Status CheckOptions(const v1::PlanOptions& options) {
  FieldCheck check;
  check.Int32("PlanOptions.pins", options.pins_size(), 0, kMostPins);
  check.Int32("PlanOptions.context", options.context(), 0, 1 << 26);
  check.Int32("PlanOptions.slots", options.slots(), 0, 1 << 16);
  check.Int32("PlanOptions.max_pass_tokens", options.max_pass_tokens(), 0, 1 << 20);
  check.Int32("PlanOptions.expected_prompt_tokens", options.expected_prompt_tokens(), 0, 1 << 26);
  return check.status();
}

// Defaults in place of zeros, as a worker resolves them (worker.proto DescribeModel).
v1::PlanOptions Resolved(v1::PlanOptions options, const ModelSpec& model) {
  if (options.context() == 0) {
    options.set_context(std::min(kDefaultContext, model.context_length));
  }
  if (options.slots() == 0) options.set_slots(1);
  if (options.kv_type() == v1::DTYPE_UNSPECIFIED) options.set_kv_type(v1::DTYPE_F16);
  if (options.max_pass_tokens() == 0) options.set_max_pass_tokens(kDefaultPassTokens);
  if (options.expected_prompt_tokens() == 0) options.set_expected_prompt_tokens(512);
  return options;
}

// `options` are resolved.
absl::Status Apply(const v1::PlanOptions& options, PlacementProblem& problem) {
  MILLRACE_RETURN_IF_ERROR(ApplyOptions(options, problem));
  FieldCheck check;
  check.Int("PlanOptions.context x slots", int64_t{problem.context} * problem.slots, 1,
            kMostCachedTokens);
  problem.expected_prompt_tokens =
      std::clamp(problem.expected_prompt_tokens, 1, std::max(1, problem.context - 1));
  return check.status();
}

absl::StatusOr<NeedsBySize> ReadActivations(const v1::PlanRequest& request) {
  FieldCheck check;
  NeedsBySize needs;
  check.Int32("PlanRequest.activations", request.activations_size(), 1, kMostActivations);
  for (int i = 0; i < request.activations_size() && check.ok(); ++i) {
    const v1::PassActivations& wire = request.activations(i);
    const std::string at = absl::StrCat("PlanRequest.activations[", i, "]");
    const int tokens = check.Int32(at + ".max_pass_tokens", wire.max_pass_tokens(), 1, 1 << 20);
    PassActivations& read = needs[{tokens, wire.direct_products()}];
    for (const auto& [field, from, to] : {std::tuple(".cpu", &wire.cpu(), &read.cpu),
                                          {".gpu", &wire.gpu(), &read.gpu},
                                          {".host_route", &wire.host_route(), &read.host_route}}) {
      absl::StatusOr<ActivationNeeds> value = FromProto(*from);
      if (!value.ok()) {
        check.Refuse(absl::StrCat(at, field), value.status().message());
        continue;
      }
      *to = *value;
    }
  }
  if (!check.ok()) return check.status();
  return needs;
}

absl::Status CheckSizesAreThere(const NeedsBySize& needs, int max_pass_tokens) {
  for (int tokens : PassSizesAsked(max_pass_tokens)) {
    for (bool direct : {false, true}) {
      if (needs.contains({tokens, direct})) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "PlanRequest.activations: none for passes of up to ", tokens,
          " tokens with direct_products ", direct ? "true" : "false",
          "; with `spec` and `cluster` both, every size that may be chosen is needed"));
    }
  }
  return absl::OkStatus();
}

// The client has told all.
absl::StatusOr<AskedPlan> FromRequestAlone(const v1::PlanRequest& request, AskedPlan asked) {
  PlacementProblem& problem = asked.query.problem;
  MILLRACE_RETURN_IF_ERROR(Apply(Resolved(request.options(), problem.model), problem));
  MILLRACE_ASSIGN_OR_RETURN(NeedsBySize needs, ReadActivations(request));
  MILLRACE_RETURN_IF_ERROR(CheckSizesAreThere(needs, asked.query.max_pass_tokens));
  asked.query.activations_at = [needs = std::move(needs)](
                                   const ClusterSpec& cluster,
                                   int tokens) -> absl::StatusOr<PassActivations> {
    return needs.at({tokens, AllGpusMultiplyDirectly(cluster)});
  };
  return asked;
}

absl::StatusOr<PassActivations> ReadActivations(const v1::DescribeModelResponse& described) {
  PassActivations needs;
  MILLRACE_ASSIGN_OR_RETURN(needs.cpu, FromProto(described.activations()));
  needs.gpu = needs.host_route = needs.cpu;
  if (described.has_gpu_activations()) {
    MILLRACE_ASSIGN_OR_RETURN(needs.gpu, FromProto(described.gpu_activations()));
  }
  if (described.has_host_route_activations()) {
    MILLRACE_ASSIGN_OR_RETURN(needs.host_route, FromProto(described.host_route_activations()));
  }
  return needs;
}

void SetMachine(const ClusterSpec& cluster, v1::DescribeModelRequest& request) {
  v1::ActivationMachine& machine = *request.mutable_machine();
  int threads = 1;
  for (const HostSpec& host : cluster.hosts) threads = std::max(threads, host.threads);
  machine.set_threads(threads);
  machine.set_direct_products(AllGpusMultiplyDirectly(cluster));
  machine.set_several_workers(cluster.hosts.size() > 1);
}

// A worker tells what the request does not. Its answers are kept: it is asked once per size.
absl::StatusOr<AskedPlan> FromWorker(const v1::PlanRequest& request, AskedPlan asked,
                                     const DescribeModel& describe) {
  v1::DescribeModelRequest question;
  question.set_model(request.model());
  *question.mutable_options() = request.options();
  if (request.has_spec()) *question.mutable_spec() = request.spec();
  const auto ask = [question, describe](const ClusterSpec& cluster, int tokens) {
    v1::DescribeModelRequest sized = question;
    sized.mutable_options()->set_max_pass_tokens(tokens);
    SetMachine(cluster, sized);
    return describe(sized);
  };
  const int first = PassSizesAsked(asked.query.max_pass_tokens).front();
  MILLRACE_ASSIGN_OR_RETURN(const v1::DescribeModelResponse described, ask(asked.cluster, first));
  PlacementProblem& problem = asked.query.problem;
  if (!request.has_spec()) {
    MILLRACE_ASSIGN_OR_RETURN(problem.model, FromProto(described.model()));
  }
  MILLRACE_RETURN_IF_ERROR(Apply(described.options(), problem));
  const auto known = std::make_shared<NeedsBySize>();
  MILLRACE_ASSIGN_OR_RETURN(const PassActivations of_first, ReadActivations(described));
  known->emplace(std::pair(first, AllGpusMultiplyDirectly(asked.cluster)), of_first);
  asked.query.activations_at = [ask, known](const ClusterSpec& cluster,
                                            int tokens) -> absl::StatusOr<PassActivations> {
    const std::pair key(tokens, AllGpusMultiplyDirectly(cluster));
    const auto kept = known->find(key);
    if (kept != known->end()) return kept->second;
    MILLRACE_ASSIGN_OR_RETURN(const v1::DescribeModelResponse answer, ask(cluster, tokens));
    MILLRACE_ASSIGN_OR_RETURN(const PassActivations needs, ReadActivations(answer));
    known->emplace(key, needs);
    return needs;
  };
  return asked;
}

}  // namespace

absl::StatusOr<AskedPlan> MakeAskedPlan(const v1::PlanRequest& request,
                                        const ClusterSpec& registered,
                                        const DescribeModel& describe) {
  AskedPlan asked;
  asked.cluster = registered;
  if (request.model().size() > 4096) {
    return absl::InvalidArgumentError("PlanRequest.model: is longer than 4096 bytes");
  }
  MILLRACE_RETURN_IF_ERROR(CheckOptions(request.options()));
  asked.query.problem.model_reference = request.model();
  asked.query.max_pass_tokens = request.options().max_pass_tokens();
  if (request.has_spec()) {
    MILLRACE_ASSIGN_OR_RETURN(asked.query.problem.model, FromProto(request.spec()));
    MILLRACE_RETURN_IF_ERROR(CheckDescribedModel(asked.query.problem.model));
  }
  if (request.has_cluster()) {
    MILLRACE_ASSIGN_OR_RETURN(asked.cluster, FromProto(request.cluster()));
    MILLRACE_RETURN_IF_ERROR(CheckDescribedCluster(asked.cluster));
  }
  if (request.has_spec() && request.has_cluster()) {
    return FromRequestAlone(request, std::move(asked));
  }
  if (registered.hosts.empty()) {
    return absl::UnavailableError(
        "no worker is registered: start millrace-worker --planner with this planner's address, or "
        "ask with a model's metadata and a described machine (--hardware)");
  }
  return FromWorker(request, std::move(asked), describe);
}

}  // namespace millrace
