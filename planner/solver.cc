#include "planner/solver.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "planner/host_rates.h"
#include "planner/infeasibility.h"
#include "planner/plan_builder.h"
#include "planner/plan_validator.h"
#include "planner/stage_options.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Past this many states the search would take seconds; see Solve's contract.
constexpr int64_t kMaxStates = int64_t{1} << 22;

// Devices that are the same to the search: equal sizes and speeds, each alone on its worker.
struct DeviceClass {
  std::vector<int> devices;  // indices into AllDevices, in order
};

std::vector<DeviceClass> ClassesOf(const PlacementProblem& problem,
                                   const std::vector<DeviceRef>& devices, bool distinct) {
  using Key = std::vector<double>;
  std::vector<DeviceClass> classes;
  std::map<Key, size_t> known;
  for (size_t i = 0; i < devices.size(); ++i) {
    const HostSpec& host = problem.cluster.hosts[devices[i].host];
    const DeviceSpec& d = host.devices[devices[i].device];
    const bool alone = host.devices.size() == 1;
    Key key = {static_cast<double>(d.kind == DeviceKind::kGpu),
               static_cast<double>(d.budget.count()),
               static_cast<double>(d.overhead.count()),
               d.memory_bandwidth.bytes_per_second(),
               d.h2d_bandwidth.bytes_per_second(),
               d.prefill_flops,
               host.dram_bandwidth.bytes_per_second(),
               CpuFlops(host),
               static_cast<double>(host.budget.count()),
               alone && !distinct ? -1.0 : static_cast<double>(i)};
    for (const ProductTime& time : d.times.products) key.push_back(time.seconds);
    for (const CpuRate& rate : host.cpu_rates) {
      key.push_back(rate.tokens);
      key.push_back(rate.weights.bytes_per_second());
    }
    const auto [it, added] = known.emplace(key, classes.size());
    if (added) classes.push_back({});
    classes[it->second].devices.push_back(static_cast<int>(i));
  }
  return classes;
}

// Shortest path over (devices used, last class, first block still to place). A step places blocks
// [i, j) on one more device of some class.
class Search {
 public:
  Search(const StageTable& table, std::vector<DeviceClass> classes)
      : table_(table), classes_(std::move(classes)), blocks_(table.size()) {
    stride_.push_back(1);
    for (const DeviceClass& c : classes_) {
      stride_.push_back(stride_.back() * static_cast<int64_t>(c.devices.size() + 1));
    }
  }

  int64_t states() const {
    return stride_.back() * static_cast<int64_t>(classes_.size() + 1) * (blocks_ + 1);
  }

  // Stages in order, or empty when nothing fits.
  std::vector<StageChoice> Run() {
    const size_t count = static_cast<size_t>(states());
    cost_.assign(count, kInfinity);
    from_.assign(count, -1);
    cost_[Index(0, classes_.size(), 0)] = 0;
    best_ = kInfinity;
    best_index_ = -1;
    for (int64_t used = 0; used < stride_.back(); ++used) {
      for (size_t last = 0; last <= classes_.size(); ++last) {
        for (int i = 0; i < blocks_; ++i) Expand(used, last, i);
      }
    }
    return best_index_ < 0 ? std::vector<StageChoice>() : Trace();
  }

 private:
  int64_t Index(int64_t used, size_t last, int block) const {
    return (used * static_cast<int64_t>(classes_.size() + 1) + static_cast<int64_t>(last)) *
               (blocks_ + 1) + block;
  }
  int UsedOf(int64_t used, size_t c) const {
    return static_cast<int>(used / stride_[c] % static_cast<int64_t>(classes_[c].devices.size() + 1));
  }

  void Expand(int64_t used, size_t last, int i) {
    const int64_t at = Index(used, last, i);
    const double so_far = cost_[static_cast<size_t>(at)];
    if (so_far + table_.LeastSeconds(i) >= best_) return;
    for (size_t c = 0; c < classes_.size(); ++c) {
      const int taken = UsedOf(used, c);
      if (taken == static_cast<int>(classes_[c].devices.size())) continue;
      const int device = classes_[c].devices[static_cast<size_t>(taken)];
      double hop = 0;
      if (last < classes_.size()) hop = table_.HopSeconds(LastDevice(used, last), device);
      for (int j = i + 1; j <= blocks_; ++j) {
        const StageOption& option = table_.Option(device, i, j);
        if (!option.fits) {
          if (option.hopeless) break;  // longer runs do not fit either
          continue;
        }
        const double cost = so_far + hop + option.seconds;
        const int64_t to = Index(used + stride_[c], c, j);
        if (cost < cost_[static_cast<size_t>(to)]) {
          cost_[static_cast<size_t>(to)] = cost;
          from_[static_cast<size_t>(to)] = at;
          if (j == blocks_ && cost < best_) {
            best_ = cost;
            best_index_ = to;
          }
        }
      }
    }
  }

  // The device of class c that was taken last in `used`.
  int LastDevice(int64_t used, size_t c) const {
    return classes_[c].devices[static_cast<size_t>(UsedOf(used, c)) - 1];
  }

  std::vector<StageChoice> Trace() const {
    std::vector<StageChoice> stages;
    for (int64_t at = best_index_; from_[static_cast<size_t>(at)] >= 0;) {
      const int64_t before = from_[static_cast<size_t>(at)];
      const int end = static_cast<int>(at % (blocks_ + 1));
      const int first = static_cast<int>(before % (blocks_ + 1));
      const int64_t row = at / (blocks_ + 1);
      const size_t c = static_cast<size_t>(row % static_cast<int64_t>(classes_.size() + 1));
      const int64_t used = row / static_cast<int64_t>(classes_.size() + 1);
      stages.push_back({LastDevice(used, c), first, end});
      at = before;
    }
    std::reverse(stages.begin(), stages.end());
    return stages;
  }

  const StageTable& table_;
  const std::vector<DeviceClass> classes_;
  const int blocks_;
  std::vector<int64_t> stride_;
  std::vector<double> cost_;
  std::vector<int64_t> from_;
  double best_ = kInfinity;
  int64_t best_index_ = -1;
};

absl::Status CheckHost(const HostSpec& host) {
  const std::string name = host.worker.value();
  if (host.devices.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("worker ", name, " has no devices"));
  }
  Bytes cpu;
  for (const DeviceSpec& d : host.devices) {
    if (d.budget < Bytes(0) || d.overhead < Bytes(0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("worker ", name, ", device ", d.id.value(), ": negative budget or overhead"));
    }
    if (d.kind == DeviceKind::kCpu) cpu += d.budget;
  }
  int cpus = 0;
  for (const DeviceSpec& d : host.devices) cpus += d.kind == DeviceKind::kCpu;
  if (cpus > 1 && cpu > host.budget) {
    return absl::InvalidArgumentError(absl::StrCat(
        "worker ", name, ": its CPU devices' budgets add up to ", FormatBytes(cpu),
        ", more than the host memory budget of ", FormatBytes(host.budget),
        ": lower --devices or raise --host-memory"));
  }
  return absl::OkStatus();
}

absl::Status CheckProblem(const PlacementProblem& p) {
  if (p.cluster.hosts.empty()) {
    return absl::InvalidArgumentError("cluster: there are no workers to plan over");
  }
  for (const HostSpec& host : p.cluster.hosts) MILLRACE_RETURN_IF_ERROR(CheckHost(host));
  if (p.context < 1) return absl::InvalidArgumentError(absl::StrCat("context is ", p.context));
  if (p.slots < 1) return absl::InvalidArgumentError(absl::StrCat("slots is ", p.slots));
  if (p.max_pass_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat("max_pass_tokens is ", p.max_pass_tokens));
  }
  if (p.objective.batch < 1 || p.objective.batch > p.slots) {
    return absl::InvalidArgumentError(
        absl::StrCat("the objective is ", p.objective.batch, " sequences together, but slots is ",
                     p.slots, ": raise --slots or ask for fewer"));
  }
  if (p.objective.prompt_tokens > p.context) {
    return absl::InvalidArgumentError(
        absl::StrCat("the objective is a prompt of ", p.objective.prompt_tokens,
                     " tokens, but context is ", p.context, ": raise --ctx or ask for less"));
  }
  if (p.model.layers.empty()) return absl::InvalidArgumentError("model: it has no layers");
  for (const LayerSpec& l : p.model.layers) {
    if (l.head_dim % Info(p.kv_type).block_elements != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("kv_type ", DTypeName(p.kv_type), " needs head sizes that are a multiple of ",
                       Info(p.kv_type).block_elements, "; this model has ", l.head_dim));
    }
  }
  return absl::OkStatus();
}

// The problem with the CPU beside a GPU left out as a device: its memory and its cores then serve the
// GPU's host-homed blocks. No hosts: there is no such CPU.
PlacementProblem WithCpusLent(const PlacementProblem& problem) {
  PlacementProblem lent = problem;
  bool any = false;
  for (HostSpec& host : lent.cluster.hosts) {
    const auto is_cpu = [](const DeviceSpec& d) { return d.kind == DeviceKind::kCpu; };
    if (std::all_of(host.devices.begin(), host.devices.end(), is_cpu)) continue;
    host.cpu_flops = CpuFlops(host);  // known of the device that goes
    any |= std::erase_if(host.devices, is_cpu) > 0;
  }
  if (!any) lent.cluster.hosts.clear();
  return lent;
}

absl::StatusOr<std::optional<PlacementPlan>> PlanOver(const PlacementProblem& problem) {
  MILLRACE_ASSIGN_OR_RETURN(const ResolvedPins pins, ResolvePins(problem));
  const MemoryBudget memory(problem);
  const CostModel cost(problem, memory);
  const StageTable table(problem, memory, cost, pins);
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<StageChoice> stages,
                            FindStages(problem, table, pins));
  if (stages.empty()) return std::nullopt;
  PlacementPlan plan = BuildPlan(problem, memory, cost, table, stages);
  MILLRACE_RETURN_IF_ERROR(ValidatePlan(problem, plan));
  return plan;
}

}  // namespace

absl::StatusOr<std::vector<StageChoice>> FindStages(const PlacementProblem& problem,
                                                    const StageTable& table,
                                                    const ResolvedPins& pins) {
  const std::vector<DeviceRef> devices = AllDevices(problem.cluster);
  Search search(table, ClassesOf(problem, devices, pins.any_device));
  if (search.states() > kMaxStates) {
    return absl::UnimplementedError(
        absl::StrCat("the cluster has ", devices.size(),
                     " devices of too many different kinds for the exact search: leave some out"));
  }
  return search.Run();
}

absl::StatusOr<std::optional<PlacementPlan>> FindPlan(const PlacementProblem& problem) {
  MILLRACE_RETURN_IF_ERROR(CheckProblem(problem));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<PlacementPlan> plan, PlanOver(problem));
  const PlacementProblem lent = WithCpusLent(problem);
  if (lent.cluster.hosts.empty()) return plan;
  // A pin may name the CPU as a device of its own: then there is no such choice.
  const absl::StatusOr<std::optional<PlacementPlan>> other = PlanOver(lent);
  if (!other.ok() || !other->has_value()) return plan;
  if (!plan.has_value() || (*other)->predicted.objective_time < plan->predicted.objective_time) {
    plan = *other;
    MILLRACE_RETURN_IF_ERROR(ValidatePlan(problem, *plan));
  }
  return plan;
}

absl::StatusOr<SolveResult> Solve(const PlacementProblem& problem) {
  SolveResult result;
  MILLRACE_ASSIGN_OR_RETURN(result.plan, FindPlan(problem));
  if (!result.plan.has_value()) {
    MILLRACE_ASSIGN_OR_RETURN(const ResolvedPins pins, ResolvePins(problem));
    const MemoryBudget memory(problem);
    const CostModel cost(problem, memory);
    const StageTable table(problem, memory, cost, pins);
    MILLRACE_ASSIGN_OR_RETURN(result.infeasible, ExplainInfeasible(problem, table, pins));
  }
  return result;
}

}  // namespace millrace
