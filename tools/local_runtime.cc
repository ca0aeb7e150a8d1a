#include "tools/local_runtime.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "planner/pass_size.h"
#include "proto/status_macros.h"
#include "tools/plan_file.h"
#include "tools/progress_bar.h"
#include "worker/activation_arena.h"
#include "worker/local_stages.h"
#include "worker/stream/probe_disk.h"

namespace millrace {
namespace {

absl::StatusOr<std::unique_ptr<Engine>> LoadStages(const std::shared_ptr<const Model>& model,
                                                   const PlacementPlan& plan,
                                                   const RuntimeRequest& request) {
  ProgressBar bar("loading", ProgressBar::Unit::kBytes);
  StageOptions options;
  options.threads = request.budget.threads;
  options.on_load_progress = [&bar](Bytes done, Bytes total) {
    bar.Update(done.count(), total.count());
  };
  MILLRACE_ASSIGN_OR_RETURN(std::unique_ptr<StageRunner> first,
                            CreateLocalStages(model, plan, options));
  bar.Finish();
  EngineOptions engine;
  engine.slots = plan.slots;
  engine.context = plan.context;
  engine.max_pass_tokens = plan.max_pass_tokens;
  engine.epoch = plan.epoch;
  engine.on_pass = request.on_pass;
  return Engine::Create(model, std::move(first), engine);
}

Runtime MakeRuntime(PlacementPlan plan, std::shared_ptr<Engine> engine) {
  Runtime runtime;
  runtime.plan = std::move(plan);
  runtime.generate = [engine](const GenerateRequest& request,
                              const std::function<bool(const GenerateEvent&)>& on_event) {
    return engine->Generate(request, on_event);
  };
  runtime.logits = [engine](const std::vector<TokenId>& tokens) { return engine->Logits(tokens); };
  runtime.log_probs = [engine](const std::vector<TokenId>& tokens, int first) {
    return engine->LogProbs(tokens, first);
  };
  // NotFound: it has ended by itself.
  runtime.cancel = [engine](const RequestId& id) { engine->Cancel(id).IgnoreError(); };
  return runtime;
}

bool AllGpusMultiplyDirectly(const ClusterSpec& cluster) {
  for (const HostSpec& host : cluster.hosts) {
    for (const DeviceSpec& device : host.devices) {
      if (device.kind == DeviceKind::kGpu && !device.direct_products) return false;
    }
  }
  return true;
}

void SetPassTokens(PlacementProblem& problem, int tokens, int threads) {
  problem.max_pass_tokens = tokens;
  const ActivationShape shape = {tokens, threads, problem.slots, problem.context,
                                 AllGpusMultiplyDirectly(problem.cluster)};
  problem.activations = ActivationNeedsOf(problem.model, shape, DeviceKind::kCpu);
  problem.gpu_activations = ActivationNeedsOf(problem.model, shape, DeviceKind::kGpu);
  ActivationShape host_route = shape;
  host_route.max_pass_tokens = std::min(tokens, kMaxHostRouteTokens);
  problem.host_route_activations = ActivationNeedsOf(problem.model, host_route, DeviceKind::kCpu);
}

// `problem` with passes of the size asked for, or of the best.
absl::StatusOr<PlacementProblem> WithPassSize(PlacementProblem problem,
                                              const RuntimeRequest& request) {
  const int asked = request.budget.max_pass_tokens;
  const auto problem_at = [&](int tokens) -> absl::StatusOr<PlacementProblem> {
    SetPassTokens(problem, tokens, problem.cluster.hosts.front().threads);
    return problem;
  };
  return asked > 0 ? problem_at(asked) : AtBestPassSize(problem.cluster, problem_at);
}

bool HasGpu(const ClusterSpec& cluster) {
  const std::vector<DeviceSpec>& devices = cluster.hosts.front().devices;
  return std::any_of(devices.begin(), devices.end(),
                     [](const DeviceSpec& d) { return d.kind == DeviceKind::kGpu; });
}

absl::Status Differs(const std::string& path, absl::string_view field, absl::string_view plan,
                     absl::string_view here) {
  return absl::FailedPreconditionError(absl::StrCat("--plan: '", path, "': ", field, " is ", plan,
                                                    ", here it is ", here,
                                                    "; make a new plan with `millrace plan -o`"));
}

}  // namespace

absl::StatusOr<PlacementProblem> LocalProblem(const Model& model, const RuntimeRequest& request) {
  PlacementProblem problem;
  MILLRACE_ASSIGN_OR_RETURN(const Budget budget, ParseBudget(request.budget));
  MILLRACE_ASSIGN_OR_RETURN(HostSpec host, ProbeHost(budget.probe));
  problem.model_reference = request.model.empty() ? kDemoModel : request.model;
  problem.model = model.spec();
  problem.context = request.budget.context > 0
                        ? request.budget.context
                        : std::min(request.default_context, model.spec().context_length);
  problem.slots = request.budget.slots;
  problem.kv_type = budget.kv_type;
  problem.expected_prompt_tokens =
      std::clamp(request.expected_prompt_tokens, 1, std::max(1, problem.context - 1));
  problem.pins = budget.pins;
  problem.routes = budget.routes;
  problem.cluster.hosts.push_back(std::move(host));
  MILLRACE_ASSIGN_OR_RETURN(PlacementProblem sized, WithPassSize(problem, request));
  const std::string path = model.PathOf(0);
  if (path.empty() || !HasGpu(problem.cluster)) return sized;
  // Weights stay on disk only where there is no other way: only then is the disk measured.
  MILLRACE_ASSIGN_OR_RETURN(const SolveResult solved, Solve(sized));
  if (!solved.infeasible.has_value()) return sized;
  MILLRACE_ASSIGN_OR_RETURN(problem.cluster.hosts.front().disk_bandwidth, ProbeDisk(path));
  return WithPassSize(problem, request);
}

absl::StatusOr<PlacementPlan> ReadPlanFor(const Model& model, const RuntimeRequest& request) {
  const std::string& path = request.plan_path;
  MILLRACE_ASSIGN_OR_RETURN(PlacementPlan plan, ReadPlanFile("--plan", path));
  const std::string fingerprint = FingerprintOf(model.spec());
  if (plan.model_fingerprint != fingerprint) {
    return Differs(path, "model_fingerprint", plan.model_fingerprint, fingerprint);
  }
  if (request.budget.context > 0 && plan.context != request.budget.context) {
    return Differs(path, "context", absl::StrCat(plan.context),
                   absl::StrCat(request.budget.context, " (--ctx)"));
  }
  for (const Stage& stage : plan.stages) {
    if (stage.worker != plan.stages.front().worker) {
      return absl::FailedPreconditionError(absl::StrCat(
          "--plan: '", path, "': stages on workers '", plan.stages.front().worker.value(),
          "' and '", stage.worker.value(), "' cannot run in one process; add --planner ADDR"));
    }
  }
  return plan;
}

absl::StatusOr<RuntimeOrInfeasible> OpenLocalRuntime(const RuntimeRequest& request) {
  MILLRACE_RETURN_IF_ERROR(ParseBudget(request.budget));  // bad flags before slow work
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model, Model::Open(request.model));
  RuntimeOrInfeasible out;
  PlacementPlan plan;
  std::optional<HostSpec> host;
  if (!request.plan_path.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(plan, ReadPlanFor(*model, request));
  } else {
    MILLRACE_ASSIGN_OR_RETURN(const PlacementProblem problem, LocalProblem(*model, request));
    MILLRACE_ASSIGN_OR_RETURN(SolveResult solved, Solve(problem));
    if (solved.infeasible.has_value()) {
      out.infeasible = std::move(solved.infeasible);
      return out;
    }
    plan = *std::move(solved.plan);
    host = problem.cluster.hosts.front();
  }
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<Engine> engine,
                            LoadStages(model, plan, request));
  out.runtime = MakeRuntime(std::move(plan), std::move(engine));
  out.runtime->host = std::move(host);
  return out;
}

}  // namespace millrace
