#include "tools/local_runtime.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/plan_file.h"
#include "tools/plan_precision.h"
#include "tools/plan_problem.h"
#include "tools/progress_bar.h"
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

// LocalProblem; of the budgets no more than what is free now, if so asked.
absl::StatusOr<PlacementProblem> ProblemHere(const ModelSpec& model, const std::string& path,
                                             const RuntimeRequest& request, bool what_is_free) {
  MILLRACE_ASSIGN_OR_RETURN(const Budget budget, ParseBudget(request.budget));
  ClusterSpec cluster;
  MILLRACE_ASSIGN_OR_RETURN(cluster.hosts.emplace_back(), ProbeHost(budget.probe));
  if (what_is_free) cluster.hosts.front() = BudgetsNow(cluster.hosts.front(), request.memory);
  MILLRACE_ASSIGN_OR_RETURN(PlacementProblem sized,
                            ProblemAtPrecision(cluster, model, request));
  if (path.empty() || !HasGpu(cluster)) return sized;
  // Weights stay on disk only where there is no other way: only then is the disk measured.
  MILLRACE_ASSIGN_OR_RETURN(const SolveResult solved, Solve(sized));
  if (!solved.infeasible.has_value()) return sized;
  MILLRACE_ASSIGN_OR_RETURN(cluster.hosts.front().disk_bandwidth, ProbeDisk(path));
  return ProblemOn(cluster, model, request);
}

}  // namespace

absl::StatusOr<PlacementProblem> LocalProblem(const ModelSpec& model, const std::string& path,
                                              const RuntimeRequest& request) {
  return ProblemHere(model, path, request, /*what_is_free=*/false);
}

absl::StatusOr<PlacementPlan> ReadPlanFor(const Model& model, const RuntimeRequest& request) {
  const std::string& path = request.plan_path;
  if (request.budget.precision.mode != PrecisionFlags().mode) {
    return absl::InvalidArgumentError(
        "--precision: has no effect with --plan: the plan says what is converted");
  }
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

namespace {

// A plan, and the host that it was made for where it was made here.
struct Chosen {
  SolveResult result;
  std::optional<HostSpec> host;
};

absl::StatusOr<Chosen> PlanHere(const Model& model, const RuntimeRequest& request,
                                bool what_is_free) {
  Chosen chosen;
  MILLRACE_ASSIGN_OR_RETURN(const PlacementProblem problem,
                            ProblemHere(model.spec(), model.PathOf(0), request, what_is_free));
  MILLRACE_ASSIGN_OR_RETURN(chosen.result, Solve(problem));
  chosen.host = problem.cluster.hosts.front();
  return chosen;
}

absl::StatusOr<Chosen> ChoosePlan(const Model& model, const RuntimeRequest& request) {
  if (request.plan_path.empty()) return PlanHere(model, request, /*what_is_free=*/false);
  Chosen chosen;
  MILLRACE_ASSIGN_OR_RETURN(chosen.result.plan, ReadPlanFor(model, request));
  return chosen;
}

// OK where what is free now holds the plan.
absl::Status CheckStillFits(const PlacementPlan& plan, const RuntimeRequest& request) {
  return ShortageError(FindShortages(plan, plan.stages.front().worker, request.memory),
                       "or give --replan: the model is then planned again with what is there now");
}

}  // namespace

absl::StatusOr<Runtime> LoadRuntime(const std::shared_ptr<const Model>& model, PlacementPlan plan,
                                    const RuntimeRequest& request) {
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<Engine> engine, LoadStages(model, plan, request));
  return MakeRuntime(std::move(plan), std::move(engine));
}

absl::StatusOr<RuntimeOrInfeasible> OpenLocalRuntime(const RuntimeRequest& request) {
  MILLRACE_RETURN_IF_ERROR(ParseBudget(request.budget));  // bad flags before slow work
  MILLRACE_ASSIGN_OR_RETURN(std::shared_ptr<const Model> model, Model::Open(request.model));
  MILLRACE_ASSIGN_OR_RETURN(Chosen chosen, ChoosePlan(*model, request));
  if (chosen.result.plan.has_value()) {
    absl::Status fits = CheckStillFits(*chosen.result.plan, request);
    if (!fits.ok() && request.replan) {
      std::fprintf(stderr, "planning again: %s\n", std::string(fits.message()).c_str());
      MILLRACE_ASSIGN_OR_RETURN(chosen, PlanHere(*model, request, /*what_is_free=*/true));
      fits = chosen.result.plan ? CheckStillFits(*chosen.result.plan, request) : absl::OkStatus();
    }
    MILLRACE_RETURN_IF_ERROR(fits);
  }
  RuntimeOrInfeasible out;
  if (chosen.result.infeasible.has_value()) {
    out.infeasible = std::move(chosen.result.infeasible);
    return out;
  }
  MILLRACE_ASSIGN_OR_RETURN(out.runtime,
                            LoadRuntime(model, *std::move(chosen.result.plan), request));
  out.runtime->host = std::move(chosen.host);
  return out;
}

}  // namespace millrace
